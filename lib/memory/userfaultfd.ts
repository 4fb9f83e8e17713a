import type { FailureInfo } from '../calls/failure.ts';
import { callError } from '../calls/failure.ts';
import { Handle } from '../calls/handle.ts';
import type { KvmCalls, UserfaultfdCalls } from '../calls/kvm-calls.ts';
import type { CallName } from '../calls/signatures.ts';
import { isLittleEndianHost } from '../uapi/arch.ts';
import { ERRNO } from '../uapi/errno.ts';
import { POLL } from '../uapi/flags.ts';
import { UFFD_EVENT_PAGEFAULT, UFFD_FEATURE, UFFD_MSG, UFFD_PAGEFAULT_FLAG } from '../uapi/userfaultfd.ts';

const NO_RIGHT =
  'this user may not open /dev/userfaultfd (or, before Linux 6.1, there is none), and vm.unprivileged_userfaultfd is 0: ' +
  'sudo setfacl -m u:"$USER":rw /dev/userfaultfd, or sudo sysctl vm.unprivileged_userfaultfd=1';

const NO_USERFAULTFD = 'this kernel was built without CONFIG_USERFAULTFD';
const NOT_EMULATED = 'the emulated kernel has no userfaultfd';

/** Since when there is what may be asked for, as far as anybody asks here. */
const SINCE: ReadonlyMap<number, string> = new Map([
  [UFFD_FEATURE.WP_ASYNC, 'WP_ASYNC needs Linux 6.7 or later on x86_64, 6.10 or later on aarch64'],
  [UFFD_FEATURE.PAGEFAULT_FLAG_WP, 'protected pages need Linux 5.7 or later on x86_64, 6.10 or later on aarch64'],
  [UFFD_FEATURE.WP_HUGETLBFS_SHMEM, 'those of shared memory 5.19'],
  [UFFD_FEATURE.WP_UNPOPULATED, 'those that were never touched 6.4'],
  [UFFD_FEATURE.MISSING_SHMEM, 'missing pages of shared memory need Linux 4.11 or later'],
]);

/** What `struct uffd_msg` says of a fault. */
export interface PageFault {
  readonly hva: number;
  readonly write: boolean;
  /** The page is there, and may not be written. */
  readonly protected: boolean;
}

/** A userfaultfd, for memory of one mapping. What it is registered for ends with it, and who waits then goes on. */
export class UserFaultFd extends Handle {
  override readonly noun = 'the userfaultfd';
  readonly uffd: UserfaultfdCalls;
  /** Whether those who access the memory may have to wait for us. */
  readonly #makesWait: boolean;
  readonly #messages = new Uint8Array(16 * UFFD_MSG.structSize);
  readonly #view = new DataView(this.#messages.buffer);

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
    this.#makesWait = (features & UFFD_FEATURE.WP_ASYNC) === 0;
    const agreed = uffd.uffdApi(fd, new BigUint64Array([BigInt(features), 0n]));
    if (agreed >= 0) return;
    this.close();
    throw callError('uffdApi', agreed, { explanation: whyNotAgreed(agreed, features, calls) });
  }

  /** @throws KvmError EINVAL for memory that can't be registered, EBUSY */
  register(hva: number, size: number, mode: number, kind: string): void {
    this.require('uffdRegister', this.uffd.uffdRegister(this.fd, hva, size, mode), (errno) => ({
      size,
      explanation: whyNotRegistered(errno, kind, this.#makesWait),
    }));
  }

  /** Waits for faults, and gives those that there are. @throws KvmError EBADF once it is closed */
  async faults(): Promise<PageFault[]> {
    for (;;) {
      await this.untilReady(POLL.IN);
      const result = this.calls.read(this.fd, this.#messages);
      // Another thread's store, say, was over before we came.
      if (result === -ERRNO.EAGAIN) continue;
      return this.#parse(this.check('read', result));
    }
  }

  #parse(length: number): PageFault[] {
    const { event, pagefault, structSize } = UFFD_MSG;
    const little = isLittleEndianHost(this.calls.arch);
    const faults: PageFault[] = [];
    for (let at = 0; at < length; at += structSize) {
      if (this.#view.getUint8(at + event) !== UFFD_EVENT_PAGEFAULT) continue;
      const flags = Number(this.#view.getBigUint64(at + pagefault.flags, little));
      faults.push({
        hva: Number(this.#view.getBigUint64(at + pagefault.address, little)),
        write: (flags & UFFD_PAGEFAULT_FLAG.WRITE) !== 0,
        protected: (flags & UFFD_PAGEFAULT_FLAG.WP) !== 0,
      });
    }
    return faults;
  }

  /** The result of a call, or its error. */
  require(name: CallName, result: number, info?: (errno: number) => FailureInfo): number {
    // Pages are brought by the thousand: nothing is made for what succeeds.
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

function whyNotRegistered(errno: number, kind: string, makesWait: boolean): string | undefined {
  if (errno === -ERRNO.EBUSY) {
    const views =
      'a slice of it was handed out that the garbage collector has not taken yet: begin before slices are made';
    return `another userfaultfd has this memory${makesWait ? `, or ${views}` : ''}`;
  }
  if (errno === -ERRNO.ENOENT) return '/proc/self/pagemap, which says what a store would wait for, is not there';
  if (errno !== -ERRNO.EINVAL) return undefined;
  if (kind === 'reservation') return 'this is a reservation, in which memory comes and goes: map memory by itself';
  return `the kernel can't do that for ${kind} memory, or parts of it were unmapped or protected`;
}
