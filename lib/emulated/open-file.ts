import { ERRNO } from '../uapi/errno.ts';
import { MAP, POLL } from '../uapi/flags.ts';
import { HUGE_PAGE, type MapSource, MemoryBacking, PrivateBacking } from './backing.ts';
import { PollQueue } from './poll.ts';

/**
 * What an emulated file descriptor stands for. An operation that a kind of file lacks is answered as the kernel's
 * VFS does: EINVAL for read and write, ENODEV for mmap.
 */
export interface OpenFile {
  readonly kind: 'kvm' | 'vm' | 'vcpu' | 'eventfd' | 'memfd' | 'guest_memfd' | 'htab' | 'userfaultfd';
  read?(into: Uint8Array): number;
  write?(from: Uint8Array): number;
  /** Its pages are huge ones: nothing else is mapped with MAP_HUGETLB. */
  readonly isHuge?: boolean;
  /** The memory that mmap at `offset` shows, or −errno. */
  mmap?(offset: number, flags: number, length: number): MapSource | number;
  /** fallocate(2) of what has pages to make or take away; the range has been looked at. */
  fallocate?(mode: number, offset: number, length: number): number;
  /** Those who wait for the descriptor; absent where that isn't possible. */
  readonly polled?: PollQueue;
  /** The last descriptor was closed. */
  released?(): void;
}

const COUNTER_MAX = 0xffff_ffff_ffff_fffen;

/** The irqfds of a VM, as an eventfd knows them that is one of them: KVM reads its counter as soon as it rises. */
interface IrqfdsOfVm {
  /** The eventfd's last descriptor was closed. */
  eventfdReleased(eventfd: EmulatedEventfd): void;
}

/** eventfd(2), non-blocking, in its plain counting mode. */
export class EmulatedEventfd implements OpenFile {
  readonly kind = 'eventfd';
  #count: bigint;
  readonly irqfds = new Set<IrqfdsOfVm>();
  readonly polled = new PollQueue(() => (this.#count > 0n ? POLL.IN : 0) | (this.#count < COUNTER_MAX ? POLL.OUT : 0));

  readonly #little: boolean;

  constructor(initial: number, littleEndian: boolean) {
    this.#count = BigInt(initial);
    this.#little = littleEndian;
  }

  get count(): bigint {
    return this.#count;
  }

  read(into: Uint8Array): number {
    if (into.length < 8) return -ERRNO.EINVAL;
    if (this.#count === 0n) return -ERRNO.EAGAIN;
    viewOf(into).setBigUint64(0, this.#count, this.#little);
    this.#count = 0n;
    this.polled.changed();
    return 8;
  }

  write(from: Uint8Array): number {
    if (from.length < 8) return -ERRNO.EINVAL;
    const value = viewOf(from).getBigUint64(0, this.#little);
    if (value > COUNTER_MAX) return -ERRNO.EINVAL;
    if (this.#count + value > COUNTER_MAX) return -ERRNO.EAGAIN;
    this.#raise(value);
    return 8;
  }

  /** What the kernel does when an ioeventfd matches. */
  signal(): void {
    this.#raise(this.#count < COUNTER_MAX ? 1n : 0n);
  }

  /** An irqfd ends, and takes with it what is counted (`eventfd_ctx_remove_wait_queue`). */
  irqfdEnded(irqfds: IrqfdsOfVm): void {
    this.irqfds.delete(irqfds);
    this.#count = 0n;
    this.polled.changed();
  }

  released(): void {
    for (const irqfds of this.irqfds) irqfds.eventfdReleased(this);
  }

  #raise(by: bigint): void {
    this.#count = this.irqfds.size > 0 ? 0n : this.#count + by;
    this.polled.changed();
  }
}

const MFD_HUGETLB = 4;

/** A memfd of fixed size. Its last page is there as a whole, and keeps what is written behind the end. */
export class EmulatedMemfd implements OpenFile {
  readonly kind = 'memfd';
  readonly isHuge: boolean;
  readonly #backing: MemoryBacking;

  constructor(size: number, flags: number, pageSize: number) {
    this.isHuge = (flags & MFD_HUGETLB) !== 0;
    const unit = this.isHuge ? HUGE_PAGE : pageSize;
    this.#backing = new MemoryBacking(Math.ceil(size / unit) * unit, unit);
  }

  /** Whether ftruncate gives it a size: below 2^63, and whole pages where they are huge. */
  static canHave(size: bigint, flags: number): boolean {
    return size < 1n << 63n && ((flags & MFD_HUGETLB) === 0 || size % BigInt(HUGE_PAGE) === 0n);
  }

  mmap(offset: number, flags: number): MapSource {
    const isPrivate = (flags & MAP.PRIVATE) !== 0;
    return { backing: isPrivate ? new PrivateBacking(this.#backing, this.#backing.unit) : this.#backing, offset };
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
