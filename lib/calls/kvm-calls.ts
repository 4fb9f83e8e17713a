import { checkObject } from '../base/arguments.ts';
import type { Hva, U64 } from '../base/u64.ts';
import type { Arch } from '../uapi/arch.ts';
import type { UserfaultfdCalls } from './userfaultfd-calls.ts';

export type { Hva, U64, UserfaultfdCalls };

/** Bytes of the largest view of a mapping: longer mappings are seen through several windows of this size. */
export const VIEW_WINDOW = 2 ** 30;

/**
 * Memory of the caller's that a call reads or fills, where C would pass a pointer. `null` is the null pointer.
 * When the array is shorter than what the kernel would touch, the kernel finds unmapped memory right behind it:
 * EFAULT in the kernel's own order of checks, and nothing else is touched.
 */
export type Bytes = Uint8Array | null;

/**
 * The system calls on KVM file descriptors and on the memory behind them, one method each, with plain values.
 *
 * Every method returns what the kernel returns: a number ≥ 0 (positive program-interruption codes of s390x
 * included), or −errno. Nothing is explained, retried or remembered here; that is the typed layer's work. The addon
 * is one implementation, {@link EmulatedKernel} the other; nothing above can tell them apart but by `backend`.
 *
 * File descriptors are real numbers, but only those that these calls returned are accepted: any other is −EBADF,
 * so that no call can close or drive a descriptor of somebody else's. A request on a descriptor of another kind is −ENOTTY, or
 * −EINVAL: what its kind's unknown requests get on the architecture. What isn't of a parameter's type at all throws: the addon
 * looks at its arguments itself, and in front of the emulated kernel `checked` (calls/checked.ts) does.
 *
 * Each call names its own errors; where a name is followed by architectures in brackets, it is theirs alone. For each of them
 * there is a recording from every kernel that has the call, or a line in docs/labs.md that says why not.
 */
export interface KvmCalls {
  readonly backend: 'native' | 'emulated';
  readonly arch: Arch;
  /** The kernel's release: what `uname -r` says on the real one, `6.12` or the like on an emulated one. */
  readonly release: string;
  /** Bytes of a host page: 4096, or 65536 on some ppc64 hosts. */
  readonly pageSize: number;

  // /dev/kvm and any fd

  /** open("/dev/kvm", O_RDWR | O_CLOEXEC): an fd; −ENOENT, −EACCES, −ENODEV, −EMFILE. */
  openKvm(): number;
  /** close(2). The descriptor is gone afterwards whatever the result; −EBADF when it was not ours. */
  close(fd: number): number;
  /** KVM_GET_API_VERSION: 12; −EINVAL when `arg` is not 0. */
  getApiVersion(kvm: number, arg: U64): number;
  /** KVM_CHECK_EXTENSION on the /dev/kvm fd or a VM fd: 0 = absent. */
  checkExtension(fd: number, cap: U64): number;
  /** KVM_CREATE_VM: a VM fd; −EINVAL for a type that the architecture doesn't have. riscv64 doesn't look at it. */
  createVm(kvm: number, type: U64): number;
  /** KVM_GET_VCPU_MMAP_SIZE in bytes; −EINVAL when `arg` is not 0. */
  getVcpuMmapSize(kvm: number, arg: U64): number;
  /**
   * KVM_ENABLE_CAP on a VM or vCPU fd; up to four arguments, absent ones are 0. −EINVAL for what cannot be turned on there, for flags
   * and for arguments that it doesn't know; −E2BIG (x86_64, aarch64, riscv64) for a dirty ring that is too large.
   */
  enableCap(fd: number, cap: number, flags: number, args: readonly U64[]): number;
  /**
   * KVM_CREATE_VCPU: a vCPU fd; −EINVAL for an id that is too large, −EEXIST (x86_64, s390x, aarch64, riscv64) for one that is taken,
   * which is −EINVAL on ppc64 too.
   */
  createVcpu(vm: number, id: U64): number;
  /**
   * Any ioctl on one of our fds, over a number (passed by value) or the caller's structure. Not checked: what the
   * request does with pointers inside the structure. A structure shorter than the request's size gives −EFAULT. −EPERM for the requests of
   * userfaultfd, which have calls of their own ({@link UserfaultfdCalls}), and for KVM_SET_SIGNAL_MASK, which every run sets for its thread.
   */
  ioctlUnchecked(fd: number, request: number, arg: U64 | Uint8Array): number;
  /**
   * read(2) from an fd of ours (eventfd, HTAB fd): bytes read. Of an eventfd −EAGAIN when its count is 0, −EINVAL for less than
   * 8 bytes; −EBADF for an HTAB fd that was opened to be written.
   */
  read(fd: number, into: Uint8Array): number;
  /**
   * write(2) to an fd of ours: bytes taken. Of an eventfd −EAGAIN when its count would become too large, −EINVAL for less than 8 bytes
   * or for 2^64 − 1. Of an HTAB fd −EBADF when it was opened to be read, −EINVAL for a chunk that is no whole one or not in the table,
   * −EIO (ppc64) for an entry that isn't valid, −EBUSY (ppc64) while a vCPU runs.
   */
  write(fd: number, from: Uint8Array): number;
  /**
   * poll(2) of an fd of ours (eventfd, socket), waited for by the event loop: resolves to those of `events` (POLL.IN, POLL.OUT)
   * that came true, or POLL.ERR. Who waits keeps the process alive. `events` 0 ends all waits for the fd: they resolve to 0.
   * Closing the fd resolves them to −EBADF, which is also what one that isn't ours gives. −EINVAL for other bits, −EPERM for an fd that is always ready (a memfd).
   */
  poll(fd: number, events: number): Promise<number>;

