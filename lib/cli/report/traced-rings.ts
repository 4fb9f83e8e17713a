import { bytesOfText } from '../../calls/format.ts';
import type { TracePieces } from '../../calls/trace-file.ts';
import { DIRTY_GFN } from '../../uapi/flags.ts';
import { KVM_DIRTY_GFN } from '../../uapi/structs.ts';

const ENTRY = KVM_DIRTY_GFN.size;

/** The dirty rings of a traced VM's vCPUs, as far as the trace tells of them; all that have them are little-endian. */
export class TracedRings {
  /** The entries of each by their index, and each ring by the name of its mapping. */
  readonly #rings = new Map<string, Map<number, DataView>>();
  readonly #note: () => void;
  readonly #mostBytes: number;

  /**
   * @param note called for each entry that is kept
   * @param mostBytes what one piece may have
   */
  constructor(note: () => void, mostBytes: number) {
    this.#note = note;
    this.#mostBytes = mostBytes;
  }

  mapped(name: string): void {
    this.#rings.set(name, new Map());
  }

  unmapped(name: string): void {
    this.#rings.delete(name);
  }

  /** What a call changed, or user space before it. */
  changed(areas: Readonly<Record<string, TracePieces>> = {}): void {
    for (const [name, entries] of this.#rings) {
      for (const [offset, text] of areas[name] ?? []) this.#take(entries, offset, bytesOfText(text, this.#mostBytes));
    }
  }

  /** The pages that user space has taken, and that a reset gives back to the kernel: the slot word, and the page in the slot. */
  *harvested(): Generator<readonly [slot: number, page: number], void, undefined> {
    for (const entries of this.#rings.values()) {
      for (const entry of entries.values()) {
        if ((entry.getUint32(KVM_DIRTY_GFN.flags, true) & DIRTY_GFN.RESET) === 0) continue;
        yield [entry.getUint32(KVM_DIRTY_GFN.slot, true), Number(entry.getBigUint64(KVM_DIRTY_GFN.offset, true))];
      }
    }
  }

  #take(entries: Map<number, DataView>, offset: number, bytes: Uint8Array): void {
    for (const [i, byte] of bytes.entries()) {
      const at = offset + i;
      const index = Math.floor(at / ENTRY);
      let entry = entries.get(index);
      if (entry === undefined) {
        if (byte === 0) continue;
        this.#note();
        entry = new DataView(new ArrayBuffer(ENTRY));
        entries.set(index, entry);
      }
      entry.setUint8(at % ENTRY, byte);
    }
  }
}
