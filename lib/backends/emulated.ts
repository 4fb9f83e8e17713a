import { aarch64Architecture } from '../arch/aarch64/emulated/architecture.ts';
import { ppc64Architecture } from '../arch/ppc64/emulated/architecture.ts';
import { riscv64Architecture } from '../arch/riscv64/emulated/architecture.ts';
import { s390xArchitecture } from '../arch/s390x/emulated/architecture.ts';
import { x86_64Architecture } from '../arch/x86_64/emulated/architecture.ts';
import type { X86_64Build } from '../arch/x86_64/emulated/build.ts';
import { outOfRange } from '../base/errors.ts';
import type { Architecture } from '../emulated/architecture.ts';
import { KernelCore } from '../emulated/kernel.ts';
import { ARCH_FACTS, type Arch } from '../uapi/arch.ts';
import { parseRelease, REFERENCE_RELEASE, type Release } from '../uapi/release.ts';

/** Which kernel, and how it was built where that shows. */
export interface EmulatedKernelOptions {
  readonly arch: Arch;
  /** Kernel release; 6.12 unless given. 6.1 and newer are known. */
  readonly release?: string;
  /** Host page size of ppc64: 4096 or 65536. The other architectures have 4096. */
  readonly pageSize?: number;
  /** How the x86_64 KVM was built; Debian's way unless given. */
  readonly x86_64?: Partial<X86_64Build>;
  /** Descriptors that may be open at once (RLIMIT_NOFILE). */
  readonly maxFds?: number;
}

/** The architectures that there are. */
const ARCHITECTURES: Readonly<Record<Arch, (release: Release, options: EmulatedKernelOptions) => Architecture>> = {
  x86_64: (release, { x86_64 }) => x86_64Architecture(release, x86_64),
  s390x: (release) => s390xArchitecture(release),
  ppc64: (release, { pageSize }) => ppc64Architecture(release, pageSize),
  aarch64: (release) => aarch64Architecture(release),
  riscv64: (release) => riscv64Architecture(release),
};

function architectureOf(options: EmulatedKernelOptions): Architecture {
  const { arch, pageSize, release = REFERENCE_RELEASE } = options;
  const { pageSizes } = ARCH_FACTS[arch];
  if (pageSize !== undefined && !pageSizes.includes(pageSize)) {
    throw outOfRange('pageSize', `${pageSizes.join(' or ')}, as hosts of ${arch} have`, pageSize);
  }
  return ARCHITECTURES[arch](parseRelease(release), options);
}

/**
 * Linux's KVM in this process: the same calls, the same numbers, the same order of checks, proved against recordings
 * of real kernels. Guests are scripted ({@link EmulatedKernel.loadGuest}); everything else is as on a host.
 *
 * @example
 * const kernel = new EmulatedKernel({ arch: 's390x', release: '6.12' });
 * const vm = kernel.createVm(kernel.openKvm(), 0);
 */
export class EmulatedKernel extends KernelCore {
  constructor(options: EmulatedKernelOptions) {
    super(architectureOf(options), options.maxFds);
  }
}
