import { inspect } from 'node:util';
import { VcpuS390x } from '../arch/s390x/handles/vcpu.ts';
import type { VcpuMemOp } from '../arch/s390x/handles/vcpu-mem-op.ts';
import type { VmS390x } from '../arch/s390x/handles/vm.ts';
import type { DatFacilities } from '../arch/s390x/model/control-registers.ts';
import type { CpuState } from '../arch/s390x/model/cpu-state.ts';
import type { AbsoluteMemory } from '../arch/s390x/model/memory.ts';
import {
  decodeRegs,
  decodeSregs,
  encodeRegs,
  encodeSregs,
  X86_REGS_BYTES,
  X86_SREGS_BYTES,
  type X86RegName,
  type X86Regs,
  type X86Sregs,
} from '../arch/x86_64/model/registers.ts';
import { checkU32, checkU64 } from '../base/arguments.ts';
import { hex, KvmError } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';
import { Handle } from '../calls/handle.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import { DirtyRing } from '../memory/dirty-ring.ts';
import type { Memslots } from '../memory/memslots.ts';
import type { MmioBus } from '../memory/mmio-bus.ts';

import { CAP } from '../uapi/capabilities.ts';
import { ERRNO } from '../uapi/errno.ts';
import { DIRTY_LOG_PAGE_OFFSET, EXIT, exitName, MAP, PROT } from '../uapi/flags.ts';
import { IO_DIRECTION, KVM_RUN } from '../uapi/structs.ts';
import { KvmRun, type VcpuExit } from './kvm-run.ts';

/** A VM as its vCPUs use and show it. */
export interface VcpuVm {
  readonly calls: KvmCalls;
  readonly fd: number;
  readonly closed: boolean;
  readonly littleEndianHost: boolean;
  readonly memory: AddressSpace;
  readonly memslots: Memslots;
  readonly ports: MmioBus;
  readonly s390x: VmS390x;
  absoluteMemory(): AbsoluteMemory;
  drainCoalesced(): void;
  harvestDirtyRings(): boolean;
  vcpuClosed(vcpu: Vcpu): void;
}

export interface RunOptions {
  /** Aborting gets the vCPU out of the guest; the promise then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

export interface RunSyncOptions {
  /** After so long the run comes back with INTR; 0 (the default) is never. */
  readonly timeoutMs?: number;
}

const RUN = 'ioctl(KVM_RUN)';

/**
 * A vCPU. {@link run} enters the guest off the main thread, {@link runSync} on the calling one; both answer MMIO and
 * port accesses from the handlers of `vm.memory` and `vm.ports`, and come back with the first exit that has none.
 */
export class Vcpu extends Handle {
  protected override readonly noun = 'the vCPU';
  readonly vm: VcpuVm;
  readonly id: number;
  /** The kvm_run area, shared with the kernel. */
  readonly kvmRun: KvmRun;
  /** The dirty ring, where the VM has one. */
  readonly dirtyRing: DirtyRing | undefined;
  #s390x: VcpuS390x | undefined;
  #running = false;
  #kicked = false;
  /** A run was aborted while none was under way: the next EINTR is of that, and nobody's. */
  #staleKick = false;

