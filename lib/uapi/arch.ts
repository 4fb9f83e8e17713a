import { checkKnown, invalidArgType } from './argument-errors.ts';
import { VM_TYPE, VM_TYPE_ARM_PROTECTED } from './flags.ts';

/** What there is to know of an architecture's hosts before any of them is asked. */
interface ArchFacts {
  /** What Node's `process.arch` is there. */
  readonly nodeArch: string;
  /** Integers in KVM's structures are little-endian, as we run it. */
  readonly littleEndian: boolean;
  /** Sizes that a host's pages can have. */
  readonly pageSizes: readonly number[];
  /** First address that is not a process's own (TASK_SIZE). */
  readonly hvaLimit: bigint;
  /** Bytes of the structure of GET_REGS and SET_REGS; absent where there is none. */
  readonly regs?: number;
  /** The same of GET_SREGS and SET_SREGS. */
  readonly sregs?: number;
  /** What a memslot's host address must be a multiple of on some kernels, where that is more than a page. */
  readonly memslotAlignment?: number;
  /** GET_DIRTY_LOG compares the whole slot word with the number of slots, so that it knows one address space only. */
  readonly dirtyLogOfOneSpace?: boolean;
  /** What CREATE_VM's type names; on aarch64 a bit above the number of address bits. */
  readonly vmTypes?: Readonly<Record<string, number>>;
}

/** The architectures whose KVM this project knows. `ppc64` is Book3S HV, whatever its byte order. */
const FACTS = {
  x86_64: {
    nodeArch: 'x64',
    littleEndian: true,
    pageSizes: [4096],
    hvaLimit: (1n << 47n) - 4096n,
    regs: 144,
    sregs: 312,
    vmTypes: { X86_SW_PROTECTED: VM_TYPE.X86_SW_PROTECTED },
  },
  // Any address will do there.
  s390x: {
    nodeArch: 's390x',
    littleEndian: false,
    pageSizes: [4096],
    hvaLimit: 1n << 65n,
    regs: 128,
    sregs: 192,
    memslotAlignment: 0x10_0000,
    dirtyLogOfOneSpace: true,
    vmTypes: { S390_UCONTROL: VM_TYPE.S390_UCONTROL },
  },
  ppc64: {
    nodeArch: 'ppc64',
    littleEndian: true,
    pageSizes: [4096, 65536],
    hvaLimit: 1n << 52n,
    regs: 392,
    sregs: 1232,
    dirtyLogOfOneSpace: true,
    vmTypes: { PPC_HV: VM_TYPE.PPC_HV },
  },
  aarch64: {
    nodeArch: 'arm64',
    littleEndian: true,
    pageSizes: [4096],
    hvaLimit: 1n << 48n,
    vmTypes: { ARM_PROTECTED: VM_TYPE_ARM_PROTECTED },
  },
  riscv64: { nodeArch: 'riscv64', littleEndian: true, pageSizes: [4096], hvaLimit: 1n << 47n },
} as const satisfies Record<string, ArchFacts>;

export type Arch = keyof typeof FACTS;

export const ARCH_FACTS: Readonly<Record<Arch, ArchFacts>> = FACTS;

export const ARCHES = Object.keys(FACTS) as readonly Arch[];

/** The architecture that Node's `process.arch` names, or undefined where KVM's memory calls are not known to us. */
export function archOfNode(nodeArch: string): Arch | undefined {
  if (typeof nodeArch !== 'string') throw invalidArgType('nodeArch', 'a string', nodeArch);
  return ARCHES.find((arch) => ARCH_FACTS[arch].nodeArch === nodeArch);
}

/** Whether guest-visible integers in the KVM structures are little-endian on a host of this architecture as we run it. */
export function isLittleEndianHost(arch: Arch): boolean {
  return ARCH_FACTS[checkKnown(arch, 'arch', ARCH_FACTS)].littleEndian;
}
