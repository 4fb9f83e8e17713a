import { inspect } from 'node:util';
import { checkBoolean, checkInteger, checkU32 } from '../base/arguments.ts';
import { invalidArgType, KvmError } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';
import { isClosed } from '../calls/failure.ts';
import { type Arch, isLittleEndianHost } from '../uapi/arch.ts';
import { ERRNO } from '../uapi/errno.ts';
import { EXIT, exitName } from '../uapi/flags.ts';
import { IO_DIRECTION, KVM_RUN, KVM_RUN_S390X, PAPR_HCALL_ARGS } from '../uapi/structs.ts';

/** The guest's load from, or store to, an address without memory and without a handler. */
export interface MmioExit {
  readonly reason: 'MMIO';
  readonly gpa: U64;
  readonly size: number;
  readonly isWrite: boolean;
  /** What is stored; or, for a load, where to put what the guest gets before running on. In guest memory order. */
  readonly data: Uint8Array;
}

/** Port I/O without a handler. */
export interface IoExit {
  readonly reason: 'IO';
  readonly direction: 'in' | 'out';
  readonly port: number;
  /** Bytes of one access, */
  readonly size: number;
  /** and how many there are (string instructions). */
  readonly count: number;
  /** `size * count` bytes: what is put out; or where to put what the guest gets. */
  readonly data: Uint8Array;
}

/** The guest touched memory that its slot promises and the host cannot give, and the kernel says where: private memory (x86_64, 6.8+). */
export interface MemoryFaultExit {
  readonly reason: 'MEMORY_FAULT';
  readonly gpa: U64;
  readonly size: U64;
  /** KVM_MEMORY_EXIT_FLAG_PRIVATE = 8. */
  readonly flags: number;
}

/** A PAPR hypercall that the kernel leaves to user space. `setReturn` answers it (r3, and r4 on), before the vCPU runs on. */
export interface PaprHcallExit {
  readonly reason: 'PAPR_HCALL';
  readonly nr: number;
  readonly args: readonly bigint[];
  setReturn(code: bigint, ...values: readonly bigint[]): void;
}

/** Why KVM_RUN came back, `reason` telling which. */
export type VcpuExit =
  | MmioExit
  | IoExit
  | MemoryFaultExit
  | PaprHcallExit
  /** The guest halted (x86_64 without an interrupt controller in the kernel). */
  | { readonly reason: 'HLT' }
  /** The guest shut down, as by a triple fault. */
  | { readonly reason: 'SHUTDOWN' }
  /** The run was interrupted: by kick(), a timeout, or a signal. */
  | { readonly reason: 'INTR' }
  /** The dirty ring is full, and nobody collects dirty pages. */
  | { readonly reason: 'DIRTY_RING_FULL' }
  | { readonly reason: 'INTERNAL_ERROR'; readonly suberror: number }
  | { readonly reason: 'FAIL_ENTRY'; readonly hardwareReason: U64 }
  | { readonly reason: 'S390_SIEIC'; readonly icptcode: number; readonly ipa: number; readonly ipb: number }
  /** Any other, by its number and the name we know for it. */
  | { readonly reason: 'OTHER'; readonly exitReason: number; readonly name: string };

function checkBigInt(value: bigint, name: string): void {
  if (typeof value !== 'bigint') throw invalidArgType(name, 'a bigint', value);
}

/** Bytes of the longest access to MMIO. */
const MOST_MMIO = 8;

/** The kvm_run area that a vCPU shares with the kernel. */
export class KvmRun {
  readonly #view: DataView;
  readonly bytes: Uint8Array;
  readonly #little: boolean;
  /** The data of an MMIO access by its size: an array made at each exit takes longer than all else that is read of it. */
  readonly #mmioData: readonly Uint8Array[];

  constructor(buffer: ArrayBufferLike, arch: Arch) {
    this.#view = new DataView(buffer);
    this.bytes = new Uint8Array(buffer);
    this.#little = isLittleEndianHost(arch);
    const { data } = KVM_RUN.mmio;
    this.#mmioData = Array.from({ length: MOST_MMIO + 1 }, (_, size) => this.bytes.subarray(data, data + size));
  }

  /** No property of its own: Node's assertions print those, and Node 20 cannot print a view that is detached. */
  get view(): DataView {
    return this.#view;
  }

