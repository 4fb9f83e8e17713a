import { isBytes } from '../base/arguments.ts';
import type { KvmCalls, U64 } from '../calls/kvm-calls.ts';
import { isLittleEndianHost } from '../uapi/arch.ts';
import { ERRNO } from '../uapi/errno.ts';
import { type RequestName, requestSize } from '../uapi/requests.ts';

type ByValue = (calls: KvmCalls, fd: number, arg: bigint) => number;
type ByStruct = (calls: KvmCalls, fd: number, struct: Fields) => number;

/** Reads fields of a structure in the emulated host's byte order. */
class Fields {
  readonly #view: DataView;
  readonly #little: boolean;

  constructor(bytes: Uint8Array, littleEndian: boolean) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#little = littleEndian;
  }

  u32(offset: number): number {
    return this.#view.getUint32(offset, this.#little);
  }

  i32(offset: number): number {
    return this.#view.getInt32(offset, this.#little);
  }

  u64(offset: number): bigint {
    return this.#view.getBigUint64(offset, this.#little);
  }
}

const BY_VALUE: Partial<Record<RequestName, ByValue>> = {
  KVM_GET_API_VERSION: (calls, fd, arg) => calls.getApiVersion(fd, arg),
  KVM_CREATE_VM: (calls, fd, arg) => calls.createVm(fd, arg),
  KVM_CHECK_EXTENSION: (calls, fd, arg) => calls.checkExtension(fd, arg),
  KVM_GET_VCPU_MMAP_SIZE: (calls, fd, arg) => calls.getVcpuMmapSize(fd, arg),
  KVM_CREATE_VCPU: (calls, fd, arg) => calls.createVcpu(fd, arg),
  KVM_CREATE_IRQCHIP: (calls, fd) => calls.createIrqchip(fd),
  KVM_RESET_DIRTY_RINGS: (calls, fd) => calls.resetDirtyRings(fd),
  KVM_RUN: (calls, fd, arg) => (arg === 0n ? calls.run(fd, 0) : -ERRNO.EINVAL),
};

/** Structures without pointers in them; the emulated process has no memory that a pointer of the caller's could name. */
const BY_STRUCT: Partial<Record<RequestName, ByStruct>> = {
  KVM_SET_USER_MEMORY_REGION: (calls, fd, s) =>
    calls.setUserMemoryRegion(fd, s.u32(0), s.u32(4), s.u64(8), s.u64(16), s.u64(24)),
  KVM_SET_USER_MEMORY_REGION2: (calls, fd, s) =>
    calls.setUserMemoryRegion2(fd, s.u32(0), s.u32(4), s.u64(8), s.u64(16), s.u64(24), s.i32(40), s.u64(32)),
  KVM_ENABLE_CAP: (calls, fd, s) =>
    calls.enableCap(fd, s.u32(0), s.u32(4), [s.u64(8), s.u64(16), s.u64(24), s.u64(32)]),
  KVM_IOEVENTFD: (calls, fd, s) => calls.ioeventfd(fd, s.u64(8), s.u32(16), s.i32(20), s.u32(24), s.u64(0)),
  KVM_IRQFD: (calls, fd, s) => calls.irqfd(fd, s.i32(0), s.u32(4), s.u32(8), s.i32(12)),
  KVM_REGISTER_COALESCED_MMIO: (calls, fd, s) => calls.registerCoalescedMmio(fd, s.u64(0), s.u32(8), s.u32(12)),
  KVM_UNREGISTER_COALESCED_MMIO: (calls, fd, s) => calls.unregisterCoalescedMmio(fd, s.u64(0), s.u32(8), s.u32(12)),
  KVM_SET_MEMORY_ATTRIBUTES: (calls, fd, s) => calls.setMemoryAttributes(fd, s.u64(0), s.u64(8), s.u64(16), s.u64(24)),
  KVM_CREATE_GUEST_MEMFD: (calls, fd, s) => calls.createGuestMemfd(fd, s.u64(0), s.u64(8)),
};

/**
 * An ioctl by its name. Undefined when it is no request that one of the calls makes;
 * −EFAULT when a structure is shorter than the request's, or full of pointers.
 */
export function rawIoctl(calls: KvmCalls, fd: number, name: RequestName, arg: U64 | Uint8Array): number | undefined {
  if (belongsElsewhere(name, calls)) return undefined;
  const byValue = BY_VALUE[name];
  if (byValue !== undefined) return byValue(calls, fd, isBytes(arg) ? 1n : BigInt(arg));
  if (!isBytes(arg) || arg.length < requestSize(name)) return -ERRNO.EFAULT;
  return BY_STRUCT[name]?.(calls, fd, new Fields(arg, isLittleEndianHost(calls.arch))) ?? -ERRNO.EFAULT;
}

/** Requests of other files or architectures, and what isn't emulated: one of 7.3, which no recording is of, and translations. */
function belongsElsewhere(name: RequestName, calls: KvmCalls): boolean {
  return (
    name.startsWith('UFFDIO_') ||
    name === 'KVM_PPC_GET_COMPAT_CAPS' ||
    name === 'KVM_TRANSLATE' ||
    name === 'KVM_SET_SIGNAL_MASK' ||
    name.startsWith('KVM_ARM_') ||
    (name.startsWith('KVM_S390_') && calls.arch !== 's390x') ||
    (name.startsWith('KVM_PPC_') && calls.arch !== 'ppc64')
  );
}
