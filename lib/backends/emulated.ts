import { ARCH_PARTS } from '../arch/index.ts';
import type { KernelBuild } from '../arch/parts.ts';
import { checkInteger, checkOneOf, checkOptions, checkU32, type NamesOf } from '../base/arguments.ts';
import { outOfRange } from '../base/errors.ts';
import type { Architecture } from '../emulated/architecture.ts';
import { KernelCore } from '../emulated/kernel.ts';
import { ARCH_FACTS, ARCHES, type Arch } from '../uapi/arch.ts';
import { parseRelease, REFERENCE_RELEASE } from '../uapi/release.ts';

/** Which kernel, and how it was built where that shows. */
export interface EmulatedKernelOptions extends KernelBuild {
  readonly arch: Arch;
  /** Kernel release, 6.1 or newer; 6.12 unless given. What is newer than 7.3 answers as 7.3 does. */
  readonly release?: string;
  /** Descriptors that may be open at once (RLIMIT_NOFILE). */
  readonly maxFds?: number;
}

const OPTIONS: NamesOf<EmulatedKernelOptions> = {
  arch: true,
  pageSize: true,
  release: true,
  maxFds: true,
  x86_64: true,
};

function architectureOf(options: EmulatedKernelOptions): Architecture {
  const { arch, pageSize, release = REFERENCE_RELEASE, maxFds } = checkOptions(options, OPTIONS);
  const { pageSizes } = ARCH_FACTS[checkOneOf(arch, 'options.arch', ARCHES)];
  if (maxFds !== undefined) checkInteger(maxFds, 'options.maxFds', 0, 0x7fff_ffff);
  if (pageSize !== undefined && !pageSizes.includes(checkU32(pageSize, 'options.pageSize'))) {
    throw outOfRange('pageSize', `${pageSizes.join(' or ')}, as hosts of ${arch} have`, pageSize);
  }
  return ARCH_PARTS[arch].emulated(parseRelease(release), options);
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
