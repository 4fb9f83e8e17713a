import { checkBytes, checkInteger, checkOptions, type NamesOf } from '../../../base/arguments.ts';
import { hex, outOfRange } from '../../../base/errors.ts';
import { counted } from '../../../base/text.ts';
import type { U64 } from '../../../base/u64.ts';
import type { Callee } from '../../../calls/failure.ts';
import type { S390xCalls } from '../../../calls/kvm-calls.ts';
import type { Rule } from '../../../rules/rule.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { MEMOP, MEMOP_FLAG } from '../../../uapi/flags.ts';
import { ABSOLUTE_RULES, CMPXCHG_RULES, type MemOpContext } from '../rules.ts';
import { type AccessFailure, explainAbsolute } from './explain-access.ts';
import {
  type AccessCheck,
  type AccessOptions,
  bufferFor,
  checkAddress,
  interruption,
  isStore,
  keyOf,
  type MemOpRequest,
  MemOpTransfer,
  memOpFailure,
} from './mem-op.ts';

export interface CompareExchangeOptions extends AccessOptions {
  /** What must be there: 1, 2, 4, 8 or 16 bytes in guest memory order. */
  readonly expected: Uint8Array;
  /** What is put there, as many bytes. */
  readonly replacement: Uint8Array;
}

const OPTIONS: NamesOf<AccessOptions> = { key: true };
const EXCHANGE_OPTIONS: NamesOf<CompareExchangeOptions> = { ...OPTIONS, expected: true, replacement: true };

/** What a compare-exchange did. */
export interface CompareExchangeResult {
  readonly exchanged: boolean;
  /** What was there. */
  readonly found: Uint8Array;
}

/** The kernel gives up 1- and 2-byte exchanges after lost races; so often it is asked again. */
const MAX_ATTEMPTS = 1000;
const SIZES = [1, 2, 4, 8, 16];

/**
 * A VM's absolute storage through the kernel (KVM_S390_MEM_OP on the VM, 5.18 and later): no translation, no prefixing, no
 * low-address protection, but storage keys. Unlike accesses through `vm.memory`, writes become part of the dirty log.
 *
 * A write goes page by page: what precedes a page that is missing or protected stays written.
 */
export class VmMemOp {
  readonly #s390x: S390xCalls;
  readonly #target: Callee;
  readonly #transfer: MemOpTransfer;

  /** Made by {@link Vm.memOp}. */
  constructor(s390x: S390xCalls, target: Callee, maxSize: () => number) {
    this.#s390x = s390x;
    this.#target = target;
    this.#transfer = new MemOpTransfer(s390x, target, maxSize);
  }

  /**
   * Reads absolute storage.
   * @param into a buffer to fill, or the number of bytes; more than 64 KiB are several calls
   * @throws ProgramInterruption 4 protection, 5 addressing; KvmError EINVAL for 0 bytes or a kernel before 5.18
   */
  readAbsolute(gaddr: U64, into: number | Uint8Array, options: AccessOptions): Uint8Array {
    const buf = bufferFor(into);
    this.#move(MEMOP.ABSOLUTE_READ, gaddr, buf, options);
    return buf;
  }

  /** Writes absolute storage. @throws as {@link readAbsolute} */
  writeAbsolute(gaddr: U64, bytes: Uint8Array, options: AccessOptions): void {
    this.#move(MEMOP.ABSOLUTE_WRITE, gaddr, checkBytes(bytes, 'bytes'), options);
  }

  /**
   * Whether an access of up to 64 KiB may be made. With key 0 the kernel looks at the first page only, up to 6.19.
   * @throws KvmError EINVAL, E2BIG
   */
  checkAbsolute(gaddr: U64, size: number, access: 'fetch' | 'store', options: AccessOptions): AccessCheck {
    const op = isStore(access) ? MEMOP.ABSOLUTE_WRITE : MEMOP.ABSOLUTE_READ;
    const whole = request(op, gaddr, checkInteger(size, 'size', 0, 0xffff_ffff), options);
    const code = this.#transfer.once({ ...whole, flags: whole.flags | MEMOP_FLAG.CHECK_ONLY }, ABSOLUTE_RULES);
    if (code === 0) return { permitted: true };
    return { permitted: false, interruption: interruption(code, gaddr, this.#why(whole, code)) };
  }

  /**
   * Exchanges 1, 2, 4, 8 or 16 bytes atomically if they are what is expected (6.3 and later). Lost races are tried again.
   * @throws ProgramInterruption 4, 5; KvmError EINVAL for another size, an address that isn't a multiple of it, or an
   *   older kernel; EAGAIN when the races never end
   */
  compareExchange(gaddr: U64, options: CompareExchangeOptions): CompareExchangeResult {
    const expected = checkBytes(checkOptions(options, EXCHANGE_OPTIONS).expected, 'options.expected');
    const replacement = checkBytes(options.replacement, 'options.replacement');
    if (replacement.length !== expected.length) {
      throw outOfRange(
        'options.replacement',
        `as long as what is expected, ${counted(expected.length, 'byte')}`,
        replacement.length,
      );
    }
    const wanted = {
      ...request(MEMOP.ABSOLUTE_CMPXCHG, gaddr, replacement.length, { key: options.key }),
      buf: replacement,
    };
    const { op, size, flags, key } = wanted;
    for (let attempt = 1; ; attempt++) {
      const found = expected.slice();
      const result = this.#s390x.memOp(this.#target.fd, op, gaddr, size, flags, replacement, 0, key, found, 0);
      if (result === -ERRNO.EAGAIN && attempt < MAX_ATTEMPTS) continue;
      if (result > 0) throw interruption(result, gaddr, this.#why(wanted, result));
      if (result < 0) throw memOpFailure(result, this.#target, wanted, exchangeRules(gaddr));
      return { exchanged: found.every((byte, i) => byte === expected[i]), found };
    }
  }

  #move(op: number, gaddr: U64, buf: Uint8Array, options: AccessOptions): void {
    const wanted = { ...request(op, gaddr, buf.length, options), buf };
    this.#transfer.move(wanted, ABSOLUTE_RULES, (part, code) => this.#why(part, code));
  }

  #why({ op, gaddr, size, key }: MemOpRequest, code: number): AccessFailure {
    const store = op !== MEMOP.ABSOLUTE_READ;
    return explainAbsolute(
      { s390x: this.#s390x, fd: this.#target.fd },
      { gaddr: BigInt(gaddr), size, store, key },
      code,
    );
  }
}

function request(op: number, gaddr: U64, size: number, options: AccessOptions): MemOpRequest {
  return { op, gaddr: checkAddress(gaddr), size, buf: null, ar: 0, ...keyOf(options, OPTIONS) };
}

/** Beside what the kernel looks at first, where and what is exchanged. */
function exchangeRules(gaddr: U64): readonly Rule<MemOpContext>[] {
  return [
    ...CMPXCHG_RULES,
    {
      errno: 'EINVAL',
      broken: ({ size }) => !SIZES.includes(size),
      why: ({ size }) => `size ${size}: compare-exchange is on 1, 2, 4, 8 or 16 bytes`,
    },
    {
      errno: 'EINVAL',
      broken: ({ size }) => BigInt(gaddr) % BigInt(size) !== 0n,
      why: ({ size }) => `address ${hex(gaddr)} is not a multiple of the ${size} bytes to exchange`,
    },
  ];
}
