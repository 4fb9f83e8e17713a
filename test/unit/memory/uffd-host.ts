import type { TestContext } from 'vitest';
import { Kvm, KvmError, Mapping, TrackedWrites } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { nativeMissing } from '../handles/backends.ts';
import { addon } from '../native/real.ts';

/** A kernel that has userfaultfds, of which not every test can have the real one. */
export interface UffdKernel {
  readonly name: string;
  readonly isReal: boolean;
  /** Its calls, or the test is skipped with the reason. */
  callsOf(test: TestContext): KvmCalls;
  /** The same for guests. */
  kvmOf(test: TestContext): Kvm;
}

/** The addon where this process may have a userfaultfd that tracks writes; else the test is skipped with the reason. */
export function trackingKernel(test: TestContext): KvmCalls {
  const calls = addon(test);
  using probe = Mapping.anonymous(calls, calls.pageSize);
  try {
    new TrackedWrites(probe).close();
  } catch (error) {
    if (error instanceof KvmError && ['EPERM', 'ENOSYS', 'EINVAL'].includes(error.code)) test.skip(error.message);
    throw error;
  }
  return calls;
}

const emulated = (test: TestContext): Kvm => {
  const kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  test.onTestFinished(() => kvm.close());
  return kvm;
};

export const UFFD_KERNELS: readonly UffdKernel[] = [
  {
    name: 'the real kernel',
    isReal: true,
    callsOf: trackingKernel,
    kvmOf: (test) => {
      trackingKernel(test);
      if (nativeMissing !== undefined) test.skip(nativeMissing);
      if (process.arch !== 'x64') test.skip("the guest's machine code is for x86_64");
      const kvm = Kvm.open({ backend: 'native' });
      test.onTestFinished(() => kvm.close());
      return kvm;
    },
  },
  { name: 'the emulated kernel', isReal: false, callsOf: (test) => emulated(test).calls, kvmOf: emulated },
];
