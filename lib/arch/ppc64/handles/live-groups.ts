import type { HpteWords } from '../model/hash.ts';
import { HPTE_SIZE, HPTES_PER_GROUP, Hpte } from '../model/hpte.ts';
import type { HtabChunkBytes, HtabSlot } from '../model/htab-chunk.ts';
import { HTAB_HEADER_SIZE, type HtabChunk } from '../model/htab-stream.ts';

const EMPTY = new Hpte(0, 0, 0, 0);

/** A VM's table of which groups are read when they are looked at. */
export class LiveGroups implements HpteWords {
  /** A group whose entries are valid and empty in turn has a header for each two; and KVM wants 25 bytes more. */
  static readonly READ_BYTES = HPTES_PER_GROUP * (HPTE_SIZE + HTAB_HEADER_SIZE) + 25;

  readonly order: number;
  readonly #read: (slot: number) => readonly HtabChunkBytes[];
  readonly #entries = new Map<number, Hpte>();

  constructor(order: number, read: (slot: number) => readonly HtabChunkBytes[]) {
    this.order = order;
    this.#read = read;
  }

  vHi(slot: number): number {
    return this.#at(slot).vHi;
  }

  vLo(slot: number): number {
    return this.#at(slot).vLo;
  }

  rHi(slot: number): number {
    return this.#at(slot).rHi;
  }

  rLo(slot: number): number {
    return this.#at(slot).rLo;
  }

  #at(slot: number): Hpte {
    const known = this.#entries.get(slot);
    if (known !== undefined) return known;
    const first = slot - (slot % HPTES_PER_GROUP);
    for (let i = first; i < first + HPTES_PER_GROUP; i++) this.#entries.set(i, EMPTY);
    for (const chunk of this.#read(first)) {
      for (const { slot: at, entry } of chunk.validEntries())
        if (at < first + HPTES_PER_GROUP) this.#entries.set(at, entry);
    }
    return this.#entries.get(slot)!;
  }
}

/** The first entry of a chunk whose page is larger than so many bytes. */
export function largePageOf(
  chunk: HtabChunk,
  bytes: Uint8Array,
  pageSize: number,
): (HtabSlot & { readonly entry: Hpte }) | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = chunk.entries, slot = chunk.index; at < chunk.end; at += HPTE_SIZE, slot++) {
    const word = (offset: number): number => view.getUint32(at + offset);
    const entry = new Hpte(word(0), word(4), word(8), word(12));
    if (2 ** entry.shift > pageSize) return { slot, entry };
  }
  return undefined;
}