  constructor(vm: VcpuVm, id: number, fd: number, runSize: number, ringBytes: number) {
    super(vm.calls, fd);
    this.vm = vm;
    this.id = id;
    try {
      this.kvmRun = new KvmRun(this.mapPart(0, runSize), this.calls.arch);
      if (ringBytes !== 0) {
        const offset = DIRTY_LOG_PAGE_OFFSET * this.calls.pageSize;
        this.dirtyRing = new DirtyRing(this.mapPart(offset, ringBytes), this.calls.arch);
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** @internal Maps a part of what the vCPU shares with user space, for as long as it is open. */
  mapPart(offset: number, size: number): ArrayBufferLike {
    const hva = this.check(this.calls.mmap(size, PROT.READ | PROT.WRITE, MAP.SHARED, this.fd, offset, 0, 0), 'mmap', {
      size,
    });
    this.unmapLater(hva, size);
    const buffer = this.calls.view(hva, size);
    if (typeof buffer === 'number') throw this.failure(buffer, 'view', { size });
    return buffer;
  }

  /** Whether a run is under way on the vCPU's thread. */
  get running(): boolean {
    return this.#running;
  }

  /**
   * Runs the guest off the main thread until an exit that no handler takes.
   * @throws the signal's reason when aborted; KvmError EBUSY while another run is under way, EFAULT, EBADF …
   * @example
   * const exit = await vcpu.run({ signal: AbortSignal.timeout(1000) });
   * if (exit.reason === 'MMIO') console.log(exit.gpa, exit.data);
   */
  async run({ signal }: RunOptions = {}): Promise<VcpuExit> {
    signal?.throwIfAborted();
    if (this.#running) throw this.failure(-ERRNO.EBUSY, RUN, { explanation: `vCPU ${this.id} is running already` });
    const abort = (): void => {
      this.#staleKick = true;
      this.calls.kick(this.fd);
    };
    signal?.addEventListener('abort', abort, { once: true });
    this.#running = true;
    try {
      for (;;) {
        const result = await this.calls.runAsync(this.fd);
        if (this.closed) throw this.failure(-ERRNO.EBADF, RUN);
        if (result === -ERRNO.EINTR && this.#staleKick && !this.#kicked) {
          this.#staleKick = false;
          signal?.throwIfAborted();
          continue;
        }
        const exit = this.#exitOf(result);
        if (exit !== undefined) return exit;
      }
    } finally {
      this.#running = false;
      signal?.removeEventListener('abort', abort);
    }
  }

  /**
   * Runs the guest on this thread (in a worker: the main thread's event loop stands still meanwhile) until an exit
   * that no handler takes. @throws KvmError EBUSY, EFAULT, EBADF …
   */
  runSync({ timeoutMs = 0 }: RunSyncOptions = {}): VcpuExit {
    checkU32(timeoutMs, 'timeoutMs');
    const end = performance.now() + timeoutMs;
    for (let left = timeoutMs; ; left = Math.max(1, Math.ceil(end - performance.now()))) {
      const result = this.calls.run(this.fd, timeoutMs === 0 ? 0 : left);
      if (result === -ERRNO.EINTR && this.#staleKick && !this.#kicked) {
        this.#staleKick = false;
        continue;
      }
      const exit = this.#exitOf(result);
      if (exit !== undefined) return exit;
      if (timeoutMs !== 0 && performance.now() >= end) return { reason: 'INTR' };
    }
  }

  /**
   * Runs again and again, yielding each exit that no handler takes, until the guest shuts down.
   * @example for await (const exit of vcpu.exits()) if (exit.reason === 'HLT') break;
   */
  async *exits(options: RunOptions = {}): AsyncGenerator<VcpuExit, void, undefined> {
    for (;;) {
      const exit = await this.run(options);
      yield exit;
      if (exit.reason === 'SHUTDOWN') return;
    }
  }

  /** Gets the vCPU out of the guest: the run under way, or the next one, comes back with INTR. @throws KvmError EBADF */
  kick(): void {
    this.#kicked = true;
    this.check(this.calls.kick(this.fd), 'kick');
  }

  /** KVM_GET_REGS of an x86_64 vCPU. @throws KvmError ENOTTY elsewhere: see {@link getRegsBytes} */
  getRegs(): X86Regs {
    this.#requireX86('GET_REGS');
    return decodeRegs(this.getRegsBytes(X86_REGS_BYTES));
  }

  /** KVM_SET_REGS; registers that are not named keep their values. @example vcpu.setRegs({ rip: 0x1000, rflags: 2 }) */
  setRegs(regs: Partial<Record<X86RegName, U64>>): void {
    this.#requireX86('SET_REGS');
    const bytes = this.getRegsBytes(X86_REGS_BYTES);
    encodeRegs(bytes, regs);
    this.setRegsBytes(bytes);
  }

  /** KVM_GET_SREGS of an x86_64 vCPU. @throws KvmError ENOTTY elsewhere: see {@link getSregsBytes} */
  getSregs(): X86Sregs {
    this.#requireX86('GET_SREGS');
    return decodeSregs(this.getSregsBytes(X86_SREGS_BYTES));
  }

  /** KVM_SET_SREGS; registers that are not named keep their values. */
  setSregs(sregs: Partial<X86Sregs>): void {
    this.#requireX86('SET_SREGS');
    const bytes = this.getSregsBytes(X86_SREGS_BYTES);
    encodeSregs(bytes, sregs);
    this.setSregsBytes(bytes);
  }

  /** KVM_GET_REGS as the structure itself, of `size` bytes (uapi REGS_SIZE). */
  getRegsBytes(size: number): Uint8Array {
    const bytes = new Uint8Array(size);
    this.check(this.calls.getRegs(this.fd, bytes), 'ioctl(KVM_GET_REGS)');
    return bytes;
  }

  setRegsBytes(bytes: Uint8Array): void {
    this.check(this.calls.setRegs(this.fd, bytes), 'ioctl(KVM_SET_REGS)');
  }

  getSregsBytes(size: number): Uint8Array {
    const bytes = new Uint8Array(size);
    this.check(this.calls.getSregs(this.fd, bytes), 'ioctl(KVM_GET_SREGS)');
    return bytes;
  }

  setSregsBytes(bytes: Uint8Array): void {
    this.check(this.calls.setSregs(this.fd, bytes), 'ioctl(KVM_SET_SREGS)');
  }

  /** KVM_GET_ONE_REG of a register of up to 8 bytes. @throws KvmError ENOENT, EINVAL for ids that are not there */
  getOneReg(id: U64): bigint {
    const bytes = this.getOneRegBytes(id);
    const view = new DataView(bytes.buffer);
    const little = this.vm.littleEndianHost;
    switch (bytes.length) {
      case 1:
        return BigInt(view.getUint8(0));
      case 2:
        return BigInt(view.getUint16(0, little));
      case 4:
        return BigInt(view.getUint32(0, little));
      default:
        return view.getBigUint64(0, little);
    }
  }

  /** KVM_GET_ONE_REG of any register, in the host's byte order. */
  getOneRegBytes(id: U64): Uint8Array {
    const bytes = new Uint8Array(oneRegSize(id));
    this.check(this.calls.getOneReg(this.fd, id, bytes), 'ioctl(KVM_GET_ONE_REG)', {
      explanation: `register ${hex(id)}`,
    });
    return bytes;
  }

  /** KVM_SET_ONE_REG: an integer for registers of up to 8 bytes, or the bytes in the host's order. */
  setOneReg(id: U64, value: U64 | Uint8Array): void {
    const bytes = value instanceof Uint8Array ? value : this.#oneRegBytes(oneRegSize(id), value);
    this.check(this.calls.setOneReg(this.fd, id, bytes), 'ioctl(KVM_SET_ONE_REG)', {
      explanation: `register ${hex(id)}`,
    });
  }

  /** KVM_GET_MP_STATE. */
  getMpState(): number {
    return this.check(this.calls.getMpState(this.fd), 'ioctl(KVM_GET_MP_STATE)');
  }

  setMpState(state: number): void {
    this.check(this.calls.setMpState(this.fd, checkU32(state, 'state')), 'ioctl(KVM_SET_MP_STATE)');
  }

  /** The guest's logical addresses through the kernel (s390x). @throws KvmError ENOTTY on other architectures */
  get memOp(): VcpuMemOp {
    return this.#own.memOp;
  }

  /**
   * What decides about this vCPU's translations (s390x), for `translate` and `explainTranslation` of kvm-bridge/s390x:
   * its control registers, and PSW, prefix and access registers as kvm_run shows them since the last KVM_RUN.
   * @param facilities those that the guest's machine lacks; KVM doesn't tell
   */
  cpuState(facilities: Partial<DatFacilities> = {}): CpuState {
    return this.#own.cpuState(facilities);
  }

  /** KVM_S390_INITIAL_RESET (s390x): PSW, prefix and control registers too. @throws KvmError EBUSY while it runs */
  initialReset(): void {
    this.#own.reset('initial');
  }

  /** KVM_S390_NORMAL_RESET (s390x, 5.8 and later): pending interruptions go, and the vCPU stops. */
  normalReset(): void {
    this.#own.reset('normal');
  }

  /** KVM_S390_CLEAR_RESET (s390x, 5.8 and later): an initial reset, and all other registers. */
  clearReset(): void {
    this.#own.reset('clear');
  }

  /** KVM_S390_SET_INITIAL_PSW (s390x): the PSW from which the next KVM_RUN begins. @throws KvmError EBUSY unless stopped */
  setInitialPsw(mask: U64, address: U64): void {
    this.#own.setInitialPsw(mask, address);
  }

  get #own(): VcpuS390x {
    const vm = this.vm.s390x;
    this.#s390x ??= new VcpuS390x(this, this.calls.s390x!, vm);
    return this.#s390x;
  }

  /**
   * KVM_PRE_FAULT_MEMORY: what is left of the range, size 0 when all is there.
   * @throws KvmError ENOENT without memory there, EOPNOTSUPP without nested paging, EINVAL
   */
  preFaultMemory(gpa: U64, size: U64): { gpa: U64; size: U64 } {
    const range = BigUint64Array.of(BigInt(checkU64(gpa, 'gpa')), BigInt(checkU64(size, 'size')));
    this.check(this.calls.preFaultMemory(this.fd, range, 0), 'ioctl(KVM_PRE_FAULT_MEMORY)', { gpa, size });
    return { gpa: range[0]!, size: range[1]! };
  }

  /** KVM_ENABLE_CAP on the vCPU. @throws KvmError EINVAL */
  enableCap(cap: number, args: readonly U64[] = [], flags = 0): void {
    this.check(this.calls.enableCap(this.fd, cap, flags, args), 'ioctl(KVM_ENABLE_CAP)', {
      explanation: `capability ${cap}`,
    });
  }

  /** Makes it a vCPU of a PAPR guest (ppc64), the only kind that Book3S HV runs. @throws KvmError EINVAL elsewhere */
  enablePapr(): void {
    this.enableCap(CAP.PPC_PAPR);
  }

  /** An ioctl that isn't wrapped, over a number or a structure; its result. @throws KvmError */
  ioctl(request: number, arg: U64 | Uint8Array = 0): number {
    return this.check(this.calls.ioctlUnchecked(this.fd, request, arg), `ioctl(${hex(request)})`);
  }

  /** Closes the vCPU; a run under way is interrupted and rejects with EBADF. */
  override close(): void {
    if (this.closed) return;
    if (this.#running) this.calls.kick(this.fd);
    super.close();
    this.vm.vcpuClosed(this);
  }

  [inspect.custom](): string {
    if (this.closed) return `Vcpu ${this.id} (closed)`;
    const state = this.#running ? 'running' : `last exit ${exitName(this.kvmRun.exitReason)}`;
    return `Vcpu ${this.id} fd ${this.fd}, ${state}`;
  }

  /** What a KVM_RUN led to, or undefined when it was handled and the guest may run on. */
  #exitOf(result: number): VcpuExit | undefined {
    if (result === -ERRNO.EINTR) {
      this.#kicked = false;
      return { reason: 'INTR' };
    }
    this.vm.drainCoalesced();
    if (result < 0) return this.#failedRun(result);
    switch (this.kvmRun.exitReason) {
      case EXIT.MMIO:
        return this.#answerMmio() ? undefined : this.kvmRun.exit();
      case EXIT.IO:
        return this.#answerIo() ? undefined : this.kvmRun.exit();
      case EXIT.DIRTY_RING_FULL:
        return this.vm.harvestDirtyRings() ? undefined : this.kvmRun.exit();
      default:
        return this.kvmRun.exit();
    }
  }

  #failedRun(errno: number): VcpuExit {
    if (errno === -ERRNO.EFAULT && !this.closed && this.kvmRun.exitReason === EXIT.MEMORY_FAULT) {
      const exit = this.kvmRun.exit();
      // The area keeps its last reason; another EFAULT need not be one of these.
      this.kvmRun.exitReason = EXIT.UNKNOWN;
      return exit;
    }
    const explanation =
      errno === -ERRNO.EFAULT
        ? 'the guest touched memory that its memslot promises and the host cannot give'
        : errno === -ERRNO.EINVAL && this.calls.arch === 'ppc64'
          ? 'Book3S HV runs only vCPUs with enablePapr(), and hash guests only with memory at 0'
          : undefined;
    throw this.failure(errno, RUN, { explanation });
  }

  #answerMmio(): boolean {
    const run = this.kvmRun;
    const { mmio } = KVM_RUN;
    const gpa = Number(run.address(mmio.phys_addr));
    const data = run.bytes.subarray(mmio.data, mmio.data + run.u32(mmio.len));
    const bus = this.vm.memory.mmio;
    return run.bytes[mmio.is_write] === 0 ? bus.read(gpa, data) : bus.write(gpa, data);
  }

  #answerIo(): boolean {
    const run = this.kvmRun;
    const { io } = KVM_RUN;
    const size = run.bytes[io.size]!;
    const count = run.u32(io.count);
    const port = run.u16(io.port);
    const at = Number(run.address(io.data_offset));
    const isOut = run.bytes[io.direction] === IO_DIRECTION.OUT;
    const { ports } = this.vm;
    for (let i = 0; i < count; i++) {
      const data = run.bytes.subarray(at + i * size, at + (i + 1) * size);
      if (!(isOut ? ports.write(port, data) : ports.read(port, data))) return false;
    }
    return true;
  }

  #requireX86(request: string): void {
    if (this.calls.arch === 'x86_64') return;
    throw new KvmError(ERRNO.ENOTTY, {
      syscall: `ioctl(KVM_${request})`,
      explanation: `the names are those of x86_64, and this is ${this.calls.arch}: use the bytes`,
    });
  }

  #oneRegBytes(size: number, value: U64): Uint8Array {
    checkU64(value, 'value');
    const bytes = new Uint8Array(8);
    const little = this.vm.littleEndianHost;
    new DataView(bytes.buffer).setBigUint64(0, BigInt(value), little);
    return little ? bytes.subarray(0, size) : bytes.subarray(8 - size);
  }
}

/** Bytes of a register, which its id encodes. */
function oneRegSize(id: U64): number {
  return 1 << Number((BigInt(checkU64(id, 'id')) >> 52n) & 15n);
}
