import {
  checkBytes,
  checkHalf,
  checkInstance,
  checkInteger,
  checkObject,
  isHalf,
  newBytes,
} from '../../../base/arguments.ts';
import { outOfRange } from '../../../base/errors.ts';
import { checkOrder, entriesOf, groupsOf, type HpteWords } from './hash.ts';
import { checkHalves, HPTE_SIZE, Hpte, hpte, V_LO } from './hpte.ts';

/**
 * A hashed page table in memory as the processor has it: 2^order bytes, 16 per entry, two big-endian doublewords.
 * Since the HTAB stream carries entries in the same form, runs of them are copied, not converted.
 */
export class Htab implements HpteWords {
  readonly order: number;
  readonly entryCount: number;
  readonly groupCount: number;
  /** The table itself. Writing here is writing entries. */
  readonly bytes: Uint8Array;
  /** The same bytes as words of the machine's own order, for moving many. */
  readonly words: Int32Array;
  readonly #view: DataView;

  /**
   * An empty table, or one over memory of the caller's.
   * @param order log2 of the size in bytes, 18 to 46; how much of that there is memory for depends on the machine.
   * @throws RangeError for an order out of range, one too large for an ArrayBuffer, or `bytes` of another length, or not
   * at a multiple of 4 in their buffer.
   */
  constructor(order: number, bytes?: Uint8Array) {
    checkOrder(order, 'order');
    if (bytes !== undefined) checkTableBytes(bytes, order);
    this.order = order;
    this.entryCount = entriesOf(order);
    this.groupCount = groupsOf(order);
    this.bytes = bytes ?? newBytes(2 ** order, 'size');
    this.#view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
    this.words = new Int32Array(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength / 4);
  }

  /** The same bytes as a view, for whole words. No property of its own, as that of `KvmRun`. */
  get view(): DataView {
    return this.#view;
  }

  /** As Node shows it. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    let valid = 0;
    for (let slot = 0; slot < this.entryCount; slot++) if (this.isValid(slot)) valid++;
    return `Htab of order ${this.order}: ${this.entryCount} slots in ${this.groupCount} groups, ${valid} of them valid`;
  }

  vHi(slot: number): number {
    return this.#view.getUint32(this.#at(slot));
  }

  vLo(slot: number): number {
    return this.#view.getUint32(this.#at(slot) + 4);
  }

  rHi(slot: number): number {
    return this.#view.getUint32(this.#at(slot) + 8);
  }

  rLo(slot: number): number {
    return this.#view.getUint32(this.#at(slot) + 12);
  }

  /** Stores an entry's four halves. */
  setWords(slot: number, vHi: number, vLo: number, rHi: number, rLo: number): void {
    const { view } = this;
    const at = this.#at(slot);
    if (!isHalf(vHi) || !isHalf(vLo) || !isHalf(rHi) || !isHalf(rLo)) checkHalves(vHi, vLo, rHi, rLo);
    view.setUint32(at, vHi);
    view.setUint32(at + 4, vLo);
    view.setUint32(at + 8, rHi);
    view.setUint32(at + 12, rLo);
  }

  /** Stores V alone. */
  setV(slot: number, vHi: number, vLo: number): void {
    const at = this.#at(slot);
    checkHalf(vHi, 'vHi');
    this.#view.setUint32(at + 4, checkHalf(vLo, 'vLo'));
    this.#view.setUint32(at, vHi);
  }

  /** Stores R alone. */
  setR(slot: number, rHi: number, rLo: number): void {
    const at = this.#at(slot) + 8;
    checkHalf(rHi, 'rHi');
    this.#view.setUint32(at + 4, checkHalf(rLo, 'rLo'));
    this.#view.setUint32(at, rHi);
  }

  isValid(slot: number): boolean {
    return (this.bytes[this.#at(slot) + 7]! & V_LO.VALID) !== 0;
  }

  /**
   * The entry in a slot.
   * @throws RangeError for a slot outside the table.
   */
  get(slot: number): Hpte {
    return new Hpte(this.vHi(slot), this.vLo(slot), this.rHi(slot), this.rLo(slot));
  }

  /**
   * Puts an entry into a slot, as it is: neither its validity nor whether it can be found there is looked at.
   * @throws RangeError for a slot outside the table or a doubleword that isn't a u64.
   */
  set(slot: number, entry: { readonly v: number | bigint; readonly r: number | bigint }): void {
    const { vHi, vLo, rHi, rLo } = wordsOf(entry);
    this.setWords(slot, vHi, vLo, rHi, rLo);
  }

  /** Zeroes `count` entries from `slot` on, or all that are there. */
  clear(slot = 0, count?: number): void {
    const behind = this.entryCount - checkInteger(slot, 'slot', 0, this.entryCount);
    const cleared = count === undefined ? behind : checkInteger(count, 'count', 0, behind);
    this.bytes.fill(0, slot * HPTE_SIZE, (slot + cleared) * HPTE_SIZE);
  }

  /** Where the entry of a slot begins. */
  #at(slot: number): number {
    if (typeof slot === 'number' && slot >>> 0 === slot && slot < this.entryCount) return slot * HPTE_SIZE;
    return checkInteger(slot, 'slot', 0, this.entryCount - 1) * HPTE_SIZE;
  }
}

function wordsOf(entry: { readonly v: number | bigint; readonly r: number | bigint }): Hpte {
  if (entry instanceof Hpte) return entry;
  const { v, r } = checkObject(entry, 'entry');
  return hpte(v, r);
}

function checkTableBytes(bytes: Uint8Array, order: number): void {
  const size = 2 ** order;
  checkBytes(bytes, 'bytes');
  if (bytes.byteLength !== size) throw outOfRange('bytes.byteLength', `${size} for order ${order}`, bytes.byteLength);
  if (bytes.byteOffset % 4 !== 0) throw outOfRange('bytes.byteOffset', 'a multiple of 4', bytes.byteOffset);
}

/** Checks two tables that are compared slot by slot. */
export function checkSameOrder(before: Htab, after: Htab): void {
  checkInstance(before, 'before', Htab);
  checkInstance(after, 'after', Htab);
  if (before.order !== after.order) throw outOfRange('after.order', `${before.order}, as before.order`, after.order);
}

/** The table with at least this order. */
export function grown(table: Htab, order: number): Htab {
  if (order <= table.order) return table;
  const larger = new Htab(order);
  larger.bytes.set(table.bytes);
  return larger;
}
