import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import { SEGMENT_PAGES } from '../model/dat-entries.ts';
import { KEY_CHANGE, KEY_REFERENCE } from '../model/storage-key.ts';
import { KEY_BITS, USER_CHANGED } from './key-loops.ts';
import { PageStates } from './page-states.ts';

/**
 * Storage keys and CMMA values of a VM from 7.0 on: they are in page tables of its own, and so belong to the guest frame. A page
 * is present in these tables from its first access by the guest or MEM_OP on, until user space's page goes. While it is,
 * the key's R and C are those of the host page, which anybody's accesses set.
 */
export class GuestPageStates extends PageStates {
  override readonly collectsStores = true;
  /** Guest frames that are present. */
  readonly #present = new Set<number>();
  /** Segments that have a page table: by the guest, MEM_OP, SET_SKEYS and SET_CMMA_BITS, not by what only reads keys or values. */
  readonly #tables = new Set<number>();
  #lastTable = -1;

  override page(_slot: EmulatedMemslot, gfn: number): number {
    return gfn;
  }

  /** What KEYOP set before is cleared. */
  override enableKeys(): void {
    if (!this.keysEnabled) {
      this.keys.mask(0);
      this.lastSet.mask(USER_CHANGED);
    }
    super.enableKeys();
  }

  override get notesLoads(): boolean {
    return true;
  }

  /** A load or store by the guest or MEM_OP. What is stored is a change until the dirty log is read, or the page goes. */
  override accessed(_slot: EmulatedMemslot, gfn: number, store: boolean): void {
    this.link(gfn);
    this.keys.add(gfn, KEY_REFERENCE | (store ? KEY_CHANGE : 0));
    if (store) this.lastSet.add(gfn, USER_CHANGED);
  }

  /** KVM reads tables as user space would. */
  override walked(_slot: EmulatedMemslot, gfn: number): void {
    this.userAccessed(gfn, 1, false);
  }

  /** The page is present from here on. */
  link(gfn: number): void {
    this.#present.add(gfn);
    this.#makeTable(gfn);
  }

  #makeTable(gfn: number): void {
    const table = Math.floor(gfn / SEGMENT_PAGES);
    if (table === this.#lastTable) return;
    this.#lastTable = table;
    this.#tables.add(table);
  }

  override keepsCmma(gfn: number): boolean {
    return this.#tables.has(Math.floor(gfn / SEGMENT_PAGES));
  }

  override setKey(slot: EmulatedMemslot, gfn: number, key: number): void {
    this.#makeTable(gfn);
    super.setKey(slot, gfn, key);
  }

  override writeKeys(slot: EmulatedMemslot, gfn: number, keys: Uint8Array, at: number, length: number): void {
    for (let each = gfn; each < gfn + length; each += SEGMENT_PAGES) this.#makeTable(each);
    this.#makeTable(gfn + length - 1);
    super.writeKeys(slot, gfn, keys, at, length);
  }

  override setCmma(slot: EmulatedMemslot, gfn: number, value: number): void {
    this.#makeTable(gfn);
    super.setCmma(slot, gfn, value);
  }

  /** User space accessed the pages behind some frames. */
  userAccessed(first: number, count: number, store: boolean): void {
    for (let gfn = first; gfn < first + count; gfn++) {
      if (this.#present.has(gfn)) this.keys.add(gfn, KEY_REFERENCE | (store ? KEY_CHANGE : 0));
    }
  }

  /** Frames of a slot that are present, and were changed since this was last asked. */
  *takeAllChanged(slot: EmulatedMemslot): Generator<number, void> {
    for (const gfn of this.#present) {
      if (gfn >= slot.baseGfn && gfn < slot.baseGfn + slot.npages && this.takeChanged(slot, gfn)) yield gfn;
    }
  }

  /** User space's pages behind frames are others, or gone. The keys stay, R and C included; that a page was changed is forgotten. */
  absent(first: number, end: number): void {
    this.lastSet.maskRun(first, end - first, KEY_BITS);
    for (const gfn of this.#present) {
      if (gfn < first || gfn >= end) continue;
      this.#present.delete(gfn);
      this.lastSet.set(gfn, this.keys.get(gfn));
    }
  }

  /** The page tables of some frames go, with all that is in them. */
  forget(first: number, count: number): void {
    this.absent(first, first + count);
    for (const states of [this.keys, this.lastSet, this.cmmaValues]) states.clear(first, count);
    this.#lastTable = -1;
    const [from, end] = [Math.ceil(first / SEGMENT_PAGES), Math.floor((first + count) / SEGMENT_PAGES)];
    for (const table of this.#tables) if (table >= from && table < end) this.#tables.delete(table);
  }
}