  // Memslots and dirty tracking (VM fd)

  /**
   * KVM_SET_USER_MEMORY_REGION: 0. −EINVAL for what isn't aligned, too large, or no address; for flags that the kernel doesn't have;
   * and for what a slot can't change: its size, its memory, whether it is read-only. −EEXIST where it would overlap another slot.
   * −EFAULT (riscv64) where it doesn't end below the highest guest physical address, −EPERM (riscv64) over memory that the process
   * may not write.
   */
  setUserMemoryRegion(vm: number, slot: number, flags: number, gpa: U64, size: U64, hva: Hva): number;
  /**
   * KVM_SET_USER_MEMORY_REGION2 (6.8+). `guestMemfd` is the raw u32 field, read only with MEM.GUEST_MEMFD. −EINVAL and −EEXIST as the
   * first version; with a guest_memfd also −EBADF (x86_64, aarch64) where there is no such fd, −EINVAL where it is none, or another
   * VM's, or too short, and for a range of it that has a slot already, which is −EEXIST from 7.0 on.
   */
  setUserMemoryRegion2(
    vm: number,
    slot: number,
    flags: number,
    gpa: U64,
    size: U64,
    hva: Hva,
    guestMemfd: number,
    guestMemfdOffset: U64,
  ): number;
  /**
   * KVM_GET_DIRTY_LOG: fills one bit per page, bit i of byte i >> 3 little-endian, in whole 8-byte words. −ENOENT for a slot that isn't
   * there or isn't logged, −EINVAL for a number that none can have, −EFAULT where the bitmap doesn't fit, −ENXIO (x86_64, aarch64, riscv64)
   * for a VM with dirty rings.
   */
  getDirtyLog(vm: number, slot: number, bitmap: Bytes): number;
  /**
   * KVM_CLEAR_DIRTY_LOG (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2; not on s390x and ppc64): clears the bits that are set in `bitmap`, whose
   * bit 0 is `firstPage`. −EINVAL for
   * pages that are no multiple of 64 or not the slot's; −ENOENT, −EFAULT and −ENXIO as GET_DIRTY_LOG.
   */
  clearDirtyLog(vm: number, slot: number, firstPage: U64, numPages: number, bitmap: Bytes): number;
  /** KVM_RESET_DIRTY_RINGS (not on s390x and ppc64): the number of entries given back; −EINVAL for a VM without rings. */
  resetDirtyRings(vm: number): number;
  /** KVM_CREATE_GUEST_MEMFD (x86_64 6.8+, aarch64 6.18+): an fd; −EINVAL for flags it doesn't know, and for a size of 0 or not of whole pages. */
  createGuestMemfd(vm: number, size: U64, flags: U64): number;
  /** KVM_SET_MEMORY_ATTRIBUTES (x86_64 6.8+): 0; −EINVAL for flags, for attributes that the VM's type doesn't have, and for no whole pages. */
  setMemoryAttributes(vm: number, address: U64, size: U64, attributes: U64, flags: U64): number;
  /**
   * KVM_PRE_FAULT_MEMORY on a vCPU fd (x86_64 6.11+, s390x 7.2+). `range` is [gpa, size], updated to what is left. −EINVAL for flags and
   * for no whole pages; −ENOENT where the first page is in no slot, −EFAULT where the host lacks it; −EOPNOTSUPP (x86_64) without
   * nested paging.
   */
  preFaultMemory(vcpu: number, range: BigUint64Array, flags: U64): number;

