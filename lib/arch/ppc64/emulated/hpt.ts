import type { DirtyLog } from '../../../emulated/dirty-log.ts';
import type { EmulatedHostMemory } from '../../../emulated/host-memory.ts';
import type { EmulatedMemslot, MemslotSet } from '../../../emulated/memslots.ts';
import { entriesOf } from '../model/hash.ts';
import { frameOf, HPTE_WORDS, HPTES_PER_GROUP, R_HI, R_LO, V_HI, V_LO } from '../model/hpte.ts';
import { Htab } from '../model/htab.ts';
import { shiftOf } from '../model/page-sizes.ts';
import { bigEndian } from '../model/words.ts';
import { H } from './papr.ts';
import { asGuestSees, HostPtes, isWritable, readonlyHi, readonlyLo } from './real-entry.ts';
import { rehashedSlot } from './rehash.ts';
import { ReverseMap } from './reverse-map.ts';
import { SlotSet } from './slot-set.ts';

// The engine knows the values of constants that are the module's own.
const GROUP = HPTES_PER_GROUP;
const WORDS = HPTE_WORDS;

/** What POWER9 keeps of the upper half of V: a real entry of ISA 3.0 has 68 bits of virtual address, and B elsewhere. */
const REAL_V_HI = V_HI.B | 0x000f_ffff;

/** R and C as {@link ReverseMap} has them. */
const RC = R_LO.R | R_LO.C;
const RC_SHIFT = 7;

/** Of an entry's second word, as the machine has it: the slot is taken. */
const PRESENT = bigEndian(V_LO.VALID | V_LO.ABSENT);

/** What the table needs of its VM; an EmulatedVm is one. */
export interface HptVm {
  readonly pageSize: number;
  readonly memory: EmulatedHostMemory;
  readonly spaces: readonly MemslotSet[];
  readonly dirtyLog: DirtyLog;
  /** The slot that holds a gfn and may be used: absent while it is being deleted or moved. */
  usableSlot(gfn: number): EmulatedMemslot | undefined;
  hostAddress(slot: EmulatedMemslot, gfn: number): number;
}

/** What survives a table of the VM: the reverse maps of its slots, and whether anybody wants to know of changes. */
export class HptContext {
  readonly vm: HptVm;
  /** Number of open readers; changes are marked while there is one. */
  readers = 0;
  #maps = new WeakMap<EmulatedMemslot, ReverseMap>();
  /** The slot and the map that were asked for last. */
  #lastSlot: EmulatedMemslot | undefined;
  #lastMap = new ReverseMap();

  constructor(vm: HptVm) {
    this.vm = vm;
  }

  /** The slot that holds a gfn, also while it is being deleted or moved. */
  memslotAt(gfn: number): EmulatedMemslot | undefined {
    return this.vm.spaces[0]!.find(gfn);
  }

  reverseMap(slot: EmulatedMemslot): ReverseMap {
    if (slot === this.#lastSlot) return this.#lastMap;
    let map = this.#maps.get(slot);
    if (map === undefined) {
      map = new ReverseMap();
      this.#maps.set(slot, map);
    }
    this.#lastSlot = slot;
    this.#lastMap = map;
    return map;
  }

  /** Every page forgets its entries and its accumulated R and C. */
  resetReverseMaps(): void {
    this.#maps = new WeakMap();
    this.#lastSlot = undefined;
  }
}

/** What the real entry for a page of the guest's is: valid, absent, or emulated MMIO. */
interface Placed {
  state: number;
  rHi: number;
  rLo: number;
  /** That of a valid entry, which hangs on its `page`. */
  memslot: EmulatedMemslot | undefined;
  page: number;
}

/**
 * One hashed page table as KVM keeps it: the *real* entries that the processor uses, and for each the guest's own
 * second doubleword (*shadow R*), which also has KVM's MODIFIED mark. A real entry is VALID where the host has the
 * page, ABSENT where the guest believes so, key 31 where there is no memslot.
 *
 * Where a real entry of KVM's has a host address, this one keeps the guest's RPN: the host address is never shown.
 */
export class Hpt {
  readonly order: number;
  readonly entryCount: number;
  /** The real entries, B in V as before ISA 3.0. */
  readonly real: Htab;
  readonly hostPtes: HostPtes;
  readonly #context: HptContext;
  /** log2 of the host's page size, and what a frame of 4 KiB is of such a page. */
  readonly #hostShift: number;
  readonly #pagesPerFrame: number;
  readonly #shadowHi: Uint32Array;
  readonly #shadowLo: Uint32Array;
  /** Rings of the entries that map one page. */
  readonly #next: Uint32Array;
  readonly #previous: Uint32Array;
  /** Entries that may be of interest to a later pass; {@link isDirty} knows for sure. */
  readonly #touched: SlotSet;
  /** Where the entry goes that is entered; one object for all of them. */
  readonly #placed: Placed = { state: 0, rHi: 0, rLo: 0, memslot: undefined, page: 0 };

