import { ERRNO } from '../uapi/errno.ts';
import { GUEST_MEMFD_FLAG, MAP } from '../uapi/flags.ts';
import { type MapSource, MemoryBacking } from './backing.ts';
import type { EmulatedMemslot, GuestMemfdPages } from './memslots.ts';
import type { OpenFile } from './open-file.ts';

/** Pages that user space may not touch: behind every address is the end of the file. */
const NOT_SHARED = new MemoryBacking(0);

/** A guest_memfd of a VM. From 6.18 on it can be mapped if it was made so; the guest's accesses then go to its pages. */
export class EmulatedGuestMemfd<Vm> implements OpenFile, GuestMemfdPages {
  readonly kind = 'guest_memfd';
  readonly vm: Vm;
  readonly size: number;
  readonly bindings: { slot: EmulatedMemslot; start: number; end: number }[] = [];
  readonly backing: MemoryBacking | undefined;
  readonly #shared: boolean;

  constructor(vm: Vm, size: number, flags: number) {
    this.vm = vm;
    this.size = size;
    if ((flags & GUEST_MEMFD_FLAG.MMAP) !== 0) this.backing = new MemoryBacking(size);
    this.#shared = (flags & GUEST_MEMFD_FLAG.INIT_SHARED) !== 0;
  }

  mmap(offset: number, _length: number, flags: number): MapSource | number {
    if (this.backing === undefined) return -ERRNO.ENODEV;
    if ((flags & MAP.SHARED) === 0) return -ERRNO.EINVAL;
    return { backing: this.#shared ? this.backing : NOT_SHARED, offset, guarded: true };
  }
}