  // Device attributes (VM fd)

  /**
   * KVM_SET_DEVICE_ATTR; `value` is what the attribute's address points to. −ENXIO (s390x, aarch64) for one that isn't there; of
   * s390x's −EFAULT (s390x) without a value, −EINVAL (s390x), −EBUSY (s390x) once there are vCPUs, −E2BIG (s390x) for a memory limit
   * above the present one.
   */
  setDeviceAttr(fd: number, group: number, attr: U64, value: Bytes): number;
  /** KVM_GET_DEVICE_ATTR: 0; −ENXIO (s390x) for one that isn't there, −EFAULT (s390x) where the value doesn't fit. */
  getDeviceAttr(fd: number, group: number, attr: U64, value: Bytes): number;
  /** KVM_HAS_DEVICE_ATTR: 0, or −ENXIO (s390x, aarch64). */
  hasDeviceAttr(fd: number, group: number, attr: U64): number;

  // Eventfds and I/O buses (VM fd)

  /** eventfd(2), always close-on-exec and non-blocking: an fd. */
  eventfd(initial: number): number;
  /**
   * KVM_IOEVENTFD: 0. −EINVAL for a length or an end that cannot be, for flags it doesn't know and for what is no eventfd; −EBADF for no
   * descriptor at all; −EEXIST where one that matches is there; −ENOENT where the one to be taken away isn't.
   */
  ioeventfd(vm: number, addr: U64, len: number, fd: number, flags: number, datamatch: U64): number;
  /**
   * KVM_IRQFD: 0. −EINVAL for flags it doesn't know and for what is no eventfd, −EBADF for no descriptor at all, −EBUSY (x86_64, s390x,
   * riscv64) for an eventfd that has one, −EAGAIN (ppc64, aarch64) before the VM has an interrupt controller.
   */
  irqfd(vm: number, fd: number, gsi: number, flags: number, resamplefd: number): number;
  /** KVM_REGISTER_COALESCED_MMIO (x86_64, aarch64, riscv64): 0; −EINVAL for a `pio` that is neither 0 nor 1. */
  registerCoalescedMmio(vm: number, addr: U64, size: number, pio: number): number;
  /** KVM_UNREGISTER_COALESCED_MMIO: 0, also where there is no such zone; −EINVAL for a `pio` that is neither 0 nor 1. */
  unregisterCoalescedMmio(vm: number, addr: U64, size: number, pio: number): number;
  /**
   * KVM_CREATE_IRQCHIP (x86_64, s390x, aarch64): 0. −EEXIST (x86_64) when there is one, −EINVAL (x86_64, s390x) after the first vCPU and
   * before ENABLE_CAP(S390_IRQCHIP), −ENODEV (aarch64) on a host whose GIC has no version 2.
   */
  createIrqchip(vm: number): number;

  // vCPUs (vCPU fd)

