import { inspect } from 'node:util';
import { VcpuAarch64 } from '../arch/aarch64/handles/vcpu.ts';
import { VcpuPpc64 } from '../arch/ppc64/handles/vcpu.ts';
import { VcpuRiscv64 } from '../arch/riscv64/handles/vcpu.ts';
import { VcpuS390x } from '../arch/s390x/handles/vcpu.ts';
import type { VcpuMemOp } from '../arch/s390x/handles/vcpu-mem-op.ts';
import type { VmS390x } from '../arch/s390x/handles/vm.ts';
import { VcpuX86_64 } from '../arch/x86_64/handles/vcpu.ts';
import {
  checkBytes,
  checkInteger,
  checkObject,
  checkU32,
  checkU64,
  checkU64s,
  isBytes,
  newBytes,
} from '../base/arguments.ts';
import { hex, outOfRange } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';
import { viewsOutlive } from '../calls/dropped.ts';
import type { Callee } from '../calls/failure.ts';
import { Handle } from '../calls/handle.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { DirtyRing } from '../memory/dirty-ring.ts';
import type { Memslots } from '../memory/memslots.ts';
import { AddressSpace } from '../sharing/address-space.ts';
import type { AttachOptions } from '../sharing/table/attached-space.ts';
import { isLittleEndianHost } from '../uapi/arch.ts';
import { ERRNO } from '../uapi/errno.ts';
import { DIRTY_LOG_PAGE_OFFSET, exitName, MAP, PROT } from '../uapi/flags.ts';
import { archCalls, assertArch } from './arch-calls.ts';
import { type AttachedVm, attachVcpu, type VcpuToken } from './attached-vm.ts';
import { type Capability, capNumber, ENABLE_CAP_ARGS } from './capabilities.ts';
import { KvmRun, type VcpuExit } from './kvm-run.ts';
import { ParkedVcpu } from './parked-vcpu.ts';
import { type RunHost, RunLoop, type RunOptions, type RunSyncOptions } from './run-loop.ts';
import type { VmIo } from './vm-io.ts';

/** A VM as its vCPUs use it. */
export interface VcpuHost extends Callee, RunHost {
  /** @throws KvmError ENOTTY on other architectures */
  readonly s390x: VmS390x;
  vcpuCloses(): void;
  /** @param parked what is kept of it; undefined where its descriptor was closed */
  vcpuClosed(vcpu: Vcpu<VcpuHost>, parked: ParkedVcpu | undefined): void;
}

/** A VM as its vCPUs use and show it. */
export interface VcpuVm extends VcpuHost {
  readonly memory: AddressSpace;
  readonly memslots: Memslots;
  readonly io: VmIo;
}

/** A view of the addon's keeps its vCPU alive, so that collecting the handle never detaches `kvmRun`, or an exit's data, that somebody still has. */
const vcpuOfView = new WeakMap<ArrayBufferLike, object>();

/** Says to those who have a vCPU's token that it has gone. */
const leave = (there: Int32Array): void => void Atomics.store(there, 0, 0);

const dropped = new FinalizationRegistry<Int32Array>(leave);

/**
 * A vCPU. {@link run} enters the guest off the main thread, {@link runSync} on the calling one; both answer MMIO and
 * port accesses from the handlers of `vm.memory` and `vm.io.ports`, and come back with the first exit that has none. What
 * only one architecture has, registers by name among it, is behind its name: {@link x86_64}, {@link s390x}, {@link ppc64}, {@link aarch64}, {@link riscv64}.
 */
export class Vcpu<VM extends VcpuHost = VcpuVm> extends Handle {
  override readonly noun: string;
  readonly vm: VM;
  readonly id: number;
  /** The kvm_run area, shared with the kernel. */
  readonly kvmRun: KvmRun;
  /** @internal The dirty ring, where the VM has one: whoever empties it must mark what was in it. */
  readonly dirtyRing: DirtyRing | undefined;
  readonly #loop: RunLoop;
  /** For those who have its token. */
  #there: Int32Array<SharedArrayBuffer> | undefined;
  #aarch64: VcpuAarch64 | undefined;
  #ppc64: VcpuPpc64 | undefined;
  #riscv64: VcpuRiscv64 | undefined;
  #s390x: VcpuS390x | undefined;
  #x86_64: VcpuX86_64 | undefined;