  /** What remove, read, clearRef and clearMod answered: the guest's view. */
  vHi = 0;
  vLo = 0;
  rHi = 0;
  rLo = 0;

  constructor(context: HptContext, order: number) {
    this.#context = context;
    this.hostPtes = new HostPtes(context.vm.memory);
    this.#hostShift = Math.log2(context.vm.pageSize);
    this.#pagesPerFrame = 4096 / context.vm.pageSize;
    this.order = order;
    this.entryCount = entriesOf(order);
    this.real = new Htab(order);
    this.#shadowHi = new Uint32Array(this.entryCount);
    this.#shadowLo = new Uint32Array(this.entryCount);
    this.#next = new Uint32Array(this.entryCount);
    this.#previous = new Uint32Array(this.entryCount);
    this.#touched = new SlotSet(this.entryCount);
  }

  /** ALLOCATE_HTAB with the order the table has: no entries, but the MODIFIED marks stay. */
  reset(): void {
    this.real.clear();
  }

  shadowHi(slot: number): number {
    return this.#shadowHi[slot]!;
  }

  shadowLo(slot: number): number {
    return this.#shadowLo[slot]!;
  }

  isPresent(slot: number): boolean {
    return (this.real.words[slot * WORDS + 1]! & PRESENT) !== 0;
  }

  // Hypercalls

  /**
   * H_ENTER: puts an entry of the guest's into a slot of the group, or into exactly that slot.
   * @returns the slot, or a return code.
   */
  enter(exact: boolean, index: number, vHi: number, vLo: number, rHi: number, rLo: number): number {
    if ((vHi & V_HI.B_RESERVED) !== 0) return H.PARAMETER;
    const shift = shiftOf(vLo, rLo);
    if (shift === 0) return H.PARAMETER;
    const shadowHi = rHi & ~R_HI.MODIFIED;
    if (!this.#place(shadowHi, rLo, shift)) return H.PARAMETER;
    const { memslot, page, state, rHi: realHi } = this.#placed;

    // Only now: an index out of range is the last thing that KVM looks at.
    if (index >= this.entryCount) return H.PARAMETER;
    const slot = this.#freeSlot(exact, index);
    if (slot < 0) return H.PTEG_FULL;
    this.#shadowHi[slot] = shadowHi;
    this.#shadowLo[slot] = rLo;
    this.#note(slot);

    let realLo = this.#placed.rLo;
    if (memslot !== undefined) {
      const map = this.#context.reverseMap(memslot);
      this.#link(slot, map, page);
      // A page counts as referenced or changed in the real entry only if it is known to have been.
      realLo &= ~RC | (map.rc(page) << RC_SHIFT);
    }
    const software = vLo & ~(V_LO.HVLOCK | V_LO.ABSENT | V_LO.VALID);
    this.real.setWords(slot, vHi & REAL_V_HI, software | state, realHi, realLo);
    return slot;
  }

  /** Says in {@link #placed} what the real entry for a page of the guest's is; false where KVM refuses. */
  #place(rHi: number, rLo: number, shift: number): boolean {
    const { vm } = this.#context;
    const gfn = this.#gfn(rHi, rLo, shift);
    const memslot = vm.usableSlot(gfn);
    if (memslot === undefined) return this.#placeAs(V_LO.ABSENT, rHi | R_HI.KEY, rLo | R_LO.KEY);
    const hva = vm.hostAddress(memslot, gfn);
    const isLarge = shift > this.#hostShift;
    if (isLarge) {
      const pages = 2 ** (shift - this.#hostShift);
      if (memslot.baseGfn % pages !== 0 || memslot.npages % pages !== 0) return false;
      if (this.hostPtes.has(hva)) return false;
    }
    const mayWrite = !isLarge && vm.memory.canAccess(hva, true);
    if (isLarge || !(mayWrite || vm.memory.canAccess(hva, false))) {
      return this.#placeAs(V_LO.ABSENT, rHi & ~R_HI.KEY, rLo & ~R_LO.KEY);
    }
    const readonly = !mayWrite && isWritable(rHi, rLo);
    this.#placeAs(V_LO.VALID, readonly ? readonlyHi(rHi, rLo) : rHi, readonly ? readonlyLo(rHi, rLo) : rLo);
    this.#placed.memslot = memslot;
    this.#placed.page = gfn - memslot.baseGfn;
    return true;
  }

  #placeAs(state: number, rHi: number, rLo: number): true {
    const placed = this.#placed;
    placed.state = state;
    placed.rHi = rHi;
    placed.rLo = rLo;
    placed.memslot = undefined;
    return true;
  }

