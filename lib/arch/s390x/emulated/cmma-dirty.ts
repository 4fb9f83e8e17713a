import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import { SEGMENT_PAGES } from '../model/dat-entries.ts';

/** Which pages of a VM's slots are CMMA-dirty, in migration mode. */
export class CmmaDirty {
  #bits = new WeakMap<EmulatedMemslot, Uint8Array>();
  /** Dirty pages in all. */
  count = 0;

  /** Marks the pages of the slots whose values have a place: `kept` says it of a frame, and so of its segment. */
  fill(slots: Iterable<EmulatedMemslot>, kept: (gfn: number) => boolean): void {
    this.clear();
    for (const slot of slots) {
      const bits = new Uint8Array(slot.npages);
      const end = slot.baseGfn + slot.npages;
      for (let gfn = slot.baseGfn; gfn < end; ) {
        const next = Math.min(end, (Math.floor(gfn / SEGMENT_PAGES) + 1) * SEGMENT_PAGES);
        if (kept(gfn)) {
          bits.fill(1, gfn - slot.baseGfn, next - slot.baseGfn);
          this.count += next - gfn;
        }
        gfn = next;
      }
      this.#bits.set(slot, bits);
    }
  }

  clear(): void {
    this.#bits = new WeakMap();
    this.count = 0;
  }

  /** Marks one page, as a guest's ESSA does. */
  mark(slot: EmulatedMemslot, gfn: number): void {
    let bits = this.#bits.get(slot);
    if (bits === undefined) {
      bits = new Uint8Array(slot.npages);
      this.#bits.set(slot, bits);
    }
    if (bits[gfn - slot.baseGfn] === 0) this.count++;
    bits[gfn - slot.baseGfn] = 1;
  }

  /** The slot's pages are no longer counted. */
  forget(slot: EmulatedMemslot): void {
    const bits = this.#bits.get(slot);
    if (bits === undefined) return;
    this.count -= bits.reduce((sum, bit) => sum + bit, 0);
    this.#bits.delete(slot);
  }

  isDirty(slot: EmulatedMemslot, gfn: number): boolean {
    return this.#bits.get(slot)?.[gfn - slot.baseGfn] === 1;
  }

  take(slot: EmulatedMemslot, gfn: number): void {
    const bits = this.#bits.get(slot);
    if (bits === undefined || bits[gfn - slot.baseGfn] === 0) return;
    bits[gfn - slot.baseGfn] = 0;
    this.count--;
  }

  /**
   * The first dirty page from `gfn` on; past the last slot the search begins at the lowest one, once. Without any
   * dirty page behind: the end of the last slot. There is one.
   */
  next(slots: readonly EmulatedMemslot[], gfn: number): number {
    let index = slots.findIndex((slot) => slot.baseGfn + slot.npages > gfn);
    let from = gfn;
    if (index === -1) {
      index = 0;
      from = 0;
    }
    for (; index < slots.length; index++) {
      const slot = slots[index]!;
      const bits = this.#bits.get(slot);
      const found = bits === undefined ? -1 : bits.indexOf(1, Math.max(0, from - slot.baseGfn));
      if (found !== -1) return slot.baseGfn + found;
    }
    const last = slots.at(-1)!;
    return last.baseGfn + last.npages;
  }
}