  /**
   * KVM_RUN on the calling thread. Returns 0 with kvm_run filled, or −errno. With `timeoutMs` > 0 a run that long is
   * interrupted: −EINTR. A worker that is being terminated gets out of it too. −EFAULT for memory that the host lacks, −EBUSY while
   * it runs already, −ENOEXEC (aarch64) before KVM_ARM_VCPU_INIT.
   */
  run(vcpu: number, timeoutMs: number): number;
  /**
   * KVM_RUN on the vCPU's own thread; resolves to what {@link run} would return, −EINTR after a {@link kick}. Until then every other call on this
   * vCPU but {@link kick} is −EBUSY: the kernel would make the caller wait, who is the one to kick it.
   */
  runAsync(vcpu: number): Promise<number>;
  /** Sets kvm_run.immediate_exit and signals the thread inside KVM_RUN: that run, or the next one, is interrupted. */
  kick(vcpu: number): number;
  /**
   * Ends a run on the vCPU's own thread, and waits until nobody is in the guest: 0. Its promise resolves later, as ever, and no kick is
   * left over for another run. −EBUSY when the guest has not left within a second; it is on its way out then.
   */
  stop(vcpu: number): number;
  /**
   * KVM_GET_REGS into a structure of the architecture's size (uapi REGS_SIZE), in host byte order: 0; −EFAULT (x86_64, s390x, ppc64)
   * where it doesn't fit, −EINVAL (aarch64, riscv64) where registers are got one by one.
   */
  getRegs(vcpu: number, regs: Bytes): number;
  /** KVM_SET_REGS, likewise: −EFAULT (x86_64, s390x, ppc64), −EINVAL (riscv64). */
  setRegs(vcpu: number, regs: Bytes): number;
  /** KVM_GET_SREGS: −EFAULT (x86_64, s390x, ppc64), −EINVAL (aarch64, riscv64). */
  getSregs(vcpu: number, sregs: Bytes): number;
  /**
   * KVM_SET_SREGS: −EFAULT (x86_64, s390x, ppc64); −EINVAL (x86_64, ppc64, aarch64, riscv64), also for control bits that don't go together
   * and for another processor than the host's.
   */
  setSregs(vcpu: number, sregs: Bytes): number;
  /**
   * KVM_GET_ONE_REG; the size of `value` must be the one that the id encodes (2^((id >> 52) & 15) bytes), else −EFAULT. −EINVAL (x86_64,
   * s390x, ppc64, aarch64) or −ENOENT (riscv64) for what is no register, −ENOEXEC (aarch64) before KVM_ARM_VCPU_INIT.
   */
  getOneReg(vcpu: number, id: U64, value: Bytes): number;
  /** KVM_SET_ONE_REG: −EFAULT, −EINVAL (x86_64, s390x, ppc64, aarch64), −ENOENT (riscv64), −ENOEXEC (aarch64). */
  setOneReg(vcpu: number, id: U64, value: Bytes): number;
  /** KVM_GET_MP_STATE: the state itself (≥ 0); −EINVAL (ppc64), which has none. */
  getMpState(vcpu: number): number;
  /** KVM_SET_MP_STATE: 0; −EINVAL (x86_64, ppc64, aarch64, riscv64) or −ENXIO (s390x) for a state that there isn't. */
  setMpState(vcpu: number, state: number): number;

  // Host memory

