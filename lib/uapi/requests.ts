import { ARCH_FACTS, type Arch } from './arch.ts';
import { checkKnown, checkWord } from './argument-errors.ts';

type Direction = '_IO' | '_IOW' | '_IOR' | '_IOWR';

interface RequestShape {
  readonly dir: Direction;
  readonly nr: number;
  /** Bytes of the structure behind the argument; 0 for `_IO`. */
  readonly size: number;
  /** The request's type byte, where it isn't KVM's. */
  readonly type?: number;
}

const UFFDIO_TYPE = 0xaa;

const io = (nr: number): RequestShape => ({ dir: '_IO', nr, size: 0 });
const iow = (nr: number, size: number): RequestShape => ({ dir: '_IOW', nr, size });
const ior = (nr: number, size: number): RequestShape => ({ dir: '_IOR', nr, size });
const iowr = (nr: number, size: number): RequestShape => ({ dir: '_IOWR', nr, size });
const uffdio = (shape: RequestShape): RequestShape => ({ ...shape, type: UFFDIO_TYPE });

/**
 * Direction, number and structure size of each request (uAPI `linux/kvm.h`, the architectures' `asm/kvm.h`, and
 * `linux/userfaultfd.h`).
 * Requests whose structure differs between architectures (registers) are not here.
 */
const SHAPES = {
  KVM_GET_API_VERSION: io(0x00),
  KVM_CREATE_VM: io(0x01),
  KVM_CHECK_EXTENSION: io(0x03),
  KVM_GET_VCPU_MMAP_SIZE: io(0x04),
  KVM_CREATE_VCPU: io(0x41),
  KVM_GET_DIRTY_LOG: iow(0x42, 16),
  KVM_SET_USER_MEMORY_REGION: iow(0x46, 32),
  KVM_SET_TSS_ADDR: io(0x47),
  KVM_SET_IDENTITY_MAP_ADDR: iow(0x48, 8),
  KVM_SET_USER_MEMORY_REGION2: iow(0x49, 160),
  KVM_S390_UCAS_MAP: iow(0x50, 24),
  KVM_S390_UCAS_UNMAP: iow(0x51, 24),
  KVM_S390_VCPU_FAULT: iow(0x52, 8),
  KVM_S390_KEYOP: iowr(0x53, 16),
  KVM_CREATE_IRQCHIP: io(0x60),
  KVM_REGISTER_COALESCED_MMIO: iow(0x67, 16),
  KVM_UNREGISTER_COALESCED_MMIO: iow(0x68, 16),
  KVM_IRQFD: iow(0x76, 32),
  KVM_IOEVENTFD: iow(0x79, 64),
  KVM_RUN: io(0x80),
  KVM_TRANSLATE: iowr(0x85, 24),
  KVM_SET_SIGNAL_MASK: iow(0x8b, 4),
  KVM_S390_SET_INITIAL_PSW: iow(0x96, 16),
  KVM_S390_INITIAL_RESET: io(0x97),
  KVM_GET_MP_STATE: ior(0x98, 4),
  KVM_SET_MP_STATE: iow(0x99, 4),
  KVM_ENABLE_CAP: iow(0xa3, 104),
  KVM_PPC_GET_SMMU_INFO: ior(0xa6, 592),
  KVM_PPC_ALLOCATE_HTAB: iowr(0xa7, 4),
  KVM_PPC_GET_HTAB_FD: iow(0xaa, 32),
  KVM_GET_ONE_REG: iow(0xab, 16),
  KVM_SET_ONE_REG: iow(0xac, 16),
  KVM_PPC_RESIZE_HPT_PREPARE: ior(0xad, 16),
  KVM_PPC_RESIZE_HPT_COMMIT: ior(0xae, 16),
  KVM_PPC_CONFIGURE_V3_MMU: iow(0xaf, 16),
  /** A structure goes with it, although the number says that none does. */
  KVM_PPC_GET_COMPAT_CAPS: io(0xb8),
  KVM_S390_MEM_OP: iow(0xb1, 64),
  KVM_S390_GET_SKEYS: iow(0xb2, 64),
  KVM_S390_SET_SKEYS: iow(0xb3, 64),
  KVM_S390_GET_CMMA_BITS: iowr(0xb8, 32),
  KVM_S390_SET_CMMA_BITS: iow(0xb9, 32),
  KVM_ARM_VCPU_INIT: iow(0xae, 32),
  KVM_ARM_PREFERRED_TARGET: ior(0xaf, 32),
  KVM_CLEAR_DIRTY_LOG: iowr(0xc0, 24),
  KVM_S390_NORMAL_RESET: io(0xc3),
  KVM_S390_CLEAR_RESET: io(0xc4),
  KVM_RESET_DIRTY_RINGS: io(0xc7),
  KVM_SET_MEMORY_ATTRIBUTES: iow(0xd2, 32),
  KVM_CREATE_GUEST_MEMFD: iowr(0xd4, 64),
  KVM_PRE_FAULT_MEMORY: iowr(0xd5, 64),
  KVM_SET_DEVICE_ATTR: iow(0xe1, 24),
  KVM_GET_DEVICE_ATTR: iow(0xe2, 24),
  KVM_HAS_DEVICE_ATTR: iow(0xe3, 24),
  UFFDIO_REGISTER: uffdio(iowr(0x00, 32)),
  UFFDIO_UNREGISTER: uffdio(ior(0x01, 16)),
  UFFDIO_WAKE: uffdio(ior(0x02, 16)),
  UFFDIO_COPY: uffdio(iowr(0x03, 40)),
  UFFDIO_ZEROPAGE: uffdio(iowr(0x04, 32)),
  UFFDIO_MOVE: uffdio(iowr(0x05, 40)),
  UFFDIO_WRITEPROTECT: uffdio(iowr(0x06, 24)),
  UFFDIO_CONTINUE: uffdio(iowr(0x07, 32)),
  UFFDIO_POISON: uffdio(iowr(0x08, 32)),
  UFFDIO_RWPROTECT: uffdio(iowr(0x09, 24)),
  UFFDIO_SET_MODE: uffdio(iow(0x0a, 16)),
  UFFDIO_API: uffdio(iowr(0x3f, 24)),
} as const satisfies Record<string, RequestShape>;