  /** Makes the next KVM_RUN come back at once with EINTR, its pending MMIO or port access completed. */
  get immediateExit(): boolean {
    return this.bytes[this.#checkOffset(KVM_RUN.immediate_exit, 1)] !== 0;
  }

  set immediateExit(on: boolean) {
    this.bytes[this.#checkOffset(KVM_RUN.immediate_exit, 1)] = checkBoolean(on, 'immediateExit') ? 1 : 0;
  }

  [inspect.custom](): string {
    if (this.bytes.length === 0) return 'KvmRun (closed)';
    return `KvmRun of ${this.bytes.length} bytes, last exit ${inspect(this.exit(), { compact: true, breakLength: Number.POSITIVE_INFINITY })}`;
  }

  get exitReason(): number {
    return this.u32(KVM_RUN.exit_reason);
  }

  set exitReason(reason: number) {
    this.#view.setUint32(this.#checkOffset(KVM_RUN.exit_reason, 4), checkU32(reason, 'exitReason'), this.#little);
  }

  u16(offset: number): number {
    return this.#view.getUint16(this.#checkOffset(offset, 2), this.#little);
  }

  u32(offset: number): number {
    return this.#view.getUint32(this.#checkOffset(offset, 4), this.#little);
  }

  u64(offset: number): bigint {
    return this.#view.getBigUint64(this.#checkOffset(offset, 8), this.#little);
  }

  /** A u64 as a number where that is exact, without a bigint on the way. */
  address(offset: number): U64 {
    this.#checkOffset(offset, 8);
    return this.#address(offset);
  }

  #address(offset: number): U64 {
    const high = this.#view.getUint32(this.#little ? offset + 4 : offset, this.#little);
    const low = this.#view.getUint32(this.#little ? offset : offset + 4, this.#little);
    return high < 0x20_0000 ? high * 2 ** 32 + low : this.u64(offset);
  }

  /** What the exit was, the data of accesses being the area itself. */
  exit(): VcpuExit {
    const { exitReason } = this;
    switch (exitReason) {
      case EXIT.MMIO:
        return this.mmio();
      case EXIT.IO:
        return this.io();
      case EXIT.HLT:
        return { reason: 'HLT' };
      case EXIT.SHUTDOWN:
        return { reason: 'SHUTDOWN' };
      case EXIT.INTR:
        return { reason: 'INTR' };
      case EXIT.DIRTY_RING_FULL:
        return { reason: 'DIRTY_RING_FULL' };
      case EXIT.MEMORY_FAULT:
        return this.#memoryFault();
      case EXIT.PAPR_HCALL:
        return this.#hypercall();
      case EXIT.INTERNAL_ERROR:
        return { reason: 'INTERNAL_ERROR', suberror: this.u32(KVM_RUN.internal.suberror) };
      case EXIT.FAIL_ENTRY:
        return { reason: 'FAIL_ENTRY', hardwareReason: this.address(KVM_RUN.fail_entry.reason) };
      case EXIT.S390_SIEIC: {
        const { icptcode, ipa, ipb } = KVM_RUN_S390X.s390_sieic;
        return { reason: 'S390_SIEIC', icptcode: this.bytes[icptcode]!, ipa: this.u16(ipa), ipb: this.u32(ipb) };
      }
      default:
        return { reason: 'OTHER', exitReason, name: exitName(exitReason) };
    }
  }

  // The area is memory that other threads may have as well: each field is read once, and none takes an access out of its place.

  mmio(): MmioExit {
    const { mmio } = KVM_RUN;
    // The last of its fields: the others are there then.
    this.#checkOffset(mmio.is_write, 1);
    const size = Math.min(MOST_MMIO, this.#view.getUint32(mmio.len, this.#little));
    return {
      reason: 'MMIO',
      gpa: this.#address(mmio.phys_addr),
      size,
      isWrite: this.bytes[mmio.is_write] !== 0,
      data: this.#mmioData[size]!,
    };
  }

  io(): IoExit {
    const { io } = KVM_RUN;
    const size = this.bytes[io.size]!;
    const at = Math.min(this.bytes.length, Number(this.address(io.data_offset)));
    const count = size === 0 ? 0 : Math.min(this.u32(io.count), Math.floor((this.bytes.length - at) / size));
    return {
      reason: 'IO',
      direction: this.bytes[io.direction] === IO_DIRECTION.OUT ? 'out' : 'in',
      port: this.u16(io.port),
      size,
      count,
      data: this.bytes.subarray(at, at + size * count),
    };
  }

  /** The area is empty once the vCPU is closed. */
  #checkOffset(offset: number, size: number): number {
    const { length } = this.bytes;
    if (length === 0) throw new KvmError(ERRNO.EBADF, { syscall: 'kvm_run', explanation: isClosed('the vCPU') });
    return checkInteger(offset, 'offset', 0, length - size);
  }

  #setDoubleword(offset: number, value: bigint): void {
    this.#view.setBigUint64(this.#checkOffset(offset, 8), BigInt.asUintN(64, value), this.#little);
  }

  #memoryFault(): MemoryFaultExit {
    const { memory_fault } = KVM_RUN;
    return {
      reason: 'MEMORY_FAULT',
      gpa: this.address(memory_fault.gpa),
      size: this.address(memory_fault.size),
      flags: Number(this.address(memory_fault.flags)),
    };
  }

  #hypercall(): PaprHcallExit {
    const { papr_hcall } = KVM_RUN;
    return {
      reason: 'PAPR_HCALL',
      nr: Number(this.address(papr_hcall.nr)),
      args: Array.from({ length: PAPR_HCALL_ARGS }, (_, index) => this.u64(papr_hcall.args + 8 * index)),
      setReturn: (code, ...values) => {
        checkBigInt(code, 'code');
        for (const [index, value] of values.entries()) checkBigInt(value, `values[${index}]`);
        this.#setDoubleword(papr_hcall.ret, code);
        for (const [index, value] of values.slice(0, PAPR_HCALL_ARGS).entries()) {
          this.#setDoubleword(papr_hcall.args + 8 * index, value);
        }
      },
    };
  }
}
