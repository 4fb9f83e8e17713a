import { checkInteger, checkMethods, isBytes } from '../base/arguments.ts';
import { outOfRange } from '../base/errors.ts';
import { counted } from '../base/text.ts';
import { livesInHeap } from '../calls/dropped.ts';
import type { Bytes, Hva, KvmCalls, Ppc64Calls, S390xCalls, U64, X86_64Calls } from '../calls/kvm-calls.ts';
import { GUEST_MEMFD_RULES } from '../rules/guest-memfd.ts';
import { refusal } from '../rules/rule.ts';
import type { Arch } from '../uapi/arch.ts';
import { ERRNO } from '../uapi/errno.ts';
import { API_VERSION, GUEST_MEMFD_FLAG, IOEVENTFD, IRQFD } from '../uapi/flags.ts';
import { type RequestName, requestName, requestSize } from '../uapi/requests.ts';
import type { Architecture } from './architecture.ts';
import { checkCode, type GuestCode, type GuestProgram } from './guest.ts';
import { EmulatedGuestMemfd } from './guest-memfd.ts';
import type { Machine } from './machine.ts';
import type { OpenFile } from './open-file.ts';
import { EmulatedProcess } from './process.ts';
import { rawIoctl } from './raw-ioctl.ts';
import { copyIn, copyOut } from './user-memory.ts';
import { withUserfaultfd } from './userfaultfd.ts';
import { EmulatedVcpu } from './vcpu.ts';
import { EmulatedVm, type GuestMemfdOfVm } from './vm.ts';

const DEFAULT_MAX_FDS = 1024 * 1024;

/** Linux's KVM over one architecture: every call, its checks and their order, apart from what the architecture does. */
export class KernelCore extends EmulatedProcess implements KvmCalls {
  readonly backend = 'emulated';
  readonly arch: Arch;
  readonly release: string;
  readonly x86_64?: X86_64Calls;
  readonly s390x?: S390xCalls;
  readonly ppc64?: Ppc64Calls;
  readonly uffd?: NonNullable<KvmCalls['uffd']>;
  readonly #architecture: Architecture;
  readonly #machine: Machine;

