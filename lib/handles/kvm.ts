import { inspect } from 'node:util';
import type { HtabLoops } from '../arch/ppc64/model/htab-loops.ts';
import type { EmulatedKernel } from '../backends/emulated.ts';
import { type OpenedCalls, type OpenOptions, openCalls, openFailure } from '../backends/open.ts';
import { checkOptions, checkU64 } from '../base/arguments.ts';
import type { U64 } from '../base/u64.ts';
import { Handle } from '../calls/handle.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import {
  type AddressOptions,
  type DeviceMappingOptions,
  type FileMappingOptions,
  Mapping,
  type MappingOptions,
  type MemfdMappingOptions,
} from '../memory/mapping.ts';
import { Reservation } from '../memory/reservation.ts';
import { AddressSpace } from '../sharing/address-space.ts';
import { EventFd } from '../sharing/eventfd.ts';
import { type Arch, isLittleEndianHost } from '../uapi/arch.ts';
import { CAP, type CapName } from '../uapi/capabilities.ts';
import { ERRNO } from '../uapi/errno.ts';
import { releaseOfHost } from '../uapi/release.ts';
import { type Capability, capNumber } from './capabilities.ts';
import { Vm } from './vm.ts';

export interface CreateVmOptions {
  /** Machine type, 0 by default. s390x: 1 = ucontrol; ppc64: 1 = HV; x86_64: those of KVM_CAP_VM_TYPES. */
  readonly type?: U64;
}

/**
 * /dev/kvm: the real one, or that of an emulated kernel in this process.
 *
 * @example
 * using kvm = Kvm.open();                     // the real kernel where there is one
 * using other = Kvm.open({ arch: 's390x' });  // emulated
 */
export class Kvm extends Handle {
  override readonly noun = 'the handle of /dev/kvm';
  /** The emulated kernel, where it is one: for `loadGuest`. */
  readonly emulated: EmulatedKernel | undefined;
  /** Why `backend: 'auto'` did not take the real kernel. */
  readonly fallbackReason: string | undefined;
  /** @internal The addon's loops over HTAB streams. */
  readonly htabLoops: HtabLoops | undefined;
  #vcpuMmapSize: number | undefined;

  private constructor(opened: OpenedCalls, fd: number) {
    super(opened.calls, fd);
    this.emulated = opened.emulated;
    this.fallbackReason = opened.fallbackReason;
    this.htabLoops = opened.htabLoops;
  }

  /**
   * Opens /dev/kvm.
   * @throws KvmError ENOENT, EACCES, ENODEV, EMFILE, or ENOSYS without the addon; each with what to do about it
   */
  static open(options: OpenOptions = {}): Kvm {
    const opened = openCalls(options);
    const fd = opened.calls.openKvm();
    if (fd < 0) throw openFailure(fd);
    return new Kvm(opened, fd);
  }

  get backend(): KvmCalls['backend'] {
    return this.calls.backend;
  }

  get arch(): Arch {
    return this.calls.arch;
  }

  /** The kernel's release: what `uname -r` says on the real one, `6.12` or the like on an emulated one. */
  get release(): string {
    return this.calls.release;
  }

  /** Bytes of a host page. */
  get pageSize(): number {
    return this.calls.pageSize;
  }

  /** KVM_GET_API_VERSION: 12. */
  getApiVersion(): number {
    return this.check('getApiVersion', this.calls.getApiVersion(this.fd, 0));
  }

  /** KVM_CHECK_EXTENSION: 0 when it is absent. @example kvm.checkExtension('NR_MEMSLOTS') */
  checkExtension(cap: Capability): number {
    return this.check('checkExtension', this.calls.checkExtension(this.fd, capNumber(cap)));
  }

  /** All capabilities that this package knows by name, with their values; absent ones are 0. */
  capabilities(): Record<CapName, number> {
    const entries = Object.entries(CAP).map(([name, number]) => [name, this.checkExtension(number)] as const);
    return Object.fromEntries(entries) as Record<CapName, number>;
  }

