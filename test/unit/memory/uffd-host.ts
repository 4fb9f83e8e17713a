import { accessSync, constants, existsSync } from 'node:fs';
import type { TestContext } from 'vitest';
import { Kvm } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { ERRNO } from '../../../lib/raw.ts';
import { addon, realKvm } from '../native/real.ts';

/** A kernel that has userfaultfds, of which not every test can have the real one. */
export interface UffdKernel {
  readonly name: string;
  readonly isReal: boolean;
  /** Its calls, or the test is skipped with the reason. */
  callsOf(test: TestContext): KvmCalls;
  /** The same for guests. */
  kvmOf(test: TestContext): Kvm;
}

/**
 * Why this process can't have a userfaultfd that tracks writes, by what the machine is and never by what our own code says of it:
 * where nothing is missing, whatever fails is a fault.
 */
function whyNoUserfaultfd(calls: KvmCalls): string | undefined {
  const { arch, release } = calls;
  const since: number | undefined = { x86_64: 7, aarch64: 10 }[arch as string];
  if (since === undefined) return `Linux has no write protection by userfaultfd on ${arch}`;
  const [major = 0, minor = 0] = release.split('.').map(Number.parseFloat);
  if (major < 6 || (major === 6 && minor < since)) {
    return `writes are tracked by userfaultfd from Linux 6.${since} on, and this is ${release}`;
  }
  if (!existsSync('/proc/sys/vm/unprivileged_userfaultfd')) return 'this kernel was built without CONFIG_USERFAULTFD';
  try {
    accessSync('/dev/userfaultfd', constants.R_OK | constants.W_OK);
    return undefined;
  } catch {
    // The system call is for those who have CAP_SYS_PTRACE, unless a container's filter takes it away.
    const fd = calls.uffd?.userfaultfd(0) ?? 0;
    if (fd > 0) calls.close(fd);
    return fd === -ERRNO.EPERM ? 'this process has no right to a userfaultfd' : undefined;
  }
}

/** The addon where this process may have a userfaultfd that tracks writes; else the test is skipped with the reason. */
export function trackingKernel(test: TestContext): KvmCalls {
  const calls = addon(test);
  const why = whyNoUserfaultfd(calls);
  if (why !== undefined) test.skip(why);
  return calls;
}

/** The same where it has KVM as well, and guests of x86_64 run. */
export function requireGuests(test: TestContext): void {
  trackingKernel(test);
  const { arch } = realKvm(test);
  if (arch !== 'x86_64') test.skip("the guest's machine code is for x86_64");
}

/** A user without rights, for a test that starts as root. */
export function requireRoot(test: TestContext): void {
  if (process.getuid?.() !== 0) test.skip('only root can become a user without rights');
}

const closedAfter = (test: TestContext, kvm: Kvm): Kvm => {
  test.onTestFinished(() => kvm.close());
  return kvm;
};

const emulated = (test: TestContext): Kvm => closedAfter(test, Kvm.open({ backend: 'emulated', arch: 'x86_64' }));

export const UFFD_KERNELS: readonly UffdKernel[] = [
  {
    name: 'the real kernel',
    isReal: true,
    callsOf: trackingKernel,
    kvmOf: (test) => {
      requireGuests(test);
      return closedAfter(test, Kvm.open({ backend: 'native' }));
    },
  },
  { name: 'the emulated kernel', isReal: false, callsOf: (test) => emulated(test).calls, kvmOf: emulated },
];
