import { checkInteger, checkMethods } from '../base/arguments.ts';
import { outOfRange } from '../base/errors.ts';
import { counted } from '../base/text.ts';
import type { Bytes, Hva, KvmCalls, Ppc64Calls, S390xCalls, U64, X86_64Calls } from '../calls/kvm-calls.ts';
import { GUEST_MEMFD_RULES } from '../rules/guest-memfd.ts';
import { refusal } from '../rules/rule.ts';
import type { Arch } from '../uapi/arch.ts';
import { ERRNO } from '../uapi/errno.ts';
import { API_VERSION, GUEST_MEMFD_FLAG, IOEVENTFD, IRQFD, MAP } from '../uapi/flags.ts';
import { type RequestName, requestName, requestSize } from '../uapi/requests.ts';
import type { Architecture } from './architecture.ts';
import { FileBacking, type MapRequest, type MapSource } from './backing.ts';
import { checkCode, type GuestCode, type GuestProgram } from './guest.ts';
import { EmulatedGuestMemfd } from './guest-memfd.ts';
import { EmulatedHostMemory } from './host-memory.ts';
import type { Machine } from './machine.ts';
import { EmulatedEventfd, EmulatedMemfd, type OpenFile } from './open-file.ts';
import { pollFile } from './poll.ts';
import { rawIoctl } from './raw-ioctl.ts';
import { copyIn, copyOut, movePieces } from './user-memory.ts';
import { withUserfaultfd } from './userfaultfd.ts';
import { EmulatedVcpu } from './vcpu.ts';
import { EmulatedVm, type GuestMemfdOfVm } from './vm.ts';

/** Numbers of emulated descriptors start far above real ones, so that neither is ever taken for the other. */
const FIRST_FD = 0x10_0000;
/** What memfd_create knows: CLOEXEC, ALLOW_SEALING, HUGETLB with a size of pages, NOEXEC_SEAL and EXEC. */
const MEMFD_FLAGS = 0xfc00_001f;
/** What fallocate can be for some file or other: COLLAPSE_RANGE and INSERT_RANGE; allocation, ZERO_RANGE and UNSHARE_RANGE, and with KEEP_SIZE; a hole only so. */
const FALLOCATE_MODES: ReadonlySet<number> = new Set([8, 0x20, 0, 0x10, 0x40, 1, 0x11, 0x41, 3]);
const DEFAULT_MAX_FDS = 1024 * 1024;

/** Linux's KVM over one architecture: every call, its checks and their order, apart from what the architecture does. */
export class KernelCore implements KvmCalls {
  readonly backend = 'emulated';
  readonly arch: Arch;
  readonly release: string;
  readonly pageSize: number;
  readonly x86_64?: X86_64Calls;
  readonly s390x?: S390xCalls;
  readonly ppc64?: Ppc64Calls;
  readonly uffd?: NonNullable<KvmCalls['uffd']>;
  readonly #architecture: Architecture;
  readonly #machine: Machine;
  readonly #memory: EmulatedHostMemory;
  readonly #files = new Map<number, OpenFile>();
  readonly #freeFds: number[] = [];
  readonly #maxFds: number;
  #nextFd = FIRST_FD;