  /**
   * mmap(2): a host virtual address, a multiple of `align` (0 = the page size) plus `alignOffset`.
   * `fd` −1 is anonymous memory; a memfd, a vCPU (kvm_run; the dirty ring at page offset 64), or a file's or device's
   * descriptor otherwise. Whatever lies behind the end is inaccessible. Anonymous memory with PROT.NONE is a
   * reservation: addresses without memory, into which {@link mmapFixed} puts some. −EINVAL for no length and for flags that are neither
   * SHARED nor PRIVATE, −EBADF for no descriptor, −ENODEV for one that has no memory.
   */
  mmap(length: U64, prot: number, flags: number, fd: number, offset: U64, align: U64, alignOffset: U64): number;
  /**
   * mmap(2) with MAP_FIXED inside a reservation: page-aligned addresses of it show other memory from now on, whatever
   * was there. With PROT.NONE and no descriptor there is nothing again. 0; −EINVAL where the range isn't inside one
   * reservation of ours, −EBADF and −ENODEV as {@link mmap}. When it fails, what was there stays.
   */
  mmapFixed(hva: Hva, length: U64, prot: number, flags: number, fd: number, offset: U64): number;
  /**
   * munmap(2) of a whole mapping, or of page-aligned parts of it (which stay reserved, but fault).
   * Every view of it is detached first; −EINVAL where the range isn't inside one mapping of ours.
   */
  munmap(hva: Hva, length: U64): number;
  /**
   * mprotect(2) inside a mapping of ours, else −EINVAL; −ENOMEM for a part that has no memory. Windows of it are detached, and there are none any more: read and write by
   * calls. −EBUSY while a {@link view} of it exists that the collector has not taken: somebody may be using it.
   */
  mprotect(hva: Hva, length: U64, prot: number): number;
  /**
   * madvise(2) inside a mapping of ours; the advices of uapi MADV, else −EINVAL, also where what is to be populated may not be accessed; −ENOMEM for a part that has no memory;
   * −EFAULT where pages beyond the end of a file are to be populated. −EBUSY where huge pages would go while a
   * {@link view} of them exists.
   */
  madvise(hva: Hva, length: U64, advice: number): number;
  /**
   * fallocate(2) of a guest_memfd (6.8): with KEEP_SIZE pages of a range become present, with PUNCH_HOLE besides they go, and are zeros when the guest
   * touches them again. −EOPNOTSUPP for other modes and for a memfd of {@link memfdCreate}, whose pages go by {@link madvise}; −EINVAL (x86_64, aarch64) for a range that isn't one of whole pages
   * inside the file; −ENODEV for other descriptors, −EBADF for none.
   */
  fallocate(fd: number, mode: number, offset: U64, length: U64): number;
  /** memfd_create(2), sized and sealed against shrinking: an fd; −EINVAL for flags it doesn't know. */
  memfdCreate(name: string, size: U64, flags: number): number;
  /**
   * The memory itself as an ArrayBuffer, or −errno: −EINVAL when the range isn't one window of a mapping of ours
   * (from a multiple of {@link VIEW_WINDOW} after its start, to the window's or the mapping's end); −EACCES when
   * touching it could fault (files, devices, protected or unmapped parts): use the copies then.
   * It is detached when the mapping goes. The addresses stay taken until the collector has taken the ArrayBuffer, since
   * a thread of Node's (fs.read, crypto, zlib) may still be writing there: it finds zeroes of its own.
   */
  view(hva: Hva, length: number): ArrayBufferLike | number;
  /**
   * The same for the caller alone, −EINVAL and −EACCES included: another ArrayBuffer than anybody else's: it must not be given to calls of Node's that
   * work in other threads. Where {@link view} would keep {@link mprotect} from its work, this one is detached.
   */
  window(hva: Hva, length: number): ArrayBufferLike | number;
  /**
   * The memory of any range of at most {@link VIEW_WINDOW} bytes inside one mapping, which only {@link vunmap} and the end of
   * the mapping take away; −EACCES and −EINVAL as for {@link view}, and on an emulated kernel −EACCES across a window's end.
   */
  vmap(hva: Hva, length: number): Uint8Array | number;
  /**
   * Detaches what {@link vmap} gave; nothing happens when it is detached already. −EINVAL for other arrays. An emulated
   * kernel detaches all arrays over that window of the mapping with it: they must be asked for again.
   */
  vunmap(bytes: Uint8Array): number;
  /**
   * Copies out of mapped memory, never faulting: bytes copied (fewer where memory stops being readable), −EFAULT when none. −EAGAIN when
   * this thread would have to wait for itself: a userfaultfd of ours is to bring the first page, which isn't there.
   */
  readMemory(hva: Hva, into: Uint8Array): number;
  /** Copies into mapped memory, likewise; −EFAULT, −EAGAIN also where a userfaultfd of ours hears of stores to the page. */
  writeMemory(hva: Hva, from: Uint8Array): number;
  /**
   * Gathers many small pieces: piece i is `lengths[i]` bytes at `hvas[i]`, back to back in `into`. The number of
   * pieces copied; stops before the first that isn't wholly inside a mapping of ours.
   */
  gather(hvas: Float64Array, lengths: Uint32Array, into: Uint8Array): number;
  /** Scatters them likewise. */
  scatter(hvas: Float64Array, lengths: Uint32Array, from: Uint8Array): number;

  // The architectures' own calls: present only where the architecture has them

  readonly x86_64?: X86_64Calls;
  readonly s390x?: S390xCalls;
  readonly ppc64?: Ppc64Calls;

  /** What is shared with other processes; only the addon has it. */
  readonly sharing?: SharingCalls;

  /** userfaultfd(2); absent where nobody can have it. */
  readonly uffd?: UserfaultfdCalls;
}

/**
 * Descriptors that come from other processes and go to them. All that is received or made is ours, close-on-exec, and
 * sockets are non-blocking. `type` is SOCK.STREAM or SOCK.SEQPACKET.
 */
