import {
  checkBytes,
  checkInteger,
  checkOneOf,
  checkOptions,
  checkU64,
  isExact,
  type NamesOf,
  newBytes,
} from '../../../base/arguments.ts';
import { type KvmError, ProgramInterruption } from '../../../base/errors.ts';
import { partOf } from '../../../base/part-of.ts';
import type { U64 } from '../../../base/u64.ts';
import { type Callee, callFailure } from '../../../calls/failure.ts';
import type { S390xCalls } from '../../../calls/kvm-calls.ts';
import { explain, type Rule } from '../../../rules/rule.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { MEMOP_FLAG } from '../../../uapi/flags.ts';
import { programInterruptionName } from '../model/program-interruption.ts';
import { MEM_OP_MAX_SIZE, type MemOpContext } from '../rules.ts';
import type { AccessFailure } from './explain-access.ts';

/** What every access says. */
export interface AccessOptions {
  /**
   * The access key, 0 to 15, against which the storage keys are checked; 0 opens everything. There is no default,
   * because the key of the guest's PSW is never used.
   */
  readonly key: number;
}

/** What every access to logical addresses says. */
export interface LogicalAccessOptions extends AccessOptions {
  /** The access register, 0 to 15; it counts only in access-register mode. Default 0, the primary space. */
  readonly ar?: number;
  /** Makes a program interruption pending, so that the guest takes it at the next KVM_RUN. */
  readonly inject?: boolean;
}

/** Whether an access may be made: what CHECK_ONLY says. */
export type AccessCheck =
  | { readonly permitted: true }
  | { readonly permitted: false; readonly interruption: ProgramInterruption };

/** One KVM_S390_MEM_OP of a transfer. */
export interface MemOpRequest {
  readonly op: number;
  readonly gaddr: U64;
  readonly size: number;
  readonly flags: number;
  readonly buf: Uint8Array | null;
  readonly ar: number;
  readonly key: number;
}

/** Moves bytes with as many MEM_OPs as it takes, and says what went wrong. */
export class MemOpTransfer {
  readonly #s390x: S390xCalls;
  readonly #target: Callee;
  /** Largest size of one call; asked for when it is needed. */
  readonly #maxSize: () => number;

  constructor(s390x: S390xCalls, target: Callee, maxSize: () => number) {
    this.#s390x = s390x;
    this.#target = target;
    this.#maxSize = maxSize;
  }

  /** One call: 0 or the program-interruption code. @throws KvmError */
  once(request: MemOpRequest, rules: readonly Rule<MemOpContext>[]): number {
    const { op, gaddr, size, flags, buf, ar, key } = request;
    const result = this.#s390x.memOp(this.#target.fd, op, gaddr, size, flags, buf, ar, key, null, 0);
    if (result < 0) throw memOpFailure(result, this.#target, request, rules);
    return result;
  }

  /**
   * As many calls as the bytes take.
   * @throws ProgramInterruption with `transferred`, the bytes of the calls that succeeded
   */
  move(
    request: MemOpRequest & { readonly buf: Uint8Array },
    rules: readonly Rule<MemOpContext>[],
    why: (part: MemOpRequest, code: number) => AccessFailure,
  ): void {
    const { gaddr, buf } = request;
    // Nobody needs to know how much one call takes if it takes this much anyway.
    const max = buf.length <= MEM_OP_MAX_SIZE ? MEM_OP_MAX_SIZE : this.#maxSize();
    let done = 0;
    do {
      const size = Math.min(max, buf.length - done);
      const whole = size === buf.length;
      const part = whole
        ? request
        : { ...request, gaddr: plus(gaddr, done), size, buf: partOf(buf, done, done + size) };
      const code = this.once(part, rules);
      if (code !== 0) throw interruption(code, request.gaddr, why(part, code), done);
      done += size;
    } while (done < buf.length);
  }
}

/** An address further on; addresses wrap at 2^64. */
export function plus(address: U64, bytes: number): U64 {
  if (bytes === 0) return address;
  if (typeof address === 'number' && isExact(address + bytes)) return address + bytes;
  return BigInt.asUintN(64, BigInt(address) + BigInt(bytes));
}

export function interruption(
  code: number,
  gaddr: U64,
  { address, explanation, walk }: AccessFailure,
  transferred = 0,
): ProgramInterruption {
  const title = `${programInterruptionName(code)} exception`;
  return new ProgramInterruption(code, { title, gaddr, address, transferred, explanation, walk });
}

export function memOpFailure(
  errno: number,
  target: Callee,
  { op, gaddr, size, flags, ar, key }: MemOpRequest,
  rules: readonly Rule<MemOpContext>[],
): KvmError {
  const context = { op, flags, size, ar, key, sidaOffset: 0, sidaSize: 0 };
  const explanation =
    errno === -ERRNO.EFAULT
      ? 'the host lacks memory that a memslot promises: of a translation table, or of the page itself'
      : explain(rules, context, errno);
  return callFailure('memOp', errno, target, { gpa: gaddr, size, explanation });
}

/** The options' key, checked, with the flag that makes the kernel look at it. */
export function keyOf<T extends AccessOptions>(options: T, names: NamesOf<T>): { key: number; flags: number } {
  const key = checkInteger(checkOptions(options, names).key, 'options.key', 0, 15);
  return { key, flags: key === 0 ? 0 : MEMOP_FLAG.SKEY };
}

/** The buffer to read into: the caller's, or a new one of the given size. */
export function bufferFor(into: number | Uint8Array): Uint8Array {
  if (typeof into === 'number') return newBytes(into, 'into');
  return checkBytes(into, 'into');
}

/** Whether an access that is only asked about stores. */
export const isStore = (access: 'fetch' | 'store'): boolean =>
  checkOneOf(access, 'access', ['fetch', 'store']) === 'store';

export const checkAddress = (gaddr: U64): U64 => checkU64(gaddr, 'gaddr');
