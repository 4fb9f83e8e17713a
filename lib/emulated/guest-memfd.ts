import { ERRNO } from '../uapi/errno.ts';
import { FALLOC, GUEST_MEMFD_FLAG, MAP } from '../uapi/flags.ts';
import { type MapSource, MemoryBacking } from './backing.ts';
import type { EmulatedMemslot, GuestMemfdPages } from './memslots.ts';
import type { OpenFile } from './open-file.ts';

/** Pages that user space may not touch: behind every address is the end of the file. */
const NOT_SHARED = new MemoryBacking(0);

/**
 * A guest_memfd of a VM: the guest's private pages. From 6.18 on it can be mapped if it was made so; then all of the guest's accesses to
 * its slots go to its pages.
 */
export class EmulatedGuestMemfd<Vm> implements OpenFile, GuestMemfdPages {
  readonly kind = 'guest_memfd';
  readonly vm: Vm;
  readonly size: number;
  readonly bindings: { slot: EmulatedMemslot; start: number; end: number }[] = [];
  readonly backing: MemoryBacking;
  readonly mappable: boolean;
  closed = false;
  readonly #shared: boolean;
  /** A mapping holds the file, whatever becomes of the descriptor. */
  #mapped = false;
  readonly #pageSize: number;

  constructor(vm: Vm, size: number, flags: number, pageSize: number) {
    this.vm = vm;
    this.size = size;
    this.#pageSize = pageSize;
    this.mappable = (flags & GUEST_MEMFD_FLAG.MMAP) !== 0;
    this.backing = new MemoryBacking(size);
    this.#shared = (flags & GUEST_MEMFD_FLAG.INIT_SHARED) !== 0;
  }

  mmap(offset: number, flags: number): MapSource | number {
    if (!this.mappable) return -ERRNO.ENODEV;
    if ((flags & MAP.SHARED) === 0) return -ERRNO.EINVAL;
    this.#mapped = true;
    return { backing: this.#shared ? this.backing : NOT_SHARED, offset, guarded: true };
  }

  fallocate(mode: number, offset: number, length: number): number {
    if ((mode & FALLOC.KEEP_SIZE) === 0 || (mode & ~(FALLOC.KEEP_SIZE | FALLOC.PUNCH_HOLE)) !== 0) {
      return -ERRNO.EOPNOTSUPP;
    }
    if (offset % this.#pageSize !== 0 || length % this.#pageSize !== 0) return -ERRNO.EINVAL;
    if ((mode & FALLOC.PUNCH_HOLE) === 0) return offset + length > this.size ? -ERRNO.EINVAL : 0;
    // Behind the end there is nothing to be discarded.
    this.backing.discard(offset, Math.min(length, this.size - offset));
    return 0;
  }

  /** Its slots stay, with no pages behind them. */
  released(): void {
    this.closed = !this.#mapped;
  }
}