  /** @param ringNext the entry of the dirty ring that is filled next */
  constructor(vm: VM, id: number, fd: number, runSize: number, ringBytes: number, ringNext: number) {
    checkU32(id, 'id');
    super(checkObject(vm, 'vm').calls, checkInteger(fd, 'fd', 0, 0x7fff_ffff));
    this.vm = vm;
    this.id = id;
    this.noun = `vCPU ${id}`;
    this.#loop = new RunLoop(this);
    try {
      this.kvmRun = new KvmRun(this.mapPart(0, runSize), this.calls.arch);
      if (ringBytes !== 0) {
        const offset = DIRTY_LOG_PAGE_OFFSET * this.calls.pageSize;
        this.dirtyRing = new DirtyRing(this.mapPart(offset, ringBytes), this.calls.arch, ringNext);
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /**
   * Takes over a vCPU of another thread of this process, with MMIO and port handlers in this one (`vcpu.vm.memory.addMmio`,
   * `vcpu.vm.io.ports.add`) and the guest's memory as a binding (`vcpu.vm.memory`). Until it is closed, or this thread ends, all that
   * is done with the vCPU in its own thread is EBUSY, except `kick` and `close`, which get it out of the guest. When its own
   * thread closes it, runs here end with INTR or EBADF.
   * @throws KvmError ESTALE when it, or the memory's table, is not there any more; EBUSY while it runs or another thread has it; ENOSYS
   *   without the addon; as {@link AddressSpace.attach}
   * @example
   * const vcpu = await Vcpu.attach(calls, workerData);
   * vcpu.vm.memory.addMmio(0xd000_0000, 0x1000, { write: (offset, value) => uart.write(offset, value) });
   * const exit = vcpu.runSync();
   */
  static async attach(calls: KvmCalls, token: VcpuToken, options: AttachOptions = {}): Promise<Vcpu<AttachedVm>> {
    const { vm, id, fd, runSize } = await attachVcpu(calls, token, options);
    return new Vcpu(vm, id, fd, runSize, 0, 0);
  }

  /** For {@link attach} in another thread. @throws KvmError EBADF when the VM's memory is not shared (`vm.memory.share()`) */
  get token(): VcpuToken {
    const { memory } = this.vm;
    if (!(memory instanceof AddressSpace)) throw this.failure('duplicate', -ERRNO.EBUSY);
    this.check('duplicate', this.fd < 0 ? -ERRNO.EBADF : 0);
    const { id, fd } = this;
    if (this.#there === undefined) {
      this.#there = new Int32Array(new SharedArrayBuffer(4)).fill(1);
      dropped.register(this, this.#there);
    }
    return {
      type: 'kvm-bridge.Vcpu',
      pid: process.pid,
      fd,
      id,
      runSize: this.kvmRun.bytes.length,
      space: memory.token,
      there: this.#there.buffer,
    };
  }

  /** @internal Maps a part of what the vCPU shares with user space, for as long as it is open. */
  mapPart(offset: number, size: number): ArrayBufferLike {
    const hva = this.calls.mmap(size, PROT.READ | PROT.WRITE, MAP.SHARED, this.fd, offset, 0, 0);
    this.unmapLater(this.check('mmap', hva, { size }), size);
    const buffer = this.calls.view(hva, size);
    if (typeof buffer === 'number') throw this.failure('view', buffer, { size });
    if (!viewsOutlive(this.calls)) vcpuOfView.set(buffer, this);
    return buffer;
  }

  /** Whether a run is under way, on the vCPU's thread or on this one: handlers see true. */
  get running(): boolean {
    return this.#loop.running;
  }

  /**
   * Runs the guest off the main thread until an exit that no handler takes.
   * @throws the signal's reason when aborted; KvmError EBUSY while another run is under way, EFAULT, EBADF …
   * @example
   * const exit = await vcpu.run({ signal: AbortSignal.timeout(1000) });
   * if (exit.reason === 'MMIO') console.log(exit.gpa, exit.data);
   */
  run(options: RunOptions = {}): Promise<VcpuExit> {
    return this.#loop.run(options);
  }

  /**
   * Runs the guest on this thread (in a worker: the main thread's event loop stands still meanwhile) until an exit
   * that no handler takes. @throws KvmError EBUSY while another run is under way, also from its handlers; EFAULT, EBADF …
   */
  runSync(options: RunSyncOptions = {}): VcpuExit {
    return this.#loop.runSync(options);
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
    this.#loop.kick();
  }

  /**
   * Pauses the vCPU, so that registers and memory are all there is to save: a run under way comes back with INTR, the exit that
   * the guest is in the middle of is finished (an answered load is in its register, the instruction is done: KVM_RUN with
   * `immediate_exit`), and coalesced stores are delivered. Handlers take what exits come of it. Whoever runs it on ends the pause.
   * @returns INTR; or, where the run under way came to an exit at the same time, or one comes of the rest of an instruction, that exit:
   *   answer it, and pause again
   * @throws KvmError EBUSY within a handler; EBADF
   * @example
   * if ((await vcpu.pause()).reason !== 'INTR') throw new Error('an exit has to be answered first');
   * save(vcpu.x86_64.getRegs());
   */
  pause(): Promise<VcpuExit> {
    return this.#loop.pause();
  }

  /** What only a vCPU of aarch64 has: its initialisation, registers by name. @throws KvmError ENOTTY on other architectures */
  get aarch64(): VcpuAarch64 {
    assertArch(this.calls, 'aarch64');
    this.#aarch64 ??= new VcpuAarch64(this);
    return this.#aarch64;
  }

  /** What only a vCPU of riscv64 has: registers by name. @throws KvmError ENOTTY on other architectures */
  get riscv64(): VcpuRiscv64 {
    assertArch(this.calls, 'riscv64');
    this.#riscv64 ??= new VcpuRiscv64(this);
    return this.#riscv64;
  }

  /** What only a vCPU of x86_64 has: registers by name. @throws KvmError ENOTTY on other architectures */
  get x86_64(): VcpuX86_64 {
    archCalls(this.calls, 'x86_64');
    this.#x86_64 ??= new VcpuX86_64(this);
    return this.#x86_64;
  }

  /** What only a vCPU of s390x has. @throws KvmError ENOTTY on other architectures */
  get s390x(): VcpuS390x {
    this.#s390x ??= new VcpuS390x(this, archCalls(this.calls, 's390x'), this.vm.s390x);
    return this.#s390x;
  }

  /** What only a vCPU of ppc64 has. @throws KvmError ENOTTY on other architectures */
  get ppc64(): VcpuPpc64 {
    archCalls(this.calls, 'ppc64');
    this.#ppc64 ??= new VcpuPpc64(this);
    return this.#ppc64;
  }

  /** The guest's logical addresses through the kernel (s390x). @throws KvmError ENOTTY on other architectures */
  get memOp(): VcpuMemOp {
    return this.s390x.memOp;
  }

  /** KVM_GET_REGS as the structure itself, of `size` bytes (uapi REGS_SIZE). */
  getRegsBytes(size: number): Uint8Array {
    const bytes = newBytes(size, 'size');
    this.check('getRegs', this.calls.getRegs(this.fd, bytes));
    return bytes;
  }

  setRegsBytes(bytes: Uint8Array): void {
    this.check('setRegs', this.calls.setRegs(this.fd, checkBytes(bytes, 'bytes')));
  }

  getSregsBytes(size: number): Uint8Array {
    const bytes = newBytes(size, 'size');
    this.check('getSregs', this.calls.getSregs(this.fd, bytes));
    return bytes;
  }

  setSregsBytes(bytes: Uint8Array): void {
    this.check('setSregs', this.calls.setSregs(this.fd, checkBytes(bytes, 'bytes')));
  }

  /**
   * KVM_GET_ONE_REG of a register of up to 8 bytes.
   * @throws RangeError for a larger one; KvmError ENOENT, EINVAL for ids that are not there; ENOEXEC on aarch64 before KVM_ARM_VCPU_INIT
   */
  getOneReg(id: U64): bigint {
    checkIntegerReg(id);
    return fromBytes(this.getOneRegBytes(id), isLittleEndianHost(this.calls.arch));
  }

  /** KVM_GET_ONE_REG of any register, in the host's byte order. */
  getOneRegBytes(id: U64): Uint8Array {
    const bytes = new Uint8Array(oneRegSize(id));
    this.check('getOneReg', this.calls.getOneReg(this.fd, id, bytes), { explanation: `register ${hex(id)}` });
    return bytes;
  }

  /** KVM_SET_ONE_REG: an integer for registers of up to 8 bytes, or the bytes in the host's order. */
  setOneReg(id: U64, value: U64 | Uint8Array): void {
    const bytes = isBytes(value) ? value : toBytes(value, checkIntegerReg(id), isLittleEndianHost(this.calls.arch));
    this.check('setOneReg', this.calls.setOneReg(this.fd, id, bytes), { explanation: `register ${hex(id)}` });
  }

  /** KVM_GET_MP_STATE. */
  getMpState(): number {
    return this.check('getMpState', this.calls.getMpState(this.fd));
  }

  setMpState(state: number): void {
    this.check('setMpState', this.calls.setMpState(this.fd, checkU32(state, 'state')));
  }

  /**
   * KVM_PRE_FAULT_MEMORY: what is left of the range, size 0 when all is there.
   * @throws KvmError ENOENT without memory there, EOPNOTSUPP without nested paging, EINVAL
   */
  preFaultMemory(gpa: U64, size: U64): { gpa: U64; size: U64 } {
    const range = BigUint64Array.of(BigInt(checkU64(gpa, 'gpa')), BigInt(checkU64(size, 'size')));
    this.check('preFaultMemory', this.calls.preFaultMemory(this.fd, range, 0), { gpa, size });
    return { gpa: range[0]!, size: range[1]! };
  }

  /** KVM_ENABLE_CAP on the vCPU. @throws KvmError EINVAL */
  enableCap(cap: Capability, args: readonly U64[] = [], flags = 0): void {
    const words = checkU64s(args, 'args', ENABLE_CAP_ARGS);
    const result = this.calls.enableCap(this.fd, capNumber(cap), checkU32(flags, 'flags'), words);
    this.check('enableCap', result, { explanation: `capability ${cap}` });
  }

  /** An ioctl that isn't wrapped, over a number or a structure; its result. @throws KvmError EPERM for KVM_SET_SIGNAL_MASK */
  ioctl(request: number, arg: U64 | Uint8Array = 0): number {
    return this.checkIoctl(request, arg);
  }

  /**
   * Takes the vCPU out of use; a run under way is interrupted and rejects with EBADF. KVM keeps the vCPU until the VM goes, with all
   * its state: `vm.createVcpu` of its id hands it out anew.
   */
  override close(): void {
    if (this.closed) return;
    if (this.#there !== undefined) leave(this.#there);
    const isOut = this.#loop.stop();
    try {
      this.vm.vcpuCloses();
    } finally {
      // A handler of a last coalesced store may have closed it.
      if (!this.closed) {
        if (isOut && !this.vm.closed) this.#park();
        else super.close();
      }
    }
  }

  /** Nobody is in the guest any more, and what it left in the rings is taken out. */
  #park(): void {
    const loop = this.#loop;
    const { id, dirtyRing } = this;
    const state = { id, ringNext: dirtyRing?.next ?? 0, isBusy: () => loop.running };
    this.vm.vcpuClosed(this, new ParkedVcpu(this.calls, this.giveUp(), state));
  }

  /** Nobody is in the guest any more: what it left in the rings is taken out. */
  protected override fdClosed(): void {
    try {
      this.vm.vcpuCloses();
    } finally {
      this.vm.vcpuClosed(this, undefined);
    }
  }

  override [inspect.custom](): string {
    if (this.closed) return `Vcpu ${this.id} (closed)`;
    const state = this.running ? 'running' : `last exit ${exitName(this.kvmRun.exitReason)}`;
    return `Vcpu ${this.id} fd ${this.fd}, ${state}`;
  }
}

/** Bytes of a register, which its id encodes. */
function oneRegSize(id: U64): number {
  return 1 << Number((BigInt(checkU64(id, 'id')) >> 52n) & 15n);
}

/** The same, of a register that is an integer. */
function checkIntegerReg(id: U64): number {
  const size = oneRegSize(id);
  if (size > 8)
    throw outOfRange('id', `that of a register of up to 8 bytes (this has ${size}: use its bytes)`, hex(id));
  return size;
}

/** The integer of 1, 2, 4 or 8 bytes in the host's order. */
function fromBytes(bytes: Uint8Array, isLittle: boolean): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  switch (bytes.length) {
    case 1:
      return BigInt(view.getUint8(0));
    case 2:
      return BigInt(view.getUint16(0, isLittle));
    case 4:
      return BigInt(view.getUint32(0, isLittle));
    default:
      return view.getBigUint64(0, isLittle);
  }
}

function toBytes(value: U64, size: number, isLittle: boolean): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(checkU64(value, 'value')), isLittle);
  return isLittle ? bytes.subarray(0, size) : bytes.subarray(8 - size);
}