  #freeSlot(exact: boolean, index: number): number {
    if (exact) return this.isPresent(index) ? -1 : index;
    const { words } = this.real;
    // By bits: the rest of a division is a call where the engine knows no integer.
    const first = index - (index & (GROUP - 1));
    for (let slot = first; slot < first + GROUP; slot++) if ((words[slot * WORDS + 1]! & PRESENT) === 0) return slot;
    return -1;
  }

  /** H_REMOVE of an entry that is present; leaves the guest's view of it in `vHi` … `rLo`. */
  remove(slot: number): void {
    const vLo = this.real.vLo(slot);
    if ((vLo & V_LO.VALID) !== 0) this.#unlinkAndKeepRc(slot);
    this.vHi = this.real.vHi(slot);
    this.vLo = asGuestSees(vLo);
    this.rHi = (this.#shadowHi[slot]! & ~R_HI.MODIFIED) >>> 0;
    this.rLo = this.#shadowLo[slot]!;
    this.#note(slot);
    // Since POWER9 the real B is in the second doubleword, which is left as it is.
    this.real.setV(slot, this.real.vHi(slot) & V_HI.B, 0);
  }

  /** Removes the entries that are present among those of [from, to). */
  removeAll(from: number, to: number): void {
    for (let slot = from; slot < to; slot++) if (this.isPresent(slot)) this.remove(slot);
  }

  /** H_PROTECT of an entry that is present: PP0, PP, N and key become those given, at first in the guest's view only. */
  protect(slot: number, rHi: number, rLo: number): void {
    const maskHi = R_HI.PP0 | R_HI.KEY;
    const maskLo = R_LO.PP | R_LO.N | R_LO.KEY;
    this.#shadowHi[slot] = (this.#shadowHi[slot]! & ~maskHi) | (rHi & maskHi);
    this.#shadowLo[slot] = (this.#shadowLo[slot]! & ~maskLo) | (rLo & maskLo);
    this.#note(slot);
    if ((this.real.vLo(slot) & V_LO.VALID) === 0) return;
    const oldHi = this.real.rHi(slot);
    const oldLo = this.real.rLo(slot);
    const newHi = (oldHi & ~maskHi) | (rHi & maskHi);
    const newLo = (oldLo & ~maskLo) | (rLo & maskLo);
    // Stores that become possible are let through by the next fault, not here.
    const readonly = isWritable(newHi, newLo) && !isWritable(oldHi, oldLo);
    this.real.setR(slot, readonly ? readonlyHi(newHi, newLo) : newHi, readonly ? readonlyLo(newHi, newLo) : newLo);
  }

  /** H_READ: the guest's view in `vHi` … `rLo`; of a slot that is empty, what was left in it. */
  read(slot: number): void {
    this.vHi = this.real.vHi(slot);
    this.vLo = asGuestSees(this.real.vLo(slot));
    if ((this.vLo & V_LO.VALID) === 0) {
      this.rHi = this.real.rHi(slot);
      this.rLo = this.real.rLo(slot);
      return;
    }
    this.rHi = (this.#shadowHi[slot]! & ~R_HI.MODIFIED) >>> 0;
    this.rLo = (this.#shadowLo[slot]! | (this.real.rLo(slot) & RC)) >>> 0;
  }

  /**
   * H_CLEAR_REF of an entry that is present; R as it was before is left in `rHi` and `rLo`. KVM shows the guest its
   * MODIFIED mark there, and only there.
   */
  clearRef(slot: number): void {
    this.#answerR(slot);
    if ((this.#shadowLo[slot]! & R_LO.R) !== 0) {
      this.#shadowLo[slot]! &= ~R_LO.R;
      this.#note(slot);
    }
    if ((this.real.vLo(slot) & V_LO.VALID) === 0 || (this.real.rLo(slot) & R_LO.R) === 0) return;
    this.real.setR(slot, this.real.rHi(slot), this.real.rLo(slot) & ~R_LO.R);
    const { map, page } = this.#placeOf(slot);
    map.addRc(page, R_LO.R >> RC_SHIFT);
  }

  /** H_CLEAR_MOD likewise; a change that the processor noted goes into the dirty log. */
  clearMod(slot: number): void {
    this.#answerR(slot);
    if ((this.#shadowLo[slot]! & R_LO.C) !== 0) {
      this.#shadowLo[slot]! &= ~R_LO.C;
      this.#note(slot);
    }
    if ((this.real.vLo(slot) & V_LO.VALID) === 0 || (this.real.rLo(slot) & R_LO.C) === 0) return;
    this.real.setR(slot, this.real.rHi(slot), this.real.rLo(slot) & ~R_LO.C);
    const { memslot, page } = this.#placeOf(slot);
    this.#markDirty(memslot, page);
  }

  #answerR(slot: number): void {
    const valid = (this.real.vLo(slot) & V_LO.VALID) !== 0;
    this.rHi = this.#shadowHi[slot]!;
    this.rLo = (this.#shadowLo[slot]! | (valid ? this.real.rLo(slot) & RC : 0)) >>> 0;
  }

  // What the processor and the host do

  /** The processor used a valid entry: it sets R, and C for a store. */
  use(slot: number, store: boolean): void {
    const rLo = this.real.rLo(slot);
    const now = rLo | (store ? RC : R_LO.R);
    if (now === rLo) return;
    this.real.setR(slot, this.real.rHi(slot), now);
    this.#touched.add(slot);
  }

  /** The fault handler maps the host's page: the entry becomes valid, read-only unless `writable`. */
  map(slot: number, memslot: EmulatedMemslot, writable: boolean): void {
    const shadowHi = this.#shadowHi[slot]! & ~R_HI.MODIFIED;
    const shadowLo = this.#shadowLo[slot]!;
    const readonly = isWritable(shadowHi, shadowLo) && !writable;
    const vLo = this.real.vLo(slot);
    const page = this.#gfn(shadowHi, shadowLo, shiftOf(vLo, shadowLo)) - memslot.baseGfn;
    const map = this.#context.reverseMap(memslot);
    let rLo = (readonly ? readonlyLo(shadowHi, shadowLo) : shadowLo) & (~RC | (map.rc(page) << RC_SHIFT));
    if ((vLo & V_LO.VALID) !== 0) rLo |= this.real.rLo(slot) & RC;
    else this.#link(slot, map, page);
    this.real.setWords(
      slot,
      this.real.vHi(slot),
      (vLo & ~V_LO.ABSENT) | V_LO.VALID,
      readonly ? readonlyHi(shadowHi, shadowLo) : shadowHi,
      rLo,
    );
  }

  /** The host took a page away: the entry becomes absent, and what the processor noted is kept. */
  unmap(slot: number): void {
    if ((this.real.vLo(slot) & V_LO.VALID) === 0) return;
    const { memslot, map, page } = this.#placeOf(slot);
    this.#unlink(slot, map, page);
    const rc = this.real.rLo(slot) & RC;
    this.real.setWords(
      slot,
      this.real.vHi(slot),
      (this.real.vLo(slot) & ~V_LO.VALID) | V_LO.ABSENT,
      this.real.rHi(slot) & ~R_HI.KEY,
      this.real.rLo(slot) & ~R_LO.KEY,
    );
    map.addRc(page, rc >> RC_SHIFT);
    if ((rc & R_LO.C) !== 0) this.#markDirty(memslot, page);
    if ((rc & ~this.#shadowLo[slot]!) !== 0) {
      this.#shadowLo[slot]! |= rc;
      this.#note(slot);
    }
  }

  /** A memslot goes, or moves: every entry through it becomes absent. */
  unmapMemslot(memslot: EmulatedMemslot): void {
    for (const [, head] of this.#context.reverseMap(memslot).mapped()) {
      for (const slot of this.#ring(head)) this.unmap(slot);
    }
  }

  /** Collects the C bits of a memslot's pages into its dirty bitmap, clearing them in the real entries. */
  harvestDirty(memslot: EmulatedMemslot): void {
    for (const [page, head] of this.#context.reverseMap(memslot).mapped()) {
      for (const slot of this.#ring(head)) {
        const rLo = this.real.rLo(slot);
        if ((rLo & R_LO.C) === 0) continue;
        this.real.setR(slot, this.real.rHi(slot), rLo & ~R_LO.C);
        if ((this.#shadowLo[slot]! & R_LO.C) === 0) {
          this.#shadowLo[slot]! |= R_LO.C;
          this.#note(slot);
        }
        this.#markDirty(memslot, page);
      }
    }
  }

  // HTAB readers

  /** The first entry at or behind `slot` that a later pass reports; the number of entries when there is none. */
  nextDirty(slot: number): number {
    for (let at = slot; ; at++) {
      at = this.#touched.next(at);
      if (at < 0) return this.entryCount;
      if (this.isDirty(at)) return at;
      this.#touched.delete(at);
    }
  }

  /** Whether a later pass reports the entry: it is marked, or the processor set R or C which the guest's view lacks. */
  isDirty(slot: number): boolean {
    return this.#isModified(slot) || this.#unseenRc(slot) !== 0;
  }

  #isModified(slot: number): boolean {
    return (this.#shadowHi[slot]! & R_HI.MODIFIED) !== 0;
  }

  #unseenRc(slot: number): number {
    return (this.real.vLo(slot) & V_LO.VALID) === 0 ? 0 : this.real.rLo(slot) & ~this.#shadowLo[slot]! & RC;
  }

  /**
   * Reports an entry to a reader that wants a valid one, or an empty one: false when it is the other kind, or clean
   * on a later pass. Takes the mark, and R and C into the guest's view; leaves the entry in `vHi` … `rLo`.
   */
  record(slot: number, wantValid: boolean, firstPass: boolean, boltedOnly: boolean): boolean {
    if (!firstPass && !this.isDirty(slot)) return false;
    const vLo = this.real.vLo(slot);
    const valid = this.isPresent(slot) && !(boltedOnly && (vLo & V_LO.BOLTED) === 0);
    if (valid !== wantValid) return false;
    if (!valid && !this.isDirty(slot)) return true;
    this.#shadowLo[slot]! |= this.#unseenRc(slot);
    this.#shadowHi[slot]! &= ~R_HI.MODIFIED;
    this.vHi = this.real.vHi(slot);
    // The lock is held while V is read, and shows.
    this.vLo = (asGuestSees(vLo) | V_LO.HVLOCK) >>> 0;
    this.rHi = this.#shadowHi[slot]!;
    this.rLo = this.#shadowLo[slot]!;
    return true;
  }

  // Resizing

  /**
   * Puts the bolted entries into a table of another order, where their hash leads there; all others are dropped.
   * Every entry of this table becomes absent meanwhile, as far as this gets.
   * @returns false when two bolted entries collide in a smaller table.
   */
  rehashInto(target: Hpt): boolean {
    for (let slot = 0; slot < this.entryCount; slot++) {
      if (!this.isPresent(slot)) continue;
      const shadowHi = this.#shadowHi[slot]!;
      const shadowLo = this.#shadowLo[slot]!;
      this.unmap(slot);
      if ((this.real.vLo(slot) & V_LO.BOLTED) === 0) continue;
      const to = rehashedSlot(this.real, slot, target.order);
      if (target.isPresent(to)) return false;
      // The view from before it was unmapped: R and C that only the processor had are lost here, in KVM too.
      target.#shadowHi[to] = shadowHi;
      target.#shadowLo[to] = shadowLo;
      if ((shadowHi & R_HI.MODIFIED) !== 0) target.#touched.add(to);
      target.real.setWords(to, this.real.vHi(slot), this.real.vLo(slot), this.real.rHi(slot), this.real.rLo(slot));
    }
    return true;
  }

  // Bookkeeping

  /** Marks an entry as changed, if somebody reads. */
  #note(slot: number): void {
    if (this.#context.readers === 0) return;
    this.#shadowHi[slot]! |= R_HI.MODIFIED;
    this.#touched.add(slot);
  }

  #gfn(rHi: number, rLo: number, shift: number): number {
    return Math.floor(frameOf(rHi, rLo, shift) * this.#pagesPerFrame);
  }

  /** Where a valid entry hangs: the memslot page that its RPN names. Those of a memslot that goes are no longer valid. */
  #placeOf(slot: number): { memslot: EmulatedMemslot; map: ReverseMap; page: number } {
    const shadowLo = this.#shadowLo[slot]!;
    const gfn = this.#gfn(this.#shadowHi[slot]!, shadowLo, shiftOf(this.real.vLo(slot), shadowLo));
    const memslot = this.#context.memslotAt(gfn)!;
    return { memslot, map: this.#context.reverseMap(memslot), page: gfn - memslot.baseGfn };
  }

  #unlinkAndKeepRc(slot: number): void {
    const rc = this.real.rLo(slot) & RC;
    this.#shadowLo[slot]! |= rc;
    const { memslot, map, page } = this.#placeOf(slot);
    this.#unlink(slot, map, page);
    map.addRc(page, rc >> RC_SHIFT);
    if ((rc & R_LO.C) !== 0) this.#markDirty(memslot, page);
  }

  #link(slot: number, map: ReverseMap, page: number): void {
    const head = map.head(page);
    if (head < 0) {
      this.#next[slot] = slot;
      this.#previous[slot] = slot;
      map.setHead(page, slot);
      return;
    }
    const last = this.#previous[head]!;
    this.#next[slot] = head;
    this.#previous[slot] = last;
    this.#next[last] = slot;
    this.#previous[head] = slot;
  }

  #unlink(slot: number, map: ReverseMap, page: number): void {
    const next = this.#next[slot]!;
    const previous = this.#previous[slot]!;
    this.#next[previous] = next;
    this.#previous[next] = previous;
    if (map.head(page) === slot) map.setHead(page, next === slot ? -1 : next);
  }

  /** The entries of a ring, as they are now: valid ones. */
  #ring(head: number): number[] {
    const slots = [head];
    for (let slot = this.#next[head]!; slot !== head; slot = this.#next[slot]!) slots.push(slot);
    return slots;
  }

  /** No entry is valid whose page is larger than the host's: it is one page of the log. */
  #markDirty(memslot: EmulatedMemslot, page: number): void {
    this.#context.vm.dirtyLog.mark(memslot, memslot.baseGfn + page);
  }
}