export interface SharingCalls {
  /** socketpair(2): 0, and the two fds in `fds`. Neither is left when it fails. */
  socketPair(type: number, fds: Int32Array): number;
  /** socket, bind and listen at a path of at most 107 bytes: an fd; −EADDRINUSE, −ENAMETOOLONG. */
  socketListen(path: string, type: number, backlog: number): number;
  /** socket and connect: an fd; −ECONNREFUSED, −ENOENT, −EAGAIN when the listener has as many waiting as it takes. */
  socketConnect(path: string, type: number): number;
  /** accept4(2): an fd; −EAGAIN when nobody waits. */
  socketAccept(listener: number): number;
  /**
   * sendmsg(2) with at most 253 descriptors, which may be anybody's: the bytes taken. The descriptors went with the first of
   * them. −EAGAIN, −EPIPE; −EINVAL for descriptors without a byte.
   */
  sendMessage(socket: number, bytes: Uint8Array, fds: Int32Array): number;
  /**
   * recvmsg(2): the bytes, 0 at the end; −EAGAIN, −ECONNRESET. What descriptors came with them is in `fds`, followed by −1;
   * those for which it has no room are closed. −EMFILE when some could not be received, −ENOMEM when the addon has no memory for
   * one, −EPERM when one is of a VM or vCPU (then all are closed); −EMSGSIZE for a SEQPACKET message longer than `into`.
   */
  receiveMessage(socket: number, into: Uint8Array, fds: Int32Array): number;
  /** SO_PEERCRED: 0, and the peer's pid, uid and gid. */
  peerCredentials(socket: number, into: Uint32Array): number;
  /**
   * F_DUPFD_CLOEXEC: an fd of ours for what any descriptor of the process names. That of a vCPU which the addon made, in whichever
   * thread, may be used until it is closed, and no other for that vCPU: −EBUSY, but for kick. −EBUSY for a vCPU that runs, or has one already.
   * −EPERM for other descriptors of a VM or vCPU, about which nothing is known here.
   */
  duplicate(fd: number): number;
  /** F_GET_SEALS: bits of SEAL; −EINVAL for what has none. */
  getSeals(fd: number): number;
  /** F_ADD_SEALS. */
  addSeals(fd: number, seals: number): number;
  /** An fd for the same file with an open file description of its own, for reading and writing. */
  reopen(fd: number): number;
  /** F_OFD_SETLK for writing, of a range of bytes: 0; −EAGAIN when another open file description has it. */
  lockRange(fd: number, start: U64, length: U64): number;
  /** F_OFD_SETLK: takes back what {@link lockRange} locked through the same open file description. */
  unlockRange(fd: number, start: U64, length: U64): number;
  /** F_OFD_GETLK: 1 when another open file description has a lock in the range, else 0. */
  isLocked(fd: number, start: U64, length: U64): number;
}

/** What calls say of their host, without the calls. */
export function hostOf(calls: KvmCalls): Pick<KvmCalls, 'backend' | 'arch' | 'release' | 'pageSize'> {
  const { backend, arch, release, pageSize } = checkObject(calls, 'calls');
  return { backend, arch, release, pageSize };
}

/** Calls that only x86_64 has. */
export interface X86_64Calls {
  /** KVM_SET_TSS_ADDR (VM fd): 0; −EINVAL where three pages don't fit below 4 GiB. */
  setTssAddr(vm: number, addr: U64): number;
  /** KVM_SET_IDENTITY_MAP_ADDR (VM fd): 0; −EINVAL after the first vCPU. */
  setIdentityMapAddr(vm: number, addr: U64): number;
}

