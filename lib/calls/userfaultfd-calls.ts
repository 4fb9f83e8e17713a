import type { Hva, U64 } from '../base/u64.ts';
import { call, type Signature } from './signature.ts';

/**
 * userfaultfd(2), and PAGEMAP_SCAN, which goes with it. Messages are had by `read` and waited for by `poll`.
 *
 * Memory for which a userfaultfd is registered in a mode that makes its users wait is guarded from then on, as after `mprotect`: copies of pages
 * that this thread would have to wait for are −EAGAIN. So that it never waits for itself elsewhere, there is −EDEADLK while it serves any memory, for
 * `run`, `preFaultMemory`, `setSregs` of a guest with PAE paging, `memOp`, the keys of s390x and `vcpuFault`, for `madvise` that populates what is served, and for
 * every request by `ioctlUnchecked` that isn't known to leave the guest's memory alone.
 */
export interface UserfaultfdCalls {
  /**
   * USERFAULTFD_IOC_NEW of /dev/userfaultfd (6.1), or else userfaultfd(2): an fd, close-on-exec and non-blocking. `flags` is 0 or
   * UFFD_USER_MODE_ONLY, else −EINVAL. −EPERM without the right, −ENOSYS without CONFIG_USERFAULTFD.
   */
  userfaultfd(flags: number): number;
  /**
   * UFFDIO_API: the first call for each. `api` is [features, ioctls]: bits of UFFD_FEATURE that are wanted; those that there are, and
   * the requests, come back. −EINVAL for features that the kernel doesn't have, −EPERM for EVENT_FORK without CAP_SYS_PTRACE.
   */
  uffdApi(uffd: number, api: BigUint64Array): number;
  /**
   * UFFDIO_REGISTER of a range of whole pages inside one mapping of ours that is no reservation. `mode` is bits of
   * UFFDIO_REGISTER_MODE. −EINVAL before uffdApi, for memory of which the kernel can't do that (files), and for parts without memory; −EBUSY where another
   * userfaultfd has the mapping, and, as `mprotect`, while a view of it exists.
   */
  uffdRegister(uffd: number, hva: Hva, length: U64, mode: U64): number;
  /** UFFDIO_UNREGISTER: whoever waits finds what is there, zeros where nothing is. */
  uffdUnregister(uffd: number, hva: Hva, length: U64): number;
  /**
   * UFFDIO_COPY of whole pages to where they are missing, and wakes who waits: bytes copied. `mode` is bits of UFFDIO_COPY_MODE. −EEXIST where a page is
   * there, −ENOENT where no userfaultfd is registered, −EAGAIN while the mapping is being changed.
   */
  uffdCopy(uffd: number, hva: Hva, from: Uint8Array, mode: U64): number;
  /** UFFDIO_ZEROPAGE, likewise, of zeros: bytes. */
  uffdZeropage(uffd: number, hva: Hva, length: U64, mode: U64): number;
  /**
   * UFFDIO_WRITEPROTECT: with UFFDIO_WRITEPROTECT_MODE.WP stores to the pages are heard of, without it who waits goes on. −ENOENT where it isn't registered
   * in mode WP, −EINVAL for other bits.
   */
  uffdWriteprotect(uffd: number, hva: Hva, length: U64, mode: U64): number;
  /** UFFDIO_WAKE: who waits for the pages tries again. */
  uffdWake(uffd: number, hva: Hva, length: U64): number;
  /**
   * PAGEMAP_SCAN of /proc/self/pagemap (6.7), of a range inside one mapping of ours: the number of pages that are what is asked for, whose bits are
   * set in `bitmap` (one for each page, bit i of byte i >> 3); other bits stay. `flags` is bits of PM_SCAN, the masks are bits of PAGE_IS: all of
   * `mask` and one of `anyOf`, `inverted` meaning the opposite. −ENOTTY before 6.7, −EPERM with CHECK_WPASYNC where no WP_ASYNC is registered, −EFAULT where
   * the bitmap is too short.
   */
  pagemapScan(hva: Hva, length: U64, flags: number, inverted: U64, mask: U64, anyOf: U64, bitmap: Uint8Array): number;
}

const range = [
  ['uffd', 'fd'],
  ['hva', 'hva'],
  ['length', 'x64'],
] as const;

export const USERFAULTFD: Readonly<Record<keyof UserfaultfdCalls, Signature>> = {
  userfaultfd: call('userfaultfd', [['flags', 'x32']], { fd: 'uffd' }),
  uffdApi: call('ioctl(UFFDIO_API)', [
    ['uffd', 'fd'],
    ['api', 'inout64'],
  ]),
  uffdRegister: call('ioctl(UFFDIO_REGISTER)', [...range, ['mode', 'x64', 'UFFDIO_REGISTER_MODE']]),
  uffdUnregister: call('ioctl(UFFDIO_UNREGISTER)', range),
  uffdCopy: call('ioctl(UFFDIO_COPY)', [
    ['uffd', 'fd'],
    ['hva', 'hva'],
    ['from', 'in'],
    ['mode', 'x64'],
  ]),
  uffdZeropage: call('ioctl(UFFDIO_ZEROPAGE)', [...range, ['mode', 'x64']]),
  uffdWriteprotect: call('ioctl(UFFDIO_WRITEPROTECT)', [...range, ['mode', 'x64', 'UFFDIO_WRITEPROTECT_MODE']]),
  uffdWake: call('ioctl(UFFDIO_WAKE)', range),
  pagemapScan: call('ioctl(PAGEMAP_SCAN)', [
    ['hva', 'hva'],
    ['length', 'x64'],
    ['flags', 'x32'],
    ['inverted', 'x64'],
    ['mask', 'x64'],
    ['anyOf', 'x64'],
    ['bitmap', 'inout'],
  ]),
};
