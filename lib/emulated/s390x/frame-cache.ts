import type { HostMemory } from '../host-memory.ts';
import type { EmulatedMemslot } from '../memslots.ts';
import type { EmulatedVm } from '../vm.ts';

const PAGE = 4096;
/** Frames that are remembered, by the lower bits of their number; a power of two. */
const FRAMES = 4096;

/** A frame of the guest whose bytes are here. */
export interface Frame {
  readonly pfn: number;
  readonly slot: EmulatedMemslot;
  /** The page itself, not a copy. */
  readonly page: Uint8Array;
  readonly view: DataView;
  /** Where that is. */
  readonly buffer: ArrayBufferLike;
  readonly start: number;
  readonly readable: boolean;
  readonly writable: boolean;
}

/**
 * Where the bytes of a guest's frames are, for those that were asked for lately. It holds no content, only the way to
 * it: what the guest or the host stores is seen at once. Whenever slots, mappings or their protection change, all is forgotten.
 */
export class FrameCache {
  readonly #vm: EmulatedVm;
  readonly #memory: HostMemory;
  readonly #touched: (hva: number) => void;
  readonly #frames: (Frame | undefined)[] = new Array<Frame | undefined>(FRAMES).fill(undefined);
  #generation: number;

  /** @param touched hears of a page when it is first found. */
  constructor(vm: EmulatedVm, touched: (hva: number) => void) {
    this.#vm = vm;
    this.#memory = vm.memory;
    this.#touched = touched;
    this.#generation = vm.memory.generation;
    vm.onMemslotsChanged.add(() => this.#frames.fill(undefined));
  }

  /** The frame; undefined without a slot, without a host page, and for pages of files, whose bytes aren't here. */
  find(pfn: number): Frame | undefined {
    if (this.#generation !== this.#memory.generation) {
      this.#generation = this.#memory.generation;
      this.#frames.fill(undefined);
    }
    const frame = this.#frames[pfn & (FRAMES - 1)];
    // A buffer that user space gave away leaves an empty page behind.
    if (frame !== undefined && frame.pfn === pfn && frame.page.length !== 0) return frame;
    return this.#look(pfn);
  }

  #look(pfn: number): Frame | undefined {
    const slot = this.#vm.usableSlot(pfn);
    if (slot === undefined) return undefined;
    const hva = this.#vm.hostAddress(slot, pfn);
    const writable = this.#memory.resolve(hva, true);
    const readable = this.#memory.resolve(hva, false);
    if (!readable && !(writable && this.#memory.resolve(hva, true))) return undefined;
    const { bytes, at } = this.#memory;
    if (bytes.length - at < PAGE) return undefined;
    this.#touched(hva);
    const page = bytes.subarray(at, at + PAGE);
    const { buffer, byteOffset: start } = page;
    const view = new DataView(buffer, start, PAGE);
    const frame = { pfn, slot, page, view, buffer, start, readable, writable };
    this.#frames[pfn & (FRAMES - 1)] = frame;
    return frame;
  }
}