/** Calls that only s390x has. */
export interface S390xCalls {
  /**
   * KVM_S390_MEM_OP on a vCPU fd (logical, SIDA) or VM fd (absolute): 0, −errno, or a positive program-interruption
   * code. `buf` is filled or read according to `op`; `oldValue` only by compare-exchange. −EINVAL for an operation that the descriptor
   * doesn't have, for flags, keys and access registers that there aren't, and for a size of 0; −E2BIG for a size that is too large;
   * −EFAULT for a buffer that doesn't fit and for memory that the host lacks.
   */
  memOp(
    fd: number,
    op: number,
    gaddr: U64,
    size: number,
    flags: U64,
    buf: Bytes,
    ar: number,
    key: number,
    oldValue: Bytes,
    sidaOffset: number,
  ): number;
  /**
   * KVM_S390_GET_SKEYS: 0, or 1 when the guest uses no keys. One byte per page in `keys`. −EINVAL for flags, and for a count of 0 or above
   * 1048576; −EFAULT for keys that don't fit, and for a page in no slot.
   */
  getSkeys(vm: number, startGfn: U64, count: U64, flags: number, keys: Bytes): number;
  /** KVM_S390_SET_SKEYS: 0; −EINVAL and −EFAULT likewise, and −EINVAL for a key with its lowest bit set. */
  setSkeys(vm: number, startGfn: U64, count: U64, flags: number, keys: Bytes): number;
  /** KVM_S390_KEYOP (7.0+): `key` is one byte, in and out. −EINVAL for an operation that there isn't, −EFAULT for a page in no slot. */
  keyOp(vm: number, guestAddr: U64, operation: number, key: Uint8Array): number;
  /**
   * KVM_S390_GET_CMMA_BITS. `log` is [start_gfn, count, remaining], updated. −ENXIO where CMMA isn't enabled, −EINVAL for flags it doesn't know
   * and without migration mode, −EFAULT for values that don't fit or a page in no slot.
   */
  getCmmaBits(vm: number, log: BigUint64Array, flags: number, values: Bytes): number;
  /** KVM_S390_SET_CMMA_BITS: 0; −ENXIO where CMMA isn't enabled, −EINVAL for flags and a count that is too large, −EFAULT likewise. */
  setCmmaBits(vm: number, startGfn: U64, count: number, flags: number, mask: U64, values: Bytes): number;
  /** KVM_S390_UCAS_MAP (vCPU fd of a ucontrol VM). */
  ucasMap(vcpu: number, userAddr: U64, vcpuAddr: U64, length: U64): number;
  ucasUnmap(vcpu: number, userAddr: U64, vcpuAddr: U64, length: U64): number;
  /** KVM_S390_VCPU_FAULT: 0; −EFAULT for a page in no slot, and for memory that the host lacks. */
  vcpuFault(vcpu: number, addr: U64): number;
  /** KVM_S390_INITIAL_RESET, _NORMAL_RESET, _CLEAR_RESET. */
  initialReset(vcpu: number): number;
  normalReset(vcpu: number): number;
  clearReset(vcpu: number): number;
  /** KVM_S390_SET_INITIAL_PSW; −EBUSY unless the vCPU is stopped. */
  setInitialPsw(vcpu: number, mask: U64, addr: U64): number;
}

/** Calls that only ppc64 (Book3S HV) has. */
export interface Ppc64Calls {
  /**
   * KVM_PPC_ALLOCATE_HTAB: 0. −EINVAL for an order that no table has; order 0 is never sent, since it oopses known kernels. −EBUSY while a
   * vCPU runs.
   */
  allocateHtab(vm: number, order: number): number;
  /** KVM_PPC_GET_HTAB_FD: an fd for `read` and `write`; −EINVAL for flags it doesn't know. */
  getHtabFd(vm: number, flags: U64, startIndex: U64): number;
  /** KVM_PPC_RESIZE_HPT_PREPARE: 0 = ready, > 0 = milliseconds to wait; −EINVAL for flags, an order that no table has, and a radix guest. */
  resizeHptPrepare(vm: number, flags: U64, shift: number): number;
  /** KVM_PPC_RESIZE_HPT_COMMIT: 0; −EINVAL likewise, −EIO for a table that isn't in use yet, −ENXIO for an order that isn't prepared, −ENOSPC where bolted entries collide. */
  resizeHptCommit(vm: number, flags: U64, shift: number): number;
  /** KVM_PPC_GET_SMMU_INFO into a 592-byte structure: 0; −EFAULT where it doesn't fit. */
  getSmmuInfo(vm: number, info: Bytes): number;
  /** KVM_PPC_CONFIGURE_V3_MMU: 0; −EINVAL for flags and a table that don't fit the host's MMU, −EBUSY while a vCPU runs. */
  configureV3Mmu(vm: number, flags: U64, processTable: U64): number;
}
