import { checkBoolean, checkBytes, checkInteger, type NamesOf } from '../../../base/arguments.ts';
import type { U64 } from '../../../base/u64.ts';
import type { Callee } from '../../../calls/failure.ts';
import type { S390xCalls } from '../../../calls/kvm-calls.ts';
import { MEMOP, MEMOP_FLAG } from '../../../uapi/flags.ts';
import { KVM_RUN_S390X } from '../../../uapi/structs.ts';
import type { CpuState } from '../model/cpu-state.ts';
import { addressingMode } from '../model/psw.ts';
import { LOGICAL_RULES } from '../rules.ts';
import { type AccessFailure, explainLogical, wrapHint } from './explain-access.ts';
import {
  type AccessCheck,
  bufferFor,
  checkAddress,
  interruption,
  isStore,
  keyOf,
  type LogicalAccessOptions,
  type MemOpRequest,
  MemOpTransfer,
} from './mem-op.ts';

/** The vCPU whose addresses are accessed. */
export interface LogicalTarget extends Callee {
  readonly vm: { readonly fd: number };
  readonly kvmRun: { readonly view: DataView };
}

const OPTIONS: NamesOf<LogicalAccessOptions> = { key: true, ar: true, inject: true };

/** Where addresses begin that 24-bit addressing cannot form. */
const END_OF_24_BIT = 0x100_0000;

/**
 * A vCPU's view of its guest's memory: logical addresses, translated as the CPU would, under the IPTE interlock
 * (KVM_S390_MEM_OP, 4.1 and later; a key other than 0 needs 5.18). Addressing mode, DAT and address space are those of
 * the vCPU's PSW as of the last KVM_RUN; on a new vCPU they are 24 bits, off, and none.
 *
 * Up to 64 KiB are one call. A read of one call fills the whole buffer or leaves it alone. A write translates every
 * page before a byte is moved, but looks at a page's storage key when it comes to it: what precedes a key exception
 * stays written. Longer transfers are several calls: `transferred` of the interruption says how many bytes the calls
 * before the failing one have moved.
 *
 * @example
 * const banner = vcpu.memOp.read(0x1b5_f9c8n, 64, { key: 0 });
 */
export class VcpuMemOp {
  readonly #s390x: S390xCalls;
  readonly #target: LogicalTarget;
  readonly #cpuState: () => CpuState;
  readonly #transfer: MemOpTransfer;
  /** PSW or prefix were set, and the kernel has not taken them over yet. */
  readonly #pswWaits: () => boolean;
  readonly #warned = new Set<string>();

  /** Made by {@link Vcpu.memOp}. */
  constructor(
    s390x: S390xCalls,
    target: LogicalTarget,
    cpuState: () => CpuState,
    maxSize: () => number,
    pswWaits: () => boolean,
  ) {
    this.#s390x = s390x;
    this.#pswWaits = pswWaits;
    this.#target = target;
    this.#cpuState = cpuState;
    this.#transfer = new MemOpTransfer(s390x, target, maxSize);
  }

  /**
   * Reads guest memory.
   * @param gaddr logical address, a u64
   * @param into a buffer to fill, or the number of bytes
   * @throws ProgramInterruption 4, 5, 0x10 to 0x12, 0x28 to 0x2d, 0x38 to 0x3b; KvmError EINVAL for 0 bytes, EFAULT
   */
  read(gaddr: U64, into: number | Uint8Array, options: LogicalAccessOptions): Uint8Array {
    const buf = bufferFor(into);
    this.#move(MEMOP.LOGICAL_READ, gaddr, buf, options);
    return buf;
  }

  /** Writes guest memory. Its pages become dirty. @throws as {@link read} */
  write(gaddr: U64, bytes: Uint8Array, options: LogicalAccessOptions): void {
    this.#move(MEMOP.LOGICAL_WRITE, gaddr, checkBytes(bytes, 'bytes'), options);
  }

  /**
   * Whether an access of up to 64 KiB may be made, keys included, without making it.
   * @throws KvmError EINVAL for 0 bytes, E2BIG for too many
   */
  check(gaddr: U64, size: number, access: 'fetch' | 'store', options: LogicalAccessOptions): AccessCheck {
    const op = isStore(access) ? MEMOP.LOGICAL_WRITE : MEMOP.LOGICAL_READ;
    const checked = checkInteger(size, 'size', 0, 0xffff_ffff);
    const request = this.#request(op, gaddr, checked, null, MEMOP_FLAG.CHECK_ONLY, options);
    const code = this.#transfer.once(request, LOGICAL_RULES);
    if (code !== 0) return { permitted: false, interruption: interruption(code, gaddr, this.#why(request, code)) };
    this.#warnOfOtherAddress(gaddr, size);
    return { permitted: true };
  }

  #move(op: number, gaddr: U64, buf: Uint8Array, options: LogicalAccessOptions): void {
    const request = this.#request(op, gaddr, buf.length, buf, 0, options);
    this.#transfer.move(request, LOGICAL_RULES, (part, code) => this.#why(part, code));
    this.#warnOfOtherAddress(gaddr, buf.length);
  }

  #request<B extends Uint8Array | null>(
    op: number,
    gaddr: U64,
    size: number,
    buf: B,
    checkOnly: number,
    options: LogicalAccessOptions,
  ): MemOpRequest & { readonly buf: B } {
    const { key, flags } = keyOf(options, OPTIONS);
    const { ar = 0, inject = false } = options;
    checkInteger(ar, 'options.ar', 0, 15);
    const all = flags | checkOnly | (checkBoolean(inject, 'options.inject') ? MEMOP_FLAG.INJECT : 0);
    return { op, gaddr: checkAddress(gaddr), size, flags: all, buf, ar, key };
  }

  #why({ op, gaddr, size, flags, ar, key }: MemOpRequest, code: number): AccessFailure {
    const access = {
      gaddr: BigInt(gaddr),
      size,
      ar,
      key,
      store: op === MEMOP.LOGICAL_WRITE,
      checkOnly: (flags & MEMOP_FLAG.CHECK_ONLY) !== 0,
    };
    const { vm } = this.#target;
    return explainLogical(this.#cpuState(), { s390x: this.#s390x, fd: vm.fd }, access, code);
  }

  /** Whoever reaches another address than the one that was asked for should hear of it, once. */
  #warnOfOtherAddress(gaddr: U64, size: number): void {
    if (this.#pswWaits()) {
      this.#warn(
        'KVM_BRIDGE_PSW_WAITS',
        'the PSW or prefix that was set takes effect with the next KVM_RUN, and the kernel went by the one before: its addressing mode, DAT and address space',
      );
    }
    if (gaddr < END_OF_24_BIT - size) return;
    const run = this.#target.kvmRun.view;
    const mode = addressingMode(run.getUint32(KVM_RUN_S390X.psw_mask), run.getUint32(KVM_RUN_S390X.psw_mask + 4));
    if (mode === 64) return;
    const hint = wrapHint(mode, BigInt(gaddr)) ?? wrapHint(mode, BigInt.asUintN(64, BigInt(gaddr) + BigInt(size) - 1n));
    if (hint !== undefined) this.#warn('KVM_BRIDGE_ADDRESS_WRAPPED', hint);
  }

  #warn(code: string, what: string): void {
    if (this.#warned.has(code)) return;
    this.#warned.add(code);
    process.emitWarning(`MEM_OP on ${this.#target.noun}: ${what}`, { code });
  }
}
