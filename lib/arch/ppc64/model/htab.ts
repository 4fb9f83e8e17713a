import { checkInteger, isIntegerIn } from '../../../base/arguments.ts';
import { entriesOf, groupsOf, HPT_ORDER, type HpteWords } from './hash.ts';
import { HPTE_SIZE, Hpte, hpte, V_LO } from './hpte.ts';

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
  /** The same bytes as a view, for whole words. */
  readonly view: DataView;
  /** The same bytes as words of the machine's own order, for moving many. */
  readonly words: Int32Array;

  /**
   * An empty table, or one over memory of the caller's.
   * @param order log2 of the size in bytes, 18 to 46; how much of that there is memory for depends on the machine.
   * @throws RangeError for an order out of range, one too large for an ArrayBuffer, or `bytes` of another length, or not
   * at a multiple of 4 in their buffer.
   */
  constructor(order: number, bytes?: Uint8Array) {
    checkInteger(order, 'order', HPT_ORDER.MIN, HPT_ORDER.MAX);
    if (bytes !== undefined && bytes.byteLength !== 2 ** order) {
      throw new RangeError(`a table of order ${order} has ${2 ** order} bytes: got ${bytes.byteLength}`);
    }
    this.order = order;
    this.entryCount = entriesOf(order);
    this.groupCount = groupsOf(order);
    this.bytes = bytes ?? new Uint8Array(2 ** order);
    this.view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
    this.words = new Int32Array(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength / 4);
  }

  /** As Node shows it. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    let valid = 0;
    for (let slot = 0; slot < this.entryCount; slot++) if (this.isValid(slot)) valid++;
    return `Htab of order ${this.order}: ${this.entryCount} slots in ${this.groupCount} groups, ${valid} of them valid`;
  }

  vHi(slot: number): number {
    return this.view.getUint32(slot * HPTE_SIZE);
  }

  vLo(slot: number): number {
    return this.view.getUint32(slot * HPTE_SIZE + 4);
  }

  rHi(slot: number): number {
    return this.view.getUint32(slot * HPTE_SIZE + 8);
  }

  rLo(slot: number): number {
    return this.view.getUint32(slot * HPTE_SIZE + 12);
  }

  /** Stores an entry's four halves. */
  setWords(slot: number, vHi: number, vLo: number, rHi: number, rLo: number): void {
    const at = slot * HPTE_SIZE;
    this.view.setUint32(at, vHi);
    this.view.setUint32(at + 4, vLo);
    this.view.setUint32(at + 8, rHi);
    this.view.setUint32(at + 12, rLo);
  }

  /** Stores V alone. */
  setV(slot: number, vHi: number, vLo: number): void {
    this.view.setUint32(slot * HPTE_SIZE, vHi);
    this.view.setUint32(slot * HPTE_SIZE + 4, vLo);
  }

  /** Stores R alone. */
  setR(slot: number, rHi: number, rLo: number): void {
    this.view.setUint32(slot * HPTE_SIZE + 8, rHi);
    this.view.setUint32(slot * HPTE_SIZE + 12, rLo);
  }

  isValid(slot: number): boolean {
    return (this.bytes[slot * HPTE_SIZE + 7]! & V_LO.VALID) !== 0;
  }

  /**
   * The entry in a slot.
   * @throws RangeError for a slot outside the table.
   */
  get(slot: number): Hpte {
    this.#check(slot);
    return new Hpte(this.vHi(slot), this.vLo(slot), this.rHi(slot), this.rLo(slot));
  }

  /**
   * Puts an entry into a slot, as it is: neither its validity nor whether it can be found there is looked at.
   * @throws RangeError for a slot outside the table or a doubleword that isn't a u64.
   */
  set(slot: number, entry: { readonly v: number | bigint; readonly r: number | bigint }): void {
    this.#check(slot);
    const { vHi, vLo, rHi, rLo } = entry instanceof Hpte ? entry : hpte(entry.v, entry.r);
    this.setWords(slot, vHi, vLo, rHi, rLo);
  }

  /** Zeroes `count` entries from `slot` on. */
  clear(slot = 0, count = this.entryCount - slot): void {
    this.bytes.fill(0, slot * HPTE_SIZE, (slot + count) * HPTE_SIZE);
  }

  #check(slot: number): void {
    if (!isIntegerIn(slot, 0, this.entryCount - 1)) {
      throw new RangeError(`slot must be below ${this.entryCount}: got ${slot}`);
    }
  }
}

/** The table with at least this order. */
export function grown(table: Htab, order: number): Htab {
  if (order <= table.order) return table;
  const larger = new Htab(order);
  larger.bytes.set(table.bytes);
  return larger;
}
