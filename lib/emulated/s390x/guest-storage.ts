import { type AbsoluteMemory, keyPermits, PGM_ADDRESSING, PGM_PROTECTION } from '../../s390x/index.ts';
import { ERRNO } from '../../uapi/errno.ts';
import type { EmulatedMemslot } from '../memslots.ts';
import type { EmulatedVm } from '../vm.ts';
import { type Frame, FrameCache } from './frame-cache.ts';
import type { PageStates } from './page-states.ts';

const PAGE = 4096;
/** What a page table of user space spans. */
const SEGMENT = 0x10_0000;

/** Absolute storage of a guest: what its memslots show of the process's memory. */
export class GuestStorage implements AbsoluteMemory {
  hi = 0;
  lo = 0;
  readonly states: PageStates;
  readonly #vm: EmulatedVm;
  readonly #frames: FrameCache;
  readonly #scratch = new Uint8Array(8);

  constructor(vm: EmulatedVm, states: PageStates) {
    this.#vm = vm;
    this.states = states;
    this.#frames = new FrameCache(vm, (hva) => states.makePageTable(hva));
  }

  readDoubleword(pfn: number, offset: number): number {
    const frame = this.#frames.find(pfn);
    if (frame === undefined || !frame.readable) return this.#readSlowly(pfn, offset);
    this.hi = frame.view.getUint32(offset);
    this.lo = frame.view.getUint32(offset + 4);
    this.states.accessed(frame.slot, pfn, false);
    return 0;
  }

  /** A page of a file, or none. */
  #readSlowly(pfn: number, offset: number): number {
    const slot = this.#vm.usableSlot(pfn);
    if (slot === undefined) return PGM_ADDRESSING;
    const hva = this.#vm.hostAddress(slot, pfn) + offset;
    if (this.#vm.memory.read(hva, this.#scratch) !== 8) return -ERRNO.EFAULT;
    const doubleword = new DataView(this.#scratch.buffer);
    this.hi = doubleword.getUint32(0);
    this.lo = doubleword.getUint32(4);
    this.#accessed(slot, pfn, hva, false);
    return 0;
  }

  #accessed(slot: EmulatedMemslot, gfn: number, hva: number, store: boolean): void {
    this.states.makePageTable(hva);
    this.states.accessed(slot, gfn, store);
  }

  hasFrame(pfn: number): boolean {
    return this.#frames.find(pfn) !== undefined || this.#vm.usableSlot(pfn) !== undefined;
  }

  slot(gfn: number): EmulatedMemslot | undefined {
    return this.#vm.usableSlot(gfn);
  }

  /** Whether user space has anything mapped where the slot's page should be, even if nobody may touch it. */
  isMapped(slot: EmulatedMemslot, gfn: number): boolean {
    return this.#vm.memory.isMapped(this.#vm.hostAddress(slot, gfn), 4096);
  }