  /** KVM_GET_VCPU_MMAP_SIZE, asked once. */
  get vcpuMmapSize(): number {
    this.#vcpuMmapSize ??= this.check('getVcpuMmapSize', this.calls.getVcpuMmapSize(this.fd, 0));
    return this.#vcpuMmapSize;
  }

  /** KVM_CREATE_VM. @throws KvmError EINVAL, ENOMEM, EMFILE */
  createVm(options: CreateVmOptions = {}): Vm {
    const { type = 0 } = checkOptions(options, { type: true });
    const fd = this.calls.createVm(this.fd, checkU64(type, 'options.type'));
    if (fd < 0) throw this.failure('createVm', fd, { explanation: whyNoVm(fd, type, this) });
    return new Vm(this, fd);
  }

  /** An address space that several VMs can be bound to. A VM has one of its own without this. */
  createAddressSpace(): AddressSpace {
    return new AddressSpace({ littleEndian: isLittleEndianHost(this.arch), pageSize: this.pageSize });
  }

  /** An eventfd. @throws KvmError EMFILE */
  createEventFd(initial = 0): EventFd {
    return new EventFd(this.calls, initial);
  }

  /** Anonymous memory of `size` bytes, sparse. @throws KvmError ENOMEM @example kvm.mapAnonymous(1 << 30) */
  mapAnonymous(size: number, options: MappingOptions = {}): Mapping {
    return Mapping.anonymous(this.calls, size, options);
  }

  /** A memfd, sealed against shrinking. @throws KvmError ENOMEM, EMFILE */
  mapMemfd(size: number, options: MemfdMappingOptions = {}): Mapping {
    return Mapping.memfd(this.calls, size, options);
  }

  /** Huge pages from the host's pool. @throws KvmError ENOMEM when it has too few */
  mapHugetlb(size: number, options: MappingOptions = {}): Mapping {
    return Mapping.hugetlb(this.calls, size, options);
  }

  /** A file, by path or descriptor. @throws KvmError EACCES, EINVAL, ENODEV */
  mapFile(file: string | number, options: FileMappingOptions = {}): Mapping {
    return Mapping.file(this.calls, file, options);
  }

  /** Device memory behind a descriptor. @throws KvmError ENODEV, EINVAL */
  mapDevice(fd: number, options: DeviceMappingOptions): Mapping {
    return Mapping.device(this.calls, fd, options);
  }

  /**
   * Addresses without memory, into which memory is put later, and taken out again, also while guests run.
   * @throws KvmError EINVAL, ENOMEM
   * @example
   * const ram = kvm.reserve(1 << 30);
   * vm.memory.addRam(0, ram);
   * ram.mapAnonymous(0, 64 << 20);
   */
  reserve(size: number, options: AddressOptions = {}): Reservation {
    return Reservation.make(this.calls, size, options);
  }

  override [inspect.custom](): string {
    if (this.closed) return 'Kvm (closed)';
    const kernel = this.backend === 'native' ? `real kernel ${this.release}` : `emulated kernel ${this.release}`;
    return `Kvm fd ${this.fd}, ${this.arch}, ${kernel}, API ${this.getApiVersion()}, pages of ${this.pageSize} bytes`;
  }
}

function whyNoVm(errno: number, type: U64, { arch, backend, release }: Kvm): string | undefined {
  if (errno === -ERRNO.EBUSY) return "another hypervisor (VirtualBox, VMware) has the processor's virtualization";
  if (errno !== -ERRNO.EINVAL) return undefined;
  const needsPgste = arch === 's390x' && backend === 'native' && !releaseOfHost(release).since(7, 0);
  const hint = needsPgste ? ', or vm.allocate_pgste is not 1' : '';
  return `VM type ${type} is not one that this kernel and machine have${hint}`;
}