  /** @param maxFds descriptors that may be open at once (RLIMIT_NOFILE) */
  constructor(architecture: Architecture, maxFds = DEFAULT_MAX_FDS) {
    const { machine } = architecture;
    super(machine, maxFds);
    this.#architecture = architecture;
    this.#machine = machine;
    livesInHeap(this, (hva) => this.memory.leaveViews(hva));
    this.arch = machine.arch;
    this.release = machine.release.text;
    const groups = architecture.calls?.({
      memory: this.memory,
      vm: (fd) => archOf(this.#vm(fd)),
      vcpu: (fd) => archOf(this.#idleVcpu(fd)),
      open: (file) => this.files.open(file),
    });
    Object.assign(this, groups);
    const surroundings = { machine, memory: this.memory, file: (fd: number) => this.files.get(fd) };
    Object.assign(this, withUserfaultfd(this, { ...surroundings, open: (file) => this.files.open(file) }));
  }

  /**
   * Gives a vCPU its guest: what KVM_RUN executes from now on. `code` says where a real guest's instructions would be, so that
   * the run ends as the real one where nothing is there. Throws a RangeError when `vcpu` isn't a vCPU's fd.
   */
  loadGuest(vcpu: number, program: GuestProgram, code?: GuestCode): void {
    const found = this.#vcpu(checkInteger(vcpu, 'vcpu', 0, 0x7fff_ffff));
    if (typeof found === 'number') throw outOfRange('vcpu', 'the descriptor of an emulated vCPU', vcpu);
    const place = code === undefined ? undefined : checkCode(code);
    found.load(checkMethods(program, 'program', ['next', 'throw']), place);
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `EmulatedKernel of ${this.arch}, ${this.release}, pages of ${this.pageSize} bytes, ${counted(this.files.size, 'file')} open`;
  }

  // What a descriptor is

  /** −errno of a /dev/kvm request on this fd, or 0. */
  #kvm(fd: number): number {
    const file = this.files.get(fd);
    return file?.kind === 'kvm' ? 0 : unknownRequest(file, this.#machine);
  }

  #vm(fd: number): EmulatedVm | number {
    const file = this.files.get(fd);
    return file instanceof EmulatedVm ? file : unknownRequest(file, this.#machine);
  }

  #vcpu(fd: number): EmulatedVcpu | number {
    const file = this.files.get(fd);
    return file instanceof EmulatedVcpu ? file : unknownRequest(file, this.#machine);
  }

  /** A vCPU that isn't inside KVM_RUN: a call on one that is would block the only thread that can kick it. */
  #idleVcpu(fd: number): EmulatedVcpu | number {
    const vcpu = this.#vcpu(fd);
    return typeof vcpu !== 'number' && vcpu.running ? -ERRNO.EBUSY : vcpu;
  }

  // ioctl(2)

  ioctlUnchecked(fd: number, request: number, arg: U64 | Uint8Array): number {
    const file = this.files.get(fd);
    if (file === undefined) return -ERRNO.EBADF;
    const name = requestName(request, this.arch);
    if (name === undefined) return unknownRequest(file, this.#machine);
    // The addon needs it for itself.
    if (name === 'KVM_SET_SIGNAL_MASK' && file instanceof EmulatedVcpu)
      return file.running ? -ERRNO.EBUSY : -ERRNO.EPERM;
    return rawIoctl(this, fd, name, arg) ?? this.#archRequest(file, name, arg) ?? unknownRequest(file, this.#machine);
  }

  /** What only an architecture's VMs or vCPUs know. */
  #archRequest(file: OpenFile, name: RequestName, arg: U64 | Uint8Array): number | undefined {
    const isOurs = file instanceof EmulatedVm || file instanceof EmulatedVcpu;
    const answer = isOurs ? file.arch.requests?.[name] : undefined;
    if (answer === undefined) return undefined;
    return isBytes(arg) && arg.length >= requestSize(name) ? answer(arg) : -ERRNO.EFAULT;
  }

  // /dev/kvm

  openKvm(): number {
    return this.files.open({ kind: 'kvm' });
  }

  getApiVersion(kvm: number, arg: U64): number {
    return this.#kvm(kvm) || (BigInt(arg) === 0n ? API_VERSION : -ERRNO.EINVAL);
  }

  checkExtension(fd: number, cap: U64): number {
    const file = this.files.get(fd);
    if (file instanceof EmulatedVm) return file.checkExtension(Number(cap));
    return this.#kvm(fd) || (this.#machine.capabilities.get(Number(cap)) ?? 0);
  }

  createVm(kvm: number, type: U64): number {
    const refused = this.#kvm(kvm);
    if (refused !== 0) return refused;
    const { vmTypes, ignoresVmType } = this.#machine;
    const known = vmTypes.find((candidate) => ignoresVmType || candidate.type === BigInt(type));
    if (known === undefined) return -ERRNO.EINVAL;
    return this.files.open(new EmulatedVm(this.#machine, this.memory, known, (vm) => this.#architecture.createVm(vm)));
  }

  getVcpuMmapSize(kvm: number, arg: U64): number {
    return this.#kvm(kvm) || (BigInt(arg) === 0n ? this.#machine.vcpuMmapSize : -ERRNO.EINVAL);
  }

  // VM

  enableCap(fd: number, cap: number, flags: number, args: readonly U64[]): number {
    const file = this.files.get(fd);
    const words = [0, 1, 2, 3].map((i) => BigInt(args[i] ?? 0));
    if (file instanceof EmulatedVm) return file.enableCap(cap, flags, words);
    if (file instanceof EmulatedVcpu) {
      return file.running ? -ERRNO.EBUSY : (file.arch.enableCap?.(cap, flags, words) ?? -ERRNO.EINVAL);
    }
    return unknownRequest(file, this.#machine);
  }

  createVcpu(fd: number, id: U64): number {
    const vm = this.#vm(fd);
    if (typeof vm === 'number') return vm;
    const { vcpuIds, maxVcpus } = this.#machine;
    if (BigInt(id) >= BigInt(vcpuIds) || vm.vcpus.size >= maxVcpus) return -ERRNO.EINVAL;
    if (vm.vcpus.has(Number(id))) return this.#machine.duplicateVcpuId;
    const vcpu = new EmulatedVcpu(vm, Number(id), (made) => this.#architecture.createVcpu(made, vm.arch));
    const opened = this.files.open(vcpu);
    if (opened < 0) vm.vcpus.delete(vcpu.id);
    return opened;
  }

  setUserMemoryRegion(fd: number, slot: number, flags: number, gpa: U64, size: U64, hva: Hva): number {
    return this.#setMemslot(1, fd, slot, flags, gpa, size, hva, 0, 0);
  }

  setUserMemoryRegion2(
    fd: number,
    slot: number,
    flags: number,
    gpa: U64,
    size: U64,
    hva: Hva,
    guestMemfd: number,
    guestMemfdOffset: U64,
  ): number {
    if (!this.#machine.release.since(6, 8)) {
      const vm = this.#vm(fd);
      return typeof vm === 'number' ? vm : this.#machine.unknownVmRequest;
    }
    return this.#setMemslot(2, fd, slot, flags, gpa, size, hva, guestMemfd, guestMemfdOffset);
  }

  #setMemslot(
    version: 1 | 2,
    fd: number,
    slot: number,
    flags: number,
    gpa: U64,
    size: U64,
    hva: Hva,
    guestMemfd: number,
    guestMemfdOffset: U64,
  ): number {
    const vm = this.#vm(fd);
    if (typeof vm === 'number') return vm;
    const request = {
      version,
      slot,
      flags,
      gpa: BigInt(gpa),
      size: BigInt(size),
      hva: BigInt(hva),
      guestMemfdOffset: BigInt(guestMemfdOffset),
    };
    return vm.setUserMemoryRegion(request, () => {
      const file = this.files.get(guestMemfd);
      if (file === undefined) return -ERRNO.EBADF;
      return file.kind === 'guest_memfd' ? (file as GuestMemfdOfVm) : -ERRNO.EINVAL;
    });
  }

  getDirtyLog(fd: number, slot: number, bitmap: Bytes): number {
    const vm = this.#vm(fd);
    return typeof vm === 'number' ? vm : vm.getDirtyLog(slot, bitmap);
  }

  clearDirtyLog(fd: number, slot: number, firstPage: U64, numPages: number, bitmap: Bytes): number {
    const vm = this.#vm(fd);
    return typeof vm === 'number' ? vm : vm.dirtyLog.clear(slot, BigInt(firstPage), numPages, bitmap);
  }

  resetDirtyRings(fd: number): number {
    const vm = this.#vm(fd);
    return typeof vm === 'number' ? vm : vm.resetDirtyRings();
  }

  createGuestMemfd(fd: number, size: U64, flags: U64): number {
    const vm = this.#vm(fd);
    if (typeof vm === 'number') return vm;
    if (this.#machine.guestMemfdFlags < 0) return this.#machine.unknownVmRequest;
    const bytes = BigInt(size);
    // Where private pages are told from shared ones, all are private in the beginning.
    const known = this.#machine.guestMemfdFlags & (vm.type.privateMemory ? GUEST_MEMFD_FLAG.MMAP : -1);
    const context = { size: bytes, flags: BigInt(flags), known: BigInt(known), pageSize: this.pageSize };
    const refused = refusal(GUEST_MEMFD_RULES, context);
    if (refused !== 0) return refused;
    return this.files.open(new EmulatedGuestMemfd(vm, Number(bytes), Number(flags), this.pageSize));
  }

  setMemoryAttributes(fd: number, address: U64, size: U64, attributes: U64, flags: U64): number {
    const vm = this.#vm(fd);
    if (typeof vm === 'number') return vm;
    if (!this.#machine.hasMemoryAttributes) return this.#machine.unknownVmRequest;
    return vm.setMemoryAttributes(BigInt(address), BigInt(size), BigInt(attributes), BigInt(flags));
  }

  setDeviceAttr(fd: number, group: number, attr: U64, value: Bytes): number {
    const vm = this.#vm(fd);
    return typeof vm === 'number'
      ? vm
      : (vm.arch.setDeviceAttr?.(group, BigInt(attr), value) ?? this.#machine.unknownVmRequest);
  }

  getDeviceAttr(fd: number, group: number, attr: U64, value: Bytes): number {
    const vm = this.#vm(fd);
    return typeof vm === 'number'
      ? vm
      : (vm.arch.getDeviceAttr?.(group, BigInt(attr), value) ?? this.#machine.unknownVmRequest);
  }

  hasDeviceAttr(fd: number, group: number, attr: U64): number {
    const vm = this.#vm(fd);
    return typeof vm === 'number'
      ? vm
      : (vm.arch.hasDeviceAttr?.(group, BigInt(attr)) ?? this.#machine.unknownVmRequest);
  }

  ioeventfd(fd: number, addr: U64, len: number, eventfd: number, flags: number, datamatch: U64): number {
    const vm = this.#vm(fd);
    if (typeof vm === 'number') return vm;
    const event = this.files.eventfd(eventfd);
    return (flags & IOEVENTFD.DEASSIGN) !== 0
      ? vm.bus.deassign(event, BigInt(addr), len, flags, BigInt(datamatch))
      : vm.bus.assign(event, BigInt(addr), len, flags, BigInt(datamatch));
  }

  irqfd(fd: number, eventfd: number, gsi: number, flags: number, resamplefd: number): number {
    const vm = this.#vm(fd);
    if (typeof vm === 'number') return vm;
    if ((flags & ~(IRQFD.DEASSIGN | IRQFD.RESAMPLE)) !== 0) return -ERRNO.EINVAL;
    const event = this.files.eventfd(eventfd);
    if ((flags & IRQFD.DEASSIGN) !== 0) {
      if (typeof event === 'number') return event;
      vm.irqfds.delete(event, gsi);
      return 0;
    }
    const { irqfdWithoutIrqchip } = this.#machine;
    if (vm.arch.irqchip !== true && irqfdWithoutIrqchip !== 0) return irqfdWithoutIrqchip;
    if (typeof event === 'number') return event;
    if ((flags & IRQFD.RESAMPLE) !== 0) {
      const resample = this.files.eventfd(resamplefd);
      if (typeof resample === 'number') return resample;
    }
    return vm.irqfds.add(event, gsi);
  }

  registerCoalescedMmio(fd: number, addr: U64, size: number, pio: number): number {
    const vm = this.#vm(fd);
    return typeof vm === 'number' ? vm : vm.bus.registerCoalesced(BigInt(addr), size, pio);
  }

  unregisterCoalescedMmio(fd: number, addr: U64, size: number, pio: number): number {
    const vm = this.#vm(fd);
    return typeof vm === 'number' ? vm : vm.bus.unregisterCoalesced(BigInt(addr), size, pio);
  }

  createIrqchip(fd: number): number {
    const vm = this.#vm(fd);
    return typeof vm === 'number' ? vm : (vm.arch.createIrqchip?.() ?? this.#machine.unknownVmRequest);
  }

  // vCPU

  run(fd: number, timeoutMs: number): number {
    const vcpu = this.#vcpu(fd);
    return typeof vcpu === 'number' ? vcpu : vcpu.run(timeoutMs);
  }

  async runAsync(fd: number): Promise<number> {
    const vcpu = this.#vcpu(fd);
    return typeof vcpu === 'number' ? vcpu : vcpu.runAsync();
  }

  kick(fd: number): number {
    const vcpu = this.#vcpu(fd);
    return typeof vcpu === 'number' ? vcpu : vcpu.kick();
  }

  stop(fd: number): number {
    const vcpu = this.#vcpu(fd);
    return typeof vcpu === 'number' ? vcpu : vcpu.stop();
  }

  preFaultMemory(fd: number, range: BigUint64Array, flags: U64): number {
    const vcpu = this.#idleVcpu(fd);
    if (typeof vcpu === 'number') return vcpu;
    return vcpu.arch.preFaultMemory?.(range, BigInt(flags)) ?? this.#machine.unknownVcpuRequest;
  }

  getRegs(fd: number, regs: Bytes): number {
    const vcpu = this.#idleVcpu(fd);
    if (typeof vcpu === 'number') return vcpu;
    vcpu.arch.registersAsked?.();
    return readRegisters(vcpu.regs, regs);
  }

  setRegs(fd: number, regs: Bytes): number {
    const vcpu = this.#idleVcpu(fd);
    if (typeof vcpu === 'number') return vcpu;
    const { unusedRegsBytes } = this.#machine;
    if (unusedRegsBytes !== undefined && copyIn(regs, unusedRegsBytes) === undefined) return -ERRNO.EFAULT;
    const result = writeRegisters(vcpu.regs, regs);
    if (result === 0) vcpu.arch.regsSet?.();
    return result;
  }

  getSregs(fd: number, sregs: Bytes): number {
    const vcpu = this.#idleVcpu(fd);
    if (typeof vcpu === 'number') return vcpu;
    vcpu.arch.registersAsked?.();
    return readRegisters(vcpu.sregs, sregs);
  }

  setSregs(fd: number, sregs: Bytes): number {
    const vcpu = this.#idleVcpu(fd);
    if (typeof vcpu === 'number') return vcpu;
    const result = writeRegisters(vcpu.sregs, sregs, (bytes) => vcpu.arch.acceptsSregs?.(bytes) ?? true);
    if (result === 0) vcpu.arch.sregsSet?.();
    return result;
  }

  getOneReg(fd: number, id: U64, value: Bytes): number {
    const { oneRegOfVm } = this.#machine;
    if (oneRegOfVm !== undefined && this.files.get(fd)?.kind === 'vm') return oneRegOfVm;
    const register = this.#oneReg(fd, id);
    return typeof register === 'number' ? register : copyOut(register, value);
  }

  setOneReg(fd: number, id: U64, value: Bytes): number {
    const register = this.#oneReg(fd, id);
    if (typeof register === 'number') return register;
    const { arch } = this.#idleVcpu(fd) as EmulatedVcpu;
    return writeRegisters(register, value, (bytes) => arch.acceptsOneReg?.(BigInt(id), bytes) ?? true);
  }

  #oneReg(fd: number, id: U64): Uint8Array | number {
    const vcpu = this.#idleVcpu(fd);
    if (typeof vcpu === 'number') return vcpu;
    return vcpu.arch.refusesOneReg?.() || (vcpu.oneRegs.get(BigInt(id)) ?? this.#machine.unknownOneReg);
  }

  getMpState(fd: number): number {
    const vcpu = this.#idleVcpu(fd);
    return typeof vcpu === 'number' ? vcpu : (vcpu.arch.getMpState?.() ?? vcpu.mpState);
  }

  setMpState(fd: number, state: number): number {
    const vcpu = this.#idleVcpu(fd);
    return typeof vcpu === 'number' ? vcpu : vcpu.arch.setMpState(state);
  }
}

/** What the architecture keeps of a VM or vCPU that was found. */
function archOf<Arch>(found: { readonly arch: Arch } | number): Arch | number {
  return typeof found === 'number' ? found : found.arch;
}

/** What a request gets on a descriptor that doesn't know it. */
function unknownRequest(file: OpenFile | undefined, machine: Machine): number {
  switch (file?.kind) {
    case undefined:
      return -ERRNO.EBADF;
    case 'kvm':
      return -ERRNO.EINVAL;
    case 'vm':
      return machine.unknownVmRequest;
    case 'vcpu':
      return machine.unknownVcpuRequest;
    default:
      return -ERRNO.ENOTTY;
  }
}

function readRegisters(registers: Uint8Array, into: Bytes): number {
  return registers.length === 0 ? -ERRNO.EINVAL : copyOut(registers, into);
}

function writeRegisters(
  registers: Uint8Array,
  from: Bytes,
  accepts: (bytes: Uint8Array) => boolean = () => true,
): number {
  if (registers.length === 0) return -ERRNO.EINVAL;
  const bytes = copyIn(from, registers.length);
  if (bytes === undefined) return -ERRNO.EFAULT;
  if (!accepts(bytes)) return -ERRNO.EINVAL;
  registers.set(bytes);
  return 0;
}
