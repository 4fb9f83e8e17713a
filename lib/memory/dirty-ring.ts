import { endianness } from 'node:os';
import { type Arch, isLittleEndianHost } from '../uapi/arch.ts';
import { DIRTY_GFN } from '../uapi/flags.ts';
import { KVM_DIRTY_GFN } from '../uapi/structs.ts';

const TWO_32 = 2 ** 32;

/** An entry's page: the slot word (as_id << 16 | id), and the page's offset in the slot. */
export type DirtyEntry = (slot: number, offset: number) => void;

/** The dirty ring of one vCPU: entries are harvested in order, none skipped. */
export class DirtyRing {
  readonly #view: DataView;
  readonly #words: Int32Array;
  readonly #little: boolean;
  readonly #entries: number;
  /** The flag as it stands in a word of this process's byte order. */
  readonly #flag: (value: number) => number;
  #next: number;

  /** @param next the entry that is filled next: 0 in a new vCPU's */
  constructor(buffer: ArrayBufferLike, arch: Arch, next = 0) {
    this.#next = next;
    this.#view = new DataView(buffer);
    this.#words = new Int32Array(buffer);
    this.#entries = buffer.byteLength / KVM_DIRTY_GFN.size;
    this.#little = isLittleEndianHost(arch);
    const swapped = this.#little !== (endianness() === 'LE');
    this.#flag = (value) => (swapped ? value << 24 : value);
  }

  /** The entry that is filled next. */
  get next(): number {
    return this.#next;
  }

  /** Takes every entry that the kernel has filled, marking it for KVM_RESET_DIRTY_RINGS; how many. */
  harvest(entry: DirtyEntry): number {
    const dirty = this.#flag(DIRTY_GFN.DIRTY);
    const reset = this.#flag(DIRTY_GFN.RESET);
    let count = 0;
    for (; count < this.#entries; count++) {
      const at = this.#next * KVM_DIRTY_GFN.size;
      // The load acquires what the kernel wrote before it set the flag, the store releases what was read here.
      if (Atomics.load(this.#words, at / 4) !== dirty) break;
      const slot = this.#view.getUint32(at + KVM_DIRTY_GFN.slot, this.#little);
      const low = this.#view.getUint32(at + KVM_DIRTY_GFN.offset + (this.#little ? 0 : 4), this.#little);
      const high = this.#view.getUint32(at + KVM_DIRTY_GFN.offset + (this.#little ? 4 : 0), this.#little);
      Atomics.store(this.#words, at / 4, reset);
      this.#next = (this.#next + 1) % this.#entries;
      entry(slot, high * TWO_32 + low);
    }
    return count;
  }
}