  /** @param maxFds descriptors that may be open at once (RLIMIT_NOFILE) */
  constructor(architecture: Architecture, maxFds = DEFAULT_MAX_FDS) {
    const { machine } = architecture;
    this.#architecture = architecture;
    this.#machine = machine;
    this.arch = machine.arch;
    this.release = machine.release.text;
    this.pageSize = machine.pageSize;
    this.#memory = new EmulatedHostMemory(this.pageSize);
    this.#maxFds = maxFds;
    const groups = architecture.calls?.({
      memory: this.#memory,
      vm: (fd) => archOf(this.#vm(fd)),
      vcpu: (fd) => archOf(this.#idleVcpu(fd)),
      open: (file) => this.#open(file),
    });
    Object.assign(this, groups);
    const surroundings = { machine, memory: this.#memory, file: (fd: number) => this.#files.get(fd) };
    Object.assign(this, withUserfaultfd(this, { ...surroundings, open: (file) => this.#open(file) }));
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
    return `EmulatedKernel of ${this.arch}, ${this.release}, pages of ${this.pageSize} bytes, ${counted(this.#files.size, 'file')} open`;
  }

  // Descriptors

  #open(file: OpenFile): number {
    if (this.#files.size >= this.#maxFds) {
      file.released?.();
      return -ERRNO.EMFILE;
    }
    // The lowest free number, as POSIX has it.
    const fd = this.#freeFds.length === 0 ? this.#nextFd++ : this.#freeFds.splice(lowest(this.#freeFds), 1)[0]!;
    this.#files.set(fd, file);
    return fd;
  }

  /** −errno of a /dev/kvm request on this fd, or 0. */
  #kvm(fd: number): number {
    const file = this.#files.get(fd);
    return file?.kind === 'kvm' ? 0 : unknownRequest(file, this.#machine);
  }

  #vm(fd: number): EmulatedVm | number {
    const file = this.#files.get(fd);
    return file instanceof EmulatedVm ? file : unknownRequest(file, this.#machine);
  }

  #vcpu(fd: number): EmulatedVcpu | number {
    const file = this.#files.get(fd);
    return file instanceof EmulatedVcpu ? file : unknownRequest(file, this.#machine);
  }

  /** A vCPU that isn't inside KVM_RUN: a call on one that is would block the only thread that can kick it. */
  #idleVcpu(fd: number): EmulatedVcpu | number {
    const vcpu = this.#vcpu(fd);
    return typeof vcpu !== 'number' && vcpu.running ? -ERRNO.EBUSY : vcpu;
  }

  /** The eventfd that an ioctl's structure names: EBADF when nothing is open there, EINVAL when it is something else. */
  #eventfd(fd: number): EmulatedEventfd | number {
    const file = this.#files.get(fd);
    if (file === undefined) return -ERRNO.EBADF;
    return file instanceof EmulatedEventfd ? file : -ERRNO.EINVAL;
  }

  openKvm(): number {
    return this.#open({ kind: 'kvm' });
  }

  close(fd: number): number {
    const file = this.#files.get(fd);
    if (file === undefined) return -ERRNO.EBADF;
    this.#files.delete(fd);
    this.#freeFds.push(fd);
    file.polled?.settle(-ERRNO.EBADF);
    file.released?.();
    return 0;
  }

  read(fd: number, into: Uint8Array): number {
    const file = this.#files.get(fd);
    if (file === undefined) return -ERRNO.EBADF;
    return file.read === undefined ? -ERRNO.EINVAL : file.read(into);
  }

  write(fd: number, from: Uint8Array): number {
    const file = this.#files.get(fd);
    if (file === undefined) return -ERRNO.EBADF;
    return file.write === undefined ? -ERRNO.EINVAL : file.write(from);
  }

  async poll(fd: number, events: number): Promise<number> {
    const file = this.#files.get(fd);
    return file === undefined ? -ERRNO.EBADF : pollFile(file.polled, events);
  }

  ioctlUnchecked(fd: number, request: number, arg: U64 | Uint8Array): number {
    const file = this.#files.get(fd);
    if (file === undefined) return -ERRNO.EBADF;
    const name = requestName(request, this.arch);
    if (name === undefined) return unknownRequest(file, this.#machine);
    return rawIoctl(this, fd, name, arg) ?? this.#archRequest(file, name, arg) ?? unknownRequest(file, this.#machine);
  }

  /** What only an architecture's VMs or vCPUs know. */
  #archRequest(file: OpenFile, name: RequestName, arg: U64 | Uint8Array): number | undefined {
    const isOurs = file instanceof EmulatedVm || file instanceof EmulatedVcpu;
    const answer = isOurs ? file.arch.requests?.[name] : undefined;
    if (answer === undefined) return undefined;
    return arg instanceof Uint8Array && arg.length >= requestSize(name) ? answer(arg) : -ERRNO.EFAULT;
  }

  // /dev/kvm

  getApiVersion(kvm: number, arg: U64): number {
    return this.#kvm(kvm) || (BigInt(arg) === 0n ? API_VERSION : -ERRNO.EINVAL);
  }

  checkExtension(fd: number, cap: U64): number {
    const file = this.#files.get(fd);
    if (file instanceof EmulatedVm) return file.checkExtension(Number(cap));
    return this.#kvm(fd) || (this.#machine.capabilities.get(Number(cap)) ?? 0);
  }

  createVm(kvm: number, type: U64): number {
    const refused = this.#kvm(kvm);
    if (refused !== 0) return refused;
    const { vmTypes, ignoresVmType } = this.#machine;
    const known = vmTypes.find((candidate) => ignoresVmType || candidate.type === BigInt(type));
    if (known === undefined) return -ERRNO.EINVAL;
    return this.#open(new EmulatedVm(this.#machine, this.#memory, known, (vm) => this.#architecture.createVm(vm)));
  }

  getVcpuMmapSize(kvm: number, arg: U64): number {
    return this.#kvm(kvm) || (BigInt(arg) === 0n ? this.#machine.vcpuMmapSize : -ERRNO.EINVAL);
  }

  // VM

  enableCap(fd: number, cap: number, flags: number, args: readonly U64[]): number {
    const file = this.#files.get(fd);
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
    const opened = this.#open(vcpu);
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
      const file = this.#files.get(guestMemfd);
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
    return this.#open(new EmulatedGuestMemfd(vm, Number(bytes), Number(flags), this.pageSize));
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

  eventfd(initial: number): number {
    return this.#open(new EmulatedEventfd(initial, this.#machine.littleEndian));
  }

  ioeventfd(fd: number, addr: U64, len: number, eventfd: number, flags: number, datamatch: U64): number {
    const vm = this.#vm(fd);
    if (typeof vm === 'number') return vm;
    const event = this.#eventfd(eventfd);
    return (flags & IOEVENTFD.DEASSIGN) !== 0
      ? vm.bus.deassign(event, BigInt(addr), len, flags, BigInt(datamatch))
      : vm.bus.assign(event, BigInt(addr), len, flags, BigInt(datamatch));
  }

  irqfd(fd: number, eventfd: number, gsi: number, flags: number, resamplefd: number): number {
    const vm = this.#vm(fd);
    if (typeof vm === 'number') return vm;
    if ((flags & ~(IRQFD.DEASSIGN | IRQFD.RESAMPLE)) !== 0) return -ERRNO.EINVAL;
    const event = this.#eventfd(eventfd);
    if ((flags & IRQFD.DEASSIGN) !== 0) {
      if (typeof event === 'number') return event;
      vm.irqfds.delete(event, gsi);
      return 0;
    }
    const { irqfdWithoutIrqchip } = this.#machine;
    if (vm.arch.irqchip !== true && irqfdWithoutIrqchip !== 0) return irqfdWithoutIrqchip;
    if (typeof event === 'number') return event;
    if ((flags & IRQFD.RESAMPLE) !== 0) {
      const resample = this.#eventfd(resamplefd);
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
    if (oneRegOfVm !== undefined && this.#files.get(fd)?.kind === 'vm') return oneRegOfVm;
    const register = this.#oneReg(fd, id);
    return typeof register === 'number' ? register : copyOut(register, value);
  }

  setOneReg(fd: number, id: U64, value: Bytes): number {
    const register = this.#oneReg(fd, id);
    return typeof register === 'number' ? register : writeRegisters(register, value);
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
    if (typeof vcpu === 'number') return vcpu;
    if (vcpu.arch.setMpState !== undefined) return vcpu.arch.setMpState(state);
    vcpu.mpState = state;
    return 0;
  }

  // Host memory

  mmap(length: U64, prot: number, flags: number, fd: number, offset: U64, align: U64, alignOffset: U64): number {
    const request = { length: Number(length), prot, flags };
    const source = EmulatedHostMemory.refusal(request) || this.#source(request, fd, Number(offset));
    if (typeof source === 'number') return source;
    return this.#memory.map(request, Number(align), Number(alignOffset), source);
  }

  mmapFixed(hva: Hva, length: U64, prot: number, flags: number, fd: number, offset: U64): number {
    const request = { length: Number(length), prot, flags };
    const refused = EmulatedHostMemory.refusal(request);
    return refused || this.#memory.mapFixed(Number(hva), request, () => this.#source(request, fd, Number(offset)));
  }

  /** What mmap is to show: an fd's memory, or anonymous memory for undefined; −errno. */
  #source(request: MapRequest, fd: number, offset: number): MapSource | number | undefined {
    if (fd < -1 || offset % this.pageSize !== 0) return -ERRNO.EINVAL;
    if (fd === -1 || (request.flags & MAP.ANONYMOUS) !== 0) return undefined;
    const file = this.#files.get(fd);
    if (file !== undefined) return file.mmap?.(offset, request.length, request.flags) ?? -ERRNO.ENODEV;
    return FileBacking.source(fd, offset, this.pageSize, request);
  }

  munmap(hva: Hva, length: U64): number {
    return this.#memory.unmap(Number(hva), Number(length));
  }

  mprotect(hva: Hva, length: U64, prot: number): number {
    return this.#memory.protect(Number(hva), Number(length), prot);
  }

  madvise(hva: Hva, length: U64, advice: number): number {
    return this.#memory.advise(Number(hva), Number(length), advice);
  }

  fallocate(fd: number, mode: number, offset: U64, length: U64): number {
    const file = this.#files.get(fd);
    if (file === undefined) return -ERRNO.EBADF;
    if (file.kind === 'memfd') return -ERRNO.EOPNOTSUPP;
    const [start, size] = [BigInt.asIntN(64, BigInt(offset)), BigInt.asIntN(64, BigInt(length))];
    if (start < 0n || size <= 0n) return -ERRNO.EINVAL;
    if (!FALLOCATE_MODES.has(mode)) return -ERRNO.EOPNOTSUPP;
    if (file.fallocate === undefined) return -ERRNO.ENODEV;
    return start + size >= 1n << 63n ? -ERRNO.EFBIG : file.fallocate(mode, Number(start), Number(size));
  }

  memfdCreate(_name: string, size: U64, flags: number): number {
    if ((flags & ~MEMFD_FLAGS) !== 0) return -ERRNO.EINVAL;
    return this.#open(new EmulatedMemfd(Number(size), flags, this.pageSize));
  }

  view(hva: Hva, length: number): ArrayBuffer | number {
    return this.#memory.view(Number(hva), length);
  }

  window(hva: Hva, length: number): ArrayBuffer | number {
    return this.#memory.window(Number(hva), length);
  }

  vmap(hva: Hva, length: number): Uint8Array | number {
    return this.#memory.vmap(Number(hva), length);
  }

  vunmap(bytes: Uint8Array): number {
    return this.#memory.vunmap(bytes);
  }

  readMemory(hva: Hva, into: Uint8Array): number {
    const read = this.#memory.read(Number(hva), into);
    return read === 0 && into.length !== 0 ? this.#memory.whyNot(Number(hva), false) : read;
  }

  writeMemory(hva: Hva, from: Uint8Array): number {
    const written = this.#memory.write(Number(hva), from);
    return written === 0 && from.length !== 0 ? this.#memory.whyNot(Number(hva), true) : written;
  }

  gather(hvas: Float64Array, lengths: Uint32Array, into: Uint8Array): number {
    return movePieces(hvas, lengths, into, (hva, bytes) =>
      this.#memory.mappedBytes(hva) >= bytes.length ? this.#memory.read(hva, bytes) : 0,
    );
  }

  scatter(hvas: Float64Array, lengths: Uint32Array, from: Uint8Array): number {
    return movePieces(hvas, lengths, from, (hva, bytes) =>
      this.#memory.mappedBytes(hva) >= bytes.length ? this.#memory.write(hva, bytes) : 0,
    );
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

function lowest(fds: readonly number[]): number {
  return fds.indexOf(Math.min(...fds));
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
