import { copyBytes, copyMemory } from '../../../base/copy-bytes.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import type { EmulatedVm } from '../../../emulated/vm.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { SEGMENT_SIZE } from '../model/dat-entries.ts';
import { type AbsoluteMemory, keyPermits, PGM_ADDRESSING, PGM_PROTECTION } from '../model/index.ts';
import { FrameCache, type FrameRun, placeIn } from './frame-cache.ts';
import type { PageStates } from './page-states.ts';

const PAGE = 4096;

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
    this.#frames = new FrameCache(vm);
  }

  readDoubleword(pfn: number, offset: number): number {
    const run = this.#frames.find(pfn);
    if (run === undefined) return this.#readSlowly(pfn, offset);
    const at = placeIn(run, pfn) + offset;
    this.hi = run.view.getUint32(at);
    this.lo = run.view.getUint32(at + 4);
    if (!run.touched) this.#touch(run);
    if (this.states.notesLoads) this.states.walked(run.slot, pfn);
    return 0;
  }

  /** Notes that bytes of a frame were moved. */
  #accessedIn(run: FrameRun, pfn: number, store: boolean): void {
    if (!run.touched) this.#touch(run);
    if (store || this.states.notesLoads) this.states.accessed(run.slot, pfn, store);
    if (store && !this.states.collectsStores) this.#vm.dirtyLog.mark(run.slot, pfn);
  }

  #makePageTable(run: FrameRun | undefined, slot: EmulatedMemslot, gfn: number): void {
    if (run === undefined) this.states.makePageTable(this.#vm.hostAddress(slot, gfn));
    else if (!run.touched) this.#touch(run);
  }

  #touch(run: FrameRun): void {
    run.touched = true;
    this.states.makePageTable(run.hva);
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
    this.states.makePageTable(hva);
    this.states.walked(slot, pfn);
    return 0;
  }

  #accessed(slot: EmulatedMemslot, gfn: number, hva: number, store: boolean): void {
    this.states.makePageTable(hva);
    this.states.accessed(slot, gfn, store);
  }

  /** The run with the frame, if its bytes are here and may be read. */
  readableRun(pfn: number): FrameRun | undefined {
    return this.#frames.find(pfn);
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

  /** Whether the host has a page there: somebody accessed it. */
  isResident(slot: EmulatedMemslot, gfn: number): boolean {
    return this.#vm.memory.served.isPresent(this.#vm.hostAddress(slot, gfn));
  }

  /** Frames from the page on that user space has mapped in one piece; 0 where there is nothing. */
  mappedFrames(slot: EmulatedMemslot, gfn: number): number {
    return Math.ceil(this.#vm.memory.mappedBytes(this.#vm.hostAddress(slot, gfn)) / PAGE);
  }

  /** Frames from the page on that share its segment of user space, and so a page table. */
  framesOfSegment(slot: EmulatedMemslot, gfn: number): number {
    return (SEGMENT_SIZE - (this.#vm.hostAddress(slot, gfn) % SEGMENT_SIZE)) / PAGE;
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
   * 7.0 KVM can't tell the two apart); −EFAULT for the latter from 7.0 on, which is looked at before the key.
   */
  permits(gfn: number, store: boolean, key: number): number {
    const run = this.#frames.find(gfn);
    const slot = run?.slot ?? this.#vm.usableSlot(gfn);
    if (slot === undefined) return PGM_ADDRESSING;
    const isThere =
      (run !== undefined && (!store || run.writable)) ||
      this.#vm.memory.canAccess(this.#vm.hostAddress(slot, gfn), store);
    if (!isThere && this.states.collectsStores) return -ERRNO.EFAULT;
    // What its mapping forbids faults nothing in; what the key forbids does.
    if (isThere) this.#makePageTable(run, slot, gfn);
    const permitted = key === 0 || keyPermits(key, this.states.key(slot, gfn), store);
    return isThere && permitted ? 0 : PGM_PROTECTION;
  }

  /**
   * Moves bytes between a part of one frame and `data[at .. at + length)`, whatever the key.
   * @returns 0; 5; −EFAULT where the host page is missing or may not be accessed that way.
   */
  move(gfn: number, offset: number, data: Uint8Array, at: number, length: number, store: boolean): number {
    const run = this.#frames.find(gfn);
    if (run === undefined || (store && !run.writable)) {
      return this.#moveSlowly(gfn, offset, data.subarray(at, at + length), store);
    }
    this.#copy(run, placeIn(run, gfn) + offset, data, at, length, store);
    this.#accessedIn(run, gfn, store);
    return 0;
  }

  /**
   * Moves bytes between frames that follow one another and `data[at .. at + length)`, whatever their keys.
   * @returns false, with nothing moved, if something stands in the way: frame by frame will tell what.
   */
  moveAcross(first: number, offset: number, data: Uint8Array, at: number, length: number, store: boolean): boolean {
    const end = first + Math.ceil((offset + length) / PAGE);
    for (let pfn = first; pfn < end; ) {
      const run = this.#frames.find(pfn);
      if (run === undefined || (store && !run.writable)) return false;
      pfn = run.end;
    }
    for (let pfn = first, done = 0; done < length; ) {
      const run = this.#frames.find(pfn)!;
      const from = done === 0 ? offset : 0;
      const count = Math.min((run.end - pfn) * PAGE - from, length - done);
      this.moveIn(run, pfn, from, data, at + done, count, store);
      done += count;
      pfn = run.end;
    }
    return true; // All of it is moved.
  }

  /** Moves bytes between the frame on, all in a run that lets them be moved so, and `data[at .. at + length)`; and notes it for each frame. */
  moveIn(
    run: FrameRun,
    pfn: number,
    offset: number,
    data: Uint8Array,
    at: number,
    length: number,
    store: boolean,
  ): void {
    this.#copy(run, placeIn(run, pfn) + offset, data, at, length, store);
    // Of each frame there is something to note where loads are, too.
    const frames = store || this.states.notesLoads ? (offset + length) / PAGE : 1;
    for (let gfn = pfn; gfn < pfn + frames; gfn++) this.#accessedIn(run, gfn, store);
  }

  #copy(run: FrameRun, place: number, data: Uint8Array, at: number, length: number, store: boolean): void {
    if (store) copyBytes(data, at, run.bytes, place, length);
    else copyMemory(run.bytes, place, data, at, length);
  }

  /** A page of a file, or none. */
  #moveSlowly(gfn: number, offset: number, part: Uint8Array, store: boolean): number {
    const slot = this.#vm.usableSlot(gfn);
    if (slot === undefined) return PGM_ADDRESSING;
    const { memory } = this.#vm;
    const hva = this.#vm.hostAddress(slot, gfn) + offset;
    if ((store ? memory.write(hva, part) : memory.read(hva, part)) !== part.length) return -ERRNO.EFAULT;
    this.#accessed(slot, gfn, hva, store);
    if (store && !this.states.collectsStores) this.#vm.dirtyLog.mark(slot, gfn);
    return 0;
  }
}
