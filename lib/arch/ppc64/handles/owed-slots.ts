import { HPTE_SIZE } from '../model/hpte.ts';
import { grown, Htab } from '../model/htab.ts';
import {
  applyHtabStream,
  checkHtabStream,
  encodeHtabStream,
  type HtabStreamFormat,
  orderFor,
} from '../model/htab-stream.ts';

/**
 * What a reader has not been told of, because another reader of the same VM was: KVM marks a changed entry once, and
 * the first reader takes the mark away. Kept as it was when it was read, until this reader comes.
 */
export class OwedSlots {
  #table = new Htab(orderFor(1));
  /** One byte per slot, 1 where the slot is owed. */
  #owed = new Uint8Array(this.#table.entryCount);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** Notes what a stream of somebody else's says. */
  add(bytes: Uint8Array, format: HtabStreamFormat): void {
    this.#growTo(orderFor(checkHtabStream(bytes, format).extent));
    applyHtabStream(this.#table, bytes, format);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const little = format.headers !== 'big';
    for (let at = 0; at < bytes.length; ) {
      const index = view.getUint32(at, little);
      const nValid = view.getUint16(at + 4, little);
      this.#set(index, index + nValid + view.getUint16(at + 6, little), 1);
      at += 8 + nValid * HPTE_SIZE;
    }
  }

  /** One run of what is owed, as a stream of about that many bytes; undefined when there is nothing. */
  take(maxBytes: number, format: HtabStreamFormat): Uint8Array | undefined {
    if (this.#count === 0) return undefined;
    const from = this.#owed.indexOf(1);
    const clean = this.#owed.indexOf(0, from);
    const end = clean < 0 ? this.#owed.length : clean;
    const to = Math.min(end, from + Math.max(1, Math.floor(maxBytes / HPTE_SIZE)));
    this.#set(from, to, 0);
    return encodeHtabStream(this.#table, { ...format, from, to });
  }

  #set(from: number, to: number, value: 0 | 1): void {
    for (let slot = from; slot < to; slot++) {
      this.#count += value - this.#owed[slot]!;
      this.#owed[slot] = value;
    }
  }

  #growTo(order: number): void {
    this.#table = grown(this.#table, order);
    if (this.#table.entryCount === this.#owed.length) return;
    const owed = this.#owed;
    this.#owed = new Uint8Array(this.#table.entryCount);
    this.#owed.set(owed);
  }
}
