/*
 * userfaultfd(2), which tells a VMM of its guest's first accesses to pages (uAPI `linux/userfaultfd.h`). Each constant with
 * the kernel it came with, where that is 5.7 or later; the requests' numbers are in requests.ts.
 */

/** Value of `uffdio_api.api`. */
export const UFFD_API = 0xaa;

/** Flags of userfaultfd(2) itself beside O_CLOEXEC and O_NONBLOCK. */
export const UFFD_USER_MODE_ONLY = 1;

/** Bits of `uffdio_api.features` (`UFFD_FEATURE_*`): asked for, and told. A bit that the kernel lacks makes UFFDIO_API fail with EINVAL. */
export const UFFD_FEATURE = {
  /** 5.7 */
  PAGEFAULT_FLAG_WP: 1 << 0,
  EVENT_FORK: 1 << 1,
  EVENT_REMAP: 1 << 2,
  EVENT_REMOVE: 1 << 3,
  MISSING_HUGETLBFS: 1 << 4,
  MISSING_SHMEM: 1 << 5,
  EVENT_UNMAP: 1 << 6,
  SIGBUS: 1 << 7,
  THREAD_ID: 1 << 8,
  /** 5.13 */
  MINOR_HUGETLBFS: 1 << 9,
  /** 5.14 */
  MINOR_SHMEM: 1 << 10,
  /** 5.18 */
  EXACT_ADDRESS: 1 << 11,
  /** 5.19 */
  WP_HUGETLBFS_SHMEM: 1 << 12,
  /** 6.4 */
  WP_UNPOPULATED: 1 << 13,
  /** 6.6 */
  POISON: 1 << 14,
  /** 6.7 */
  WP_ASYNC: 1 << 15,
  /** 6.8 */
  MOVE: 1 << 16,
  /** 7.3: pages that fault when they are next accessed, by a load too. */
  RWP: 1 << 17,
  /** 7.3: such faults are resolved by the kernel itself, and PAGEMAP_SCAN tells which pages had none. */
  RWP_ASYNC: 1 << 18,
} as const;

/** Bits of `uffdio_register.mode` (`UFFDIO_REGISTER_MODE_*`). */
export const UFFDIO_REGISTER_MODE = {
  MISSING: 1 << 0,
  /** 5.7 */
  WP: 1 << 1,
  /** 5.13 */
  MINOR: 1 << 2,
  /** 7.3 */
  RWP: 1 << 3,
} as const;

/** Bits of `uffdio_writeprotect.mode` (5.7). */
export const UFFDIO_WRITEPROTECT_MODE = { WP: 1, DONTWAKE: 2 } as const;

/** Bits of `uffdio_rwprotect.mode` (7.3); without RWP the protection is taken back. */
export const UFFDIO_RWPROTECT_MODE = { RWP: 1, DONTWAKE: 2 } as const;

/** Bits of `uffd_msg.arg.pagefault.flags` (`UFFD_PAGEFAULT_FLAG_*`). */
export const UFFD_PAGEFAULT_FLAG = {
  WRITE: 1 << 0,
  /** 5.7 */
  WP: 1 << 1,
  /** 5.13 */
  MINOR: 1 << 2,
  /** 7.3 */
  RWP: 1 << 3,
} as const;

/** Layout of `struct uffdio_api`: `features` go in, and what there is of them and of requests comes out. */
export const UFFDIO_API = { api: 0, features: 8, ioctls: 16, structSize: 24 } as const;

/** Layout of `struct uffdio_register`; `ioctls` comes out. */
export const UFFDIO_REGISTER = { start: 0, len: 8, mode: 16, ioctls: 24, structSize: 32 } as const;

/** Layout of `struct uffdio_writeprotect` (5.7). */
export const UFFDIO_WRITEPROTECT = { start: 0, len: 8, mode: 16, structSize: 24 } as const;

/** Layout of `struct uffdio_rwprotect` (7.3). */
export const UFFDIO_RWPROTECT = { start: 0, len: 8, mode: 16, structSize: 24 } as const;

/** Layout of `struct uffdio_set_mode` (7.3): features (only RWP_ASYNC) to turn on and off on an open userfaultfd. */
export const UFFDIO_SET_MODE = { enable: 0, disable: 8, structSize: 16 } as const;

/** Layout of `struct uffd_msg`, as far as it tells of faults; `event` is of UFFD_EVENT. */
export const UFFD_MSG = { event: 0, pagefault: { flags: 8, address: 16, ptid: 24 }, structSize: 32 } as const;

/** `uffd_msg.event` of a fault. The others come only where features ask for them. */
export const UFFD_EVENT_PAGEFAULT = 0x12;

/** Bits of `uffdio_copy.mode`. */
export const UFFDIO_COPY_MODE = {
  DONTWAKE: 1 << 0,
  /** 5.7: the page is protected at once. */
  WP: 1 << 1,
} as const;

/** Flags of PAGEMAP_SCAN (6.7, `PM_SCAN_*` of `linux/fs.h`). */
export const PM_SCAN = {
  /** Protects what it finds, in the same step. */
  WP_MATCHING: 1 << 0,
  /** EPERM where pages are not registered with WP_ASYNC. */
  CHECK_WPASYNC: 1 << 1,
} as const;

/** What PAGEMAP_SCAN knows of a page (6.7, `PAGE_IS_*`). */
export const PAGE_IS = {
  WPALLOWED: 1 << 0,
  WRITTEN: 1 << 1,
  FILE: 1 << 2,
  PRESENT: 1 << 3,
  SWAPPED: 1 << 4,
  PFNZERO: 1 << 5,
  HUGE: 1 << 6,
} as const;