export type RequestName = keyof typeof SHAPES;

/** The names of all requests whose number {@link requestNumber} can give. */
export const REQUEST_NAMES = Object.keys(SHAPES) as readonly RequestName[];

const KVM_IOC_TYPE = 0xae;
const GENERIC_DIRECTION: Record<Direction, number> = { _IO: 0, _IOW: 1 << 30, _IOR: 2 << 30, _IOWR: 3 << 30 };
const POWERPC_DIRECTION: Record<Direction, number> = { _IO: 1 << 29, _IOW: 4 << 29, _IOR: 2 << 29, _IOWR: 6 << 29 };

/**
 * The 32-bit ioctl request number on an architecture. powerpc has its own encoding of the direction
 * (uAPI `asm-generic/ioctl.h`, `arch/powerpc/include/uapi/asm/ioctl.h`).
 *
 * @example requestNumber('KVM_GET_DIRTY_LOG', 'x86_64') // 0x4010ae42
 */
export function requestNumber(name: RequestName, arch: Arch): number {
  return numberOf(checkKnown(name, 'name', SHAPES), checkKnown(arch, 'arch', ARCH_FACTS));
}

function numberOf(name: RequestName, arch: Arch): number {
  const { dir, nr, size, type = KVM_IOC_TYPE }: RequestShape = SHAPES[name];
  const direction = (arch === 'ppc64' ? POWERPC_DIRECTION : GENERIC_DIRECTION)[dir];
  return (direction | (size << 16) | (type << 8) | nr) >>> 0;
}

/** Bytes of the structure behind a request's argument; 0 where the argument is a plain value. */
export function requestSize(name: RequestName): number {
  return SHAPES[checkKnown(name, 'name', SHAPES)].size;
}

/** The name of a request number on an architecture, or undefined. */
export function requestName(request: number, arch: Arch): RequestName | undefined {
  checkWord(request, 'request');
  checkKnown(arch, 'arch', ARCH_FACTS);
  return REQUEST_NAMES.find((name) => numberOf(name, arch) === request);
}
