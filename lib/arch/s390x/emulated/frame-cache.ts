import type { EmulatedHostMemory } from '../../../emulated/host-memory.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import type { EmulatedVm } from '../../../emulated/vm.ts';
import { SEGMENT_PAGES } from '../model/dat-entries.ts';

const PAGE = 4096;
/** Runs that are remembered, by the lower bits of their segment's number; a power of two. */
const RUNS = 4096;

/** Frames of the guest that follow one another in the host's memory too, inside one of the host's segments of 1 MiB. */
export interface FrameRun {
  readonly first: number;
  /** The frame after the last one. */
  readonly end: number;
  readonly slot: EmulatedMemslot;
  /** The host's memory itself, not a copy; and the same for words. */
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Where in it the first frame is. */
  readonly start: number;
  readonly writable: boolean;
  /** Host virtual address of the first frame. */
  readonly hva: number;
  /** Something in it was accessed. */
  touched: boolean;
}

/** Where in its run's bytes a frame begins. */
export const placeIn = (run: FrameRun, pfn: number): number => run.start + (pfn - run.first) * PAGE;

/** No frame is in it. */
const NOTHING = new Uint8Array(0);
const NO_RUN = { first: 0, end: 0, bytes: NOTHING } as FrameRun;

/**
 * Where the bytes of a guest's frames are, for those that were asked for lately. It holds no content, only the way to
 * it: what the guest or the host stores is seen at once. Whenever slots, mappings or their protection change, all is forgotten.
 */
export class FrameCache {
  readonly #vm: EmulatedVm;
  readonly #memory: EmulatedHostMemory;
  readonly #runs: FrameRun[] = new Array<FrameRun>(RUNS).fill(NO_RUN);
  #generation: number;

  constructor(vm: EmulatedVm) {
    this.#vm = vm;
    this.#memory = vm.memory;
    this.#generation = vm.memory.generation;
    vm.onMemslotsChanged.add(() => this.#runs.fill(NO_RUN));
  }

  /** The run with the frame; undefined without a slot, without a host page, and for pages of files, whose bytes aren't here. */
  find(pfn: number): FrameRun | undefined {
    if (this.#generation !== this.#memory.generation) {
      this.#generation = this.#memory.generation;
      this.#runs.fill(NO_RUN);
    }
    const run = this.#runs[(pfn >>> 8) & (RUNS - 1)]!;
    // A buffer that user space gave away leaves an empty array behind.
    return pfn >= run.first && pfn < run.end && run.bytes.length !== 0 ? run : this.#look(pfn);
  }

  #look(pfn: number): FrameRun | undefined {
    const slot = this.#vm.usableSlot(pfn);
    if (slot === undefined) return undefined;
    const hva = this.#vm.hostAddress(slot, pfn);
    // From the segment's first frame if that is in one piece with this one, else from this one on.
    const before = Math.min(pfn - slot.baseGfn, Math.floor(hva / PAGE) % SEGMENT_PAGES);
    const run = this.#runFrom(slot, pfn - before, before) ?? this.#runFrom(slot, pfn, 0);
    if (run !== undefined) this.#runs[(pfn >>> 8) & (RUNS - 1)] = run;
    return run;
  }

  /** The run that begins with the frame, if it holds the one that comes `needed` frames later. */
  #runFrom(slot: EmulatedMemslot, first: number, needed: number): FrameRun | undefined {
    const hva = this.#vm.hostAddress(slot, first);
    const memory = this.#memory;
    const writable = memory.resolve(hva, true);
    // What may be written may be read.
    if (!memory.resolve(hva, false)) return undefined;
    const { bytes, at: start, available } = memory;
    const inSegment = SEGMENT_PAGES - (Math.floor(hva / PAGE) % SEGMENT_PAGES);
    const length = Math.min(inSegment, slot.baseGfn + slot.npages - first, Math.floor(available / PAGE));
    if (length <= needed) return undefined;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return { first, end: first + length, slot, bytes, view, start, writable, hva, touched: false };
  }
}
