import type { Arch } from '../uapi/arch.ts';
import { kernelPart, nodePart, type Part, qemuPart } from './archive/parts.ts';

/** What differs between the labs' machines. Everything else is the same code for all of them. */
export interface Machine {
  readonly arch: Arch;
  /** The architecture's name in Debian's archive. */
  readonly debianArch: string;
  /** GNU triplet: the prefix of the cross compiler. */
  readonly triplet: string;
  /** Debian packages with that compiler and the C library to link against. */
  readonly compilerPackages: readonly string[];
  /** QEMU's program, and the Debian package that brings it. */
  readonly qemu: string;
  readonly qemuPackage: string;
  /** QEMU's machine, processor and memory. One processor: more are many times slower under TCG. */
  readonly machine: readonly string[];
  /** The virtio-serial controller that carries the result; every Debian kernel here has its driver, built in or as a module. */
  readonly serialController: string;
  /** Kernel command line, console first. */
  readonly append: string;
  /** What Debian's kernel packages for the machine are called after the version. */
  readonly kernelFlavour: string;
  /** Modules to load, in order; what they depend on comes along, and what is built in is left out. */
  readonly modules: readonly string[];
  /** A shell pattern for files of modules that are there and stay unloaded. */
  readonly modulesLeftOut?: string;
  /** Set where a module only loads after a change to its init code. */
  readonly patchKvm?: 's390x-without-sie';
  /** Options of Node in the guest. */
  readonly nodeOptions: readonly string[];
  /** Shell lines run in the guest after the modules are loaded and before Node starts. */
  readonly beforeNode: readonly string[];
  /** The firmware's limit on the size of the initramfs. */
  readonly maxInitramfsBytes?: number;
}

/** The kernels that there are labs with. */
export type KernelSeries = '6.1' | '6.12' | '6.18' | '7.2';

/** A kernel that a machine can boot. */
export interface LabKernel {
  readonly series: KernelSeries;
  /** What the lab is for, in `--list`. */
  readonly note: string;
  /** The oldest QEMU on which it runs, where that is not the oldest of all labs. */
  readonly oldestQemu?: QemuVersion | undefined;
}

/** Major and minor version. */
export type QemuVersion = readonly [number, number];

/** A lab: a machine with one of its kernels. */
export interface Variant {
  /** Such as `ppc64-6.1`. */
  readonly id: string;
  readonly machine: Machine;
  readonly kernel: LabKernel;
  /** Node and its libraries, and the kernel. */
  readonly node: Part;
  readonly kernelPart: Part;
  /** A QEMU for machines whose own one is too old. */
  readonly qemu?: Part | undefined;
}

/** The suites in which a kernel of a series is looked for, in this order. */
const KERNEL_SUITES: Readonly<Record<KernelSeries, readonly string[]>> = {
  '6.1': ['bookworm'],
  '6.12': ['trixie', 'bookworm-backports'],
  '6.18': ['trixie-backports'],
  '7.2': ['forky', 'sid', 'trixie-backports'],
};

const QUIET = 'quiet panic=-1 oops=panic';

const s390x: Machine = {
  arch: 's390x',
  debianArch: 's390x',
  triplet: 's390x-linux-gnu',
  compilerPackages: ['g++-s390x-linux-gnu', 'libc6-dev-s390x-cross'],
  qemu: 'qemu-system-s390x',
  qemuPackage: 'qemu-system-s390x',
  machine: ['-M', 's390-ccw-virtio', '-cpu', 'max', '-m', '1536M', '-accel', 'tcg'],
  serialController: 'virtio-serial-ccw',
  append: `console=ttysclp0 ${QUIET}`,
  kernelFlavour: 's390x',
  modules: ['virtio_console', 'kvm'],
  patchKvm: 's390x-without-sie',
  // A process can hold a guest only if its page tables have room for storage keys, which is decided at execve(); since 7.0 KVM has tables of its own.
  beforeNode: ['[ ! -e /proc/sys/vm/allocate_pgste ] || echo 1 > /proc/sys/vm/allocate_pgste'],
  // Under QEMU 7.2, what V8 compiles for s390x goes wrong sooner or later, with or without our addon: functions after half a
  // minute, regular expressions after some. Interpreted code does not.
  // V8 warns that --jitless takes WebAssembly away, unless it was not there before.
  nodeOptions: ['--jitless', '--no-expose-wasm'],
};

const ppc64: Machine = {
  arch: 'ppc64',
  debianArch: 'ppc64el',
  triplet: 'powerpc64le-linux-gnu',
  compilerPackages: ['g++-powerpc64le-linux-gnu', 'libc6-dev-ppc64el-cross'],
  qemu: 'qemu-system-ppc64',
  qemuPackage: 'qemu-system-ppc',
  // No -nodefaults: without the BMC that it would remove, power-off hangs.
  machine: ['-M', 'powernv9', '-m', '2G', '-accel', 'tcg,tb-size=1024'],
  serialController: 'virtio-serial-pci,bus=pcie.0',
  append: `console=hvc0 ${QUIET} apparmor=0 audit=0`,
  kernelFlavour: 'powerpc64le',
  modules: ['virtio_pci', 'virtio_console', 'kvm', 'kvm-hv'],
  beforeNode: [],
  nodeOptions: [],
  maxInitramfsBytes: 128 * 1024 * 1024, // QEMU places it there; a larger one is cut off without a word.
};

