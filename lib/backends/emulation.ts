import { existsSync, readFileSync } from 'node:fs';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { CAP } from '../uapi/capabilities.ts';
import { releaseOfHost } from '../uapi/release.ts';
import type { EmulatedKernelOptions } from './emulated.ts';

/**
 * The emulated kernel that ought to answer like the one behind `calls`: release, page size and how it was built.
 * @param x86_64 how it was built, where it is an emulated one
 */
export function emulationOf(
  calls: KvmCalls,
  { x86_64 }: Pick<EmulatedKernelOptions, 'x86_64'> = {},
): EmulatedKernelOptions {
  if (calls.backend === 'native') return emulationOfHost(calls);
  const { arch, release, pageSize } = calls;
  return { arch, release, pageSize, ...(x86_64 === undefined ? {} : { x86_64 }) };
}

function emulationOfHost(calls: KvmCalls): EmulatedKernelOptions {
  const kvm = calls.openKvm();
  if (kvm < 0) throw new Error(`/dev/kvm can't be opened (${kvm})`);
  try {
    const common = { arch: calls.arch, release: releaseOfHost(calls.release).text };
    switch (calls.arch) {
      case 'x86_64':
        return {
          ...common,
          x86_64: {
            smm: calls.checkExtension(kvm, CAP.MULTI_ADDRESS_SPACE) === 2,
            swProtectedVm: (calls.checkExtension(kvm, CAP.VM_TYPES) & 2) !== 0,
            memoryAttributes: calls.checkExtension(kvm, CAP.MEMORY_ATTRIBUTES) !== 0,
            tdp: hasNestedPaging(),
            svm: existsSync('/sys/module/kvm_amd'),
            emulatesRealMode: existsSync('/sys/module/kvm_pvm'),
          },
        };
      case 'ppc64':
        return { ...common, pageSize: calls.pageSize };
      default:
        return common;
    }
  } finally {
    calls.close(kvm);
  }
}

/** Whether the processor translates guest physical addresses itself; KVM says so to user space since 6.11 only. */
function hasNestedPaging(): boolean {
  return ['kvm_amd/parameters/npt', 'kvm_intel/parameters/ept'].some((parameter) => {
    const path = `/sys/module/${parameter}`;
    return existsSync(path) && /^[1Y]/.test(readFileSync(path, 'utf8'));
  });
}
