import type { FailureInfo } from '../calls/failure.ts';
import { callError } from '../calls/failure.ts';
import { Handle } from '../calls/handle.ts';
import type { KvmCalls, UserfaultfdCalls } from '../calls/kvm-calls.ts';
import type { CallName } from '../calls/signatures.ts';
import { ERRNO } from '../uapi/errno.ts';
import { UFFD_FEATURE, UFFDIO_REGISTER_MODE } from '../uapi/userfaultfd.ts';

const NO_RIGHT =
  'this user may not open /dev/userfaultfd (or, before Linux 6.1, there is none), and vm.unprivileged_userfaultfd is 0: ' +
  'sudo setfacl -m u:"$USER":rw /dev/userfaultfd, or sudo sysctl vm.unprivileged_userfaultfd=1';

const NO_USERFAULTFD = 'this kernel was built without CONFIG_USERFAULTFD';
const NOT_EMULATED = 'the emulated kernel has no userfaultfd';

/** Since when there is what may be asked for, as far as anybody asks here. */
const SINCE: ReadonlyMap<number, string> = new Map([
  [UFFD_FEATURE.WP_ASYNC, 'WP_ASYNC needs Linux 6.7 or later on x86_64, 6.10 or later on aarch64'],
  [UFFD_FEATURE.MISSING_SHMEM, 'missing pages of shared memory need Linux 4.11 or later'],
]);

/** A userfaultfd, for memory of one mapping. What it is registered for ends with it, and who waits then goes on. */
export class UserFaultFd extends Handle {
  override readonly noun = 'the userfaultfd';
  readonly uffd: UserfaultfdCalls;

  /**
   * @param features bits of UFFD_FEATURE
   * @throws KvmError EPERM without the right; ENOSYS where the kernel has none; EINVAL where it lacks a feature
   */
  constructor(calls: KvmCalls, features: number) {
    const { uffd } = calls;
    if (uffd === undefined) throw callError('userfaultfd', ERRNO.ENOSYS, { explanation: NOT_EMULATED });
    const fd = uffd.userfaultfd(0);
    if (fd < 0) throw callError('userfaultfd', fd, { explanation: whyNone(fd) });
    super(calls, fd);
    this.uffd = uffd;
    const agreed = uffd.uffdApi(fd, new BigUint64Array([BigInt(features), 0n]));
    if (agreed >= 0) return;
    this.close();
    throw callError('uffdApi', agreed, { explanation: whyNotAgreed(agreed, features, calls) });
  }

  /** @throws KvmError EINVAL for memory that can't be registered, EBUSY */
  register(hva: number, size: number, mode: number, kind: string): void {
    const explanation = (errno: number) => whyNotRegistered(errno, mode, kind);
    this.require('uffdRegister', this.uffd.uffdRegister(this.fd, hva, size, mode), (errno) => ({
      size,
      explanation: explanation(errno),
    }));
  }

  /** The result of a call, or its error. */
  require(name: CallName, result: number, info?: (errno: number) => FailureInfo): number {
    return this.check(name, result, result < 0 ? info?.(result) : undefined);
  }
}

function whyNone(errno: number): string | undefined {
  if (errno === -ERRNO.EPERM || errno === -ERRNO.EACCES) return NO_RIGHT;
  return errno === -ERRNO.ENOSYS ? NO_USERFAULTFD : undefined;
}

function whyNotAgreed(errno: number, features: number, { release, arch }: KvmCalls): string | undefined {
  if (errno !== -ERRNO.EINVAL) return undefined;
  const needs = [...SINCE].filter(([feature]) => (features & feature) !== 0).map(([, since]) => since);
  return `${needs.join('; ')}; this is ${release} on ${arch}`;
}

function whyNotRegistered(errno: number, mode: number, kind: string): string | undefined {
  if (errno === -ERRNO.EBUSY) {
    const views =
      (mode & UFFDIO_REGISTER_MODE.MISSING) === 0
        ? ''
        : ', or a slice of the memory was handed out that the garbage collector has not taken yet: register memory before slices are made of it';
    return `another userfaultfd has this memory${views}`;
  }
  if (errno !== -ERRNO.EINVAL) return undefined;
  if (kind === 'reservation') return 'this is a reservation, in which memory comes and goes: map memory by itself';
  return `the kernel can't do that for ${kind} memory, or parts of it were unmapped or protected`;
}