const x86_64: Machine = {
  arch: 'x86_64',
  debianArch: 'amd64',
  triplet: 'x86_64-linux-gnu',
  compilerPackages: ['g++'],
  qemu: 'qemu-system-x86_64',
  qemuPackage: 'qemu-system-x86',
  // TCG emulates AMD's SVM with nested paging, and no VMX.
  machine: ['-M', 'q35', '-cpu', 'EPYC,+svm,+npt', '-m', '1536M', '-accel', 'tcg,tb-size=256', '-nodefaults'],
  serialController: 'virtio-serial-pci',
  // Without its check that the timer interrupts, which fails where the emulation gets too little of the host.
  append: `console=ttyS0 ${QUIET} no_timer_check`,
  kernelFlavour: 'amd64',
  modules: ['virtio_pci', 'virtio_console', 'kvm', 'kvm-amd'],
  beforeNode: [],
  nodeOptions: [],
};

const aarch64: Machine = {
  arch: 'aarch64',
  debianArch: 'arm64',
  triplet: 'aarch64-linux-gnu',
  compilerPackages: ['g++-aarch64-linux-gnu', 'libc6-dev-arm64-cross'],
  qemu: 'qemu-system-aarch64',
  qemuPackage: 'qemu-system-arm',
  // Not max: with that of QEMU 7.2 a VM that was made after others saw pages of theirs, at the same addresses, in guest and host.
  machine: [
    ...['-M', 'virt,virtualization=on,gic-version=3', '-cpu', 'neoverse-n1'],
    ...['-m', '1536M', '-accel', 'tcg,tb-size=256', '-nodefaults'],
  ],
  serialController: 'virtio-serial-pci',
  append: `console=ttyAMA0 ${QUIET}`,
  kernelFlavour: 'arm64',
  modules: ['virtio_pci', 'virtio_console', 'kvm'],
  beforeNode: [],
  nodeOptions: [],
};

const riscv64: Machine = {
  arch: 'riscv64',
  debianArch: 'riscv64',
  triplet: 'riscv64-linux-gnu',
  compilerPackages: ['g++-riscv64-linux-gnu', 'libc6-dev-riscv64-cross'],
  qemu: 'qemu-system-riscv64',
  qemuPackage: 'qemu-system-misc',
  // The firmware, OpenSBI, comes with QEMU's packages.
  machine: [
    ...['-M', 'virt', '-cpu', 'rv64,h=true,sstc=true'],
    ...['-m', '1536M', '-accel', 'tcg,tb-size=256', '-nodefaults'],
  ],
  serialController: 'virtio-serial-pci',
  append: `console=ttyS0 ${QUIET}`,
  kernelFlavour: 'riscv64',
  modules: ['virtio_pci', 'virtio_console', 'kvm'],
  beforeNode: [],
  nodeOptions: [],
};

function variant(machine: Machine, series: KernelSeries, note: string, oldestQemu?: QemuVersion): Variant {
  const { arch, debianArch, kernelFlavour, qemu } = machine;
  return {
    id: `${arch}-${series}`,
    machine,
    kernel: { series, note, oldestQemu },
    node: nodePart(debianArch),
    kernelPart: kernelPart(debianArch, series, kernelFlavour, KERNEL_SUITES[series]),
    ...(oldestQemu === undefined ? {} : { qemu: qemuPart(qemu, ['bookworm-backports']) }),
  };
}

/** Every lab; the first of an architecture is its default. */
export const VARIANTS: readonly Variant[] = [
  variant(s390x, '6.12', 'MEM_OP, storage keys and CMMA; SIE is absent, so KVM_RUN executes nothing'),
  variant(s390x, '7.2', 'KVM with page tables of its own: no rule of 1 MiB, keys for each VM', [10, 0]),
  variant(s390x, '6.1', 'before MEM_OP cmpxchg and SET_USER_MEMORY_REGION2'),
  variant(ppc64, '6.12', 'Book3S HV on powernv9, 4 KiB pages'),
  variant(ppc64, '7.2', 'Book3S HV on powernv9'),
  variant(ppc64, '6.1', 'Book3S HV on powernv9, 64 KiB pages'),
  variant(x86_64, '6.12', 'kvm-amd with nested paging, under emulated SVM'),
  variant(x86_64, '7.2', 'guest_memfd that can be mapped, for every type of VM'),
  variant(x86_64, '6.18', 'the first with guest_memfd that can be mapped'),
  variant(x86_64, '6.1', 'kvm-amd before guest_memfd and memory attributes'),
  variant(aarch64, '6.12', 'EL2 host: dirty ring with bitmap'),
  variant(aarch64, '7.2', 'guest_memfd'),
  variant(aarch64, '6.18', 'the first with guest_memfd'),
  variant(riscv64, '6.12', 'H extension'),
  variant(riscv64, '7.2', 'dirty ring'),
];

/**
 * The labs that a command line names.
 *
 * @param name an architecture, which means its default kernel, or `all`, which means every kernel of every architecture
 * @param series restricts the choice to that kernel series
 * @returns undefined if there is no such lab
 */
export function selectVariants(name: string, series?: string): readonly Variant[] | undefined {
  const named = VARIANTS.filter(
    ({ machine, kernel }) =>
      (name === 'all' || machine.arch === name) && (series === undefined || kernel.series === series),
  );
  const found = name === 'all' ? named : named.slice(0, 1);
  return found.length === 0 ? undefined : found;
}