  /** Frames from the page on that user space has mapped in one piece; 0 where there is nothing. */
  mappedFrames(slot: EmulatedMemslot, gfn: number): number {
    return Math.ceil(this.#vm.memory.mappedBytes(this.#vm.hostAddress(slot, gfn)) / PAGE);
  }

  /** Frames from the page on that share its segment of user space, and so a page table. */
  framesOfSegment(slot: EmulatedMemslot, gfn: number): number {
    return (SEGMENT - (this.#vm.hostAddress(slot, gfn) % SEGMENT)) / PAGE;
  }

  /** Whether there is a page table for the page; up to 6.19 that is where its key is. */
  hasPageTable(slot: EmulatedMemslot, gfn: number): boolean {
    const hva = this.#vm.hostAddress(slot, gfn);
    return this.states.hasPageTable(hva) || this.#vm.memory.isViewed(hva);
  }

  /** Makes the page present, if user space lets it be touched. */
  faultIn(slot: EmulatedMemslot, gfn: number, store: boolean): boolean {
    const hva = this.#vm.hostAddress(slot, gfn);
    if (!this.#vm.memory.canAccess(hva, store)) return false;
    this.states.makePageTable(hva);
    return true;
  }

  /** Whether user space lets the page be written. */
  canStore(slot: EmulatedMemslot, gfn: number): boolean {
    return this.#vm.memory.canAccess(this.#vm.hostAddress(slot, gfn), true);
  }

  /**
   * Whether the machine's move with an access key gets at the frame.
   * @returns 0; 5; 4 where the key forbids it, or the host page is missing or may not be accessed that way (before
   * 7.0 KVM can't tell the two apart); −EFAULT and −EOPNOTSUPP for the latter from 7.0 on.
   */
  permits(gfn: number, store: boolean, key: number): number {
    const frame = this.#frames.find(gfn);
    const slot = frame?.slot ?? this.#vm.usableSlot(gfn);
    if (slot === undefined) return PGM_ADDRESSING;
    if (key !== 0 && !keyPermits(key, this.states.key(slot, gfn), store)) return PGM_PROTECTION;
    if (frame !== undefined && (store ? frame.writable : frame.readable)) return 0;
    const hva = this.#vm.hostAddress(slot, gfn);
    return this.#vm.memory.canAccess(hva, store) ? 0 : this.#hostFault(hva, store);
  }

  /**
   * Moves bytes between a part of one frame and `data[at .. at + length)`, whatever the key.
   * @returns 0; 5; −EFAULT where the host page is missing or may not be accessed that way.
   */
  move(gfn: number, offset: number, data: Uint8Array, at: number, length: number, store: boolean): number {
    const frame = this.#frames.find(gfn);
    if (frame === undefined || !(store ? frame.writable : frame.readable)) {
      return this.#moveSlowly(gfn, offset, data.subarray(at, at + length), store);
    }
    if (store) copyBytes(data, at, frame.page, offset, length);
    else copyBytes(frame.page, offset, data, at, length);
    this.states.accessed(frame.slot, gfn, store);
    if (store) this.#vm.markDirty(frame.slot, gfn);
    return 0;
  }

  /**
   * Fetches `size` bytes from frames that follow one another in an access, the first from `offset` on. Those that are
   * neighbours in the host's memory are fetched at once.
   * @returns whether that was possible: otherwise nothing was fetched, and page by page will tell why.
   */
  fetchFrames(pfns: Float64Array, offset: number, data: Uint8Array, size: number): boolean {
    const count = Math.ceil((offset + size) / PAGE);
    for (let i = 0; i < count; i++) if (this.#frames.find(pfns[i]!)?.readable !== true) return false;
    let done = 0;
    for (let i = 0, at = offset; i < count; at = 0) {
      const first = this.#frames.find(pfns[i]!)!;
      let length = 0;
      do {
        this.states.accessed(first.slot, pfns[i]!, false);
        length += PAGE;
        i++;
      } while (i < count && isBehind(first, length, this.#frames.find(pfns[i]!)!));
      const part = Math.min(length - at, size - done);
      data.set(new Uint8Array(first.buffer, first.start + at, part), done);
      done += part;
    }
    return true;
  }

  /** A page of a file, or none. */
  #moveSlowly(gfn: number, offset: number, part: Uint8Array, store: boolean): number {
    const slot = this.#vm.usableSlot(gfn);
    if (slot === undefined) return PGM_ADDRESSING;
    const { memory } = this.#vm;
    const hva = this.#vm.hostAddress(slot, gfn) + offset;
    if ((store ? memory.write(hva, part) : memory.read(hva, part)) !== part.length) return -ERRNO.EFAULT;
    this.#accessed(slot, gfn, hva, store);
    if (store) this.#vm.markDirty(slot, gfn);
    return 0;
  }

  #hostFault(hva: number, store: boolean): number {
    if (!this.#vm.architecture.release.since(7, 0)) return PGM_PROTECTION;
    return store && this.#vm.memory.canAccess(hva, false) ? -ERRNO.EOPNOTSUPP : -ERRNO.EFAULT;
  }
}

/** Whether a frame comes right behind so many bytes of another, in the same slot. */
const isBehind = (first: Frame, length: number, next: Frame): boolean =>
  next.start === first.start + length && next.buffer === first.buffer && next.slot === first.slot;

/** Up to this many bytes a loop is cheaper than a view of the part and a call. */
const FEW_BYTES = 32;

function copyBytes(from: Uint8Array, fromAt: number, to: Uint8Array, toAt: number, length: number): void {
  if (length <= FEW_BYTES) for (let i = 0; i < length; i++) to[toAt + i] = from[fromAt + i]!;
  // Whole arrays go without a view.
  else to.set(length === from.length ? from : from.subarray(fromAt, fromAt + length), toAt);
}
