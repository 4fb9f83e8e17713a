import { CLEAR_DIRTY_LOG_RULES, type DirtyLogContext } from '../rules/dirty-log.ts';
import { DIRTY_RING_RULES } from '../rules/dirty-ring.ts';
import { refusal } from '../rules/rule.ts';
import { ERRNO } from '../uapi/errno.ts';
import { DIRTY_LOG } from '../uapi/flags.ts';
import { asIdOf, slotIdOf, slotWord } from '../uapi/slot-word.ts';
import { EmulatedDirtyRing } from './dirty-ring.ts';
import type { Machine } from './machine.ts';
import type { EmulatedMemslot, MemslotSet } from './memslots.ts';
import { copyOut } from './user-memory.ts';

/** Which pages of a VM's memslots are dirty: the one owner of bitmaps and rings, and of what was asked of them. */
export class DirtyLog {
  readonly #machine: Machine;
  readonly #spaces: readonly MemslotSet[];
  /** Bytes of each vCPU's dirty ring; 0 = bitmaps. */
  #ringBytes = 0;
  #ringWithBitmap = false;
  /** Bits of DIRTY_LOG that ENABLE_CAP(MANUAL_DIRTY_LOG_PROTECT2) set. */
  #manualProtect = 0;

  constructor(machine: Machine, spaces: readonly MemslotSet[]) {
    this.#machine = machine;
    this.#spaces = spaces;
  }

  get usesRings(): boolean {
    return this.#ringBytes !== 0;
  }

  /** There are no bitmaps. */
  get ringOnly(): boolean {
    return this.usesRings && !this.#ringWithBitmap;
  }

  /** The ring of a new vCPU, if the VM has them. */
  newRing(): EmulatedDirtyRing | undefined {
    return this.usesRings ? new EmulatedDirtyRing(this.#ringBytes, this.#machine.littleEndian) : undefined;
  }

  // Slots and their pages

  /** A slot was made, or its flags changed: its log begins, goes on or ends. */
  flagsChanged(slot: EmulatedMemslot): void {
    if (!slot.logged) {
      slot.dirty.drop();
      return;
    }
    if (this.usesRings) slot.dirty.keepRing();
    if (!this.ringOnly) slot.dirty.keepBitmap((this.#manualProtect & DIRTY_LOG.INITIALLY_SET) !== 0);
  }

  /** Notes that a page was changed on the guest's behalf; in the ring of the vCPU that runs, if one does. */
  mark(slot: EmulatedMemslot, gfn: number, ring?: EmulatedDirtyRing): void {
    if (!slot.logged) return;
    const page = gfn - slot.baseGfn;
    if (ring === undefined) slot.dirty.mark(page, 1);
    // The guest's first store to a page is noticed, later ones only after the entry was reset; KVM's own stores always.
    else if (slot.dirty.claim(page) || this.#machine.emulatesGuestCode) ring.push(slotWord(slot.asId, slot.id), page);
  }

  /** User space's pages behind those of a slot, [first, end), are others: the guest's next store to each is noticed again. */
  pagesChanged(slot: EmulatedMemslot, first: number, end: number): void {
    slot.dirty.protect(first, end);
  }

  // Requests

  /** GET_DIRTY_LOG; `sync` brings a slot's bits up to date before they are read. */
  get(word: number, bitmap: Uint8Array | null, sync: (slot: EmulatedMemslot) => void): number {
    const refused = refusal(this.#machine.dirtyLogRules, this.#context(word));
    if (refused !== 0) return refused;
    const slot = this.#slotOf(word)!;
    sync(slot);
    const answer = slot.dirty.copy();
    const copied = copyOut(answer, bitmap);
    // Most kernels clear before they copy: bits that can't be delivered are lost.
    const isTaken = copied === 0 || !this.#machine.dirtyLogSurvivesFault;
    if (isTaken && this.#manualProtect === 0) slot.dirty.clear();
    return copied;
  }

  /** CLEAR_DIRTY_LOG. */
  clear(word: number, firstPage: bigint, numPages: number, bitmap: Uint8Array | null): number {
    if (this.#machine.manualProtect === 0) return -ERRNO.ENOTTY;
    const refused = refusal(CLEAR_DIRTY_LOG_RULES, { ...this.#context(word), firstPage, numPages });
    if (refused !== 0) return refused;
    const length = Math.ceil(numPages / 64) * 8;
    if (bitmap === null || length > bitmap.length) return length === 0 ? 0 : -ERRNO.EFAULT;
    this.#slotOf(word)!.dirty.clearBits(Number(firstPage), bitmap, length);
    return 0;
  }

  /** RESET_DIRTY_RINGS. */
  resetRings(rings: Iterable<EmulatedDirtyRing | undefined>): number {
    if (!this.usesRings) return -ERRNO.EINVAL;
    let count = 0;
    for (const ring of rings) {
      // Entries of slots that are gone, or were longer, are counted and otherwise ignored.
      count += ring!.takeReset((word, page) => this.#slotOf(word)?.dirty.protect(page, page + 1));
    }
    return count;
  }

  /** ENABLE_CAP(MANUAL_DIRTY_LOG_PROTECT2). */
  enableManualProtect(flags: number, wanted: bigint): number {
    const known = this.#machine.manualProtect;
    if (known === 0) return -ERRNO.EINVAL;
    const enable = BigInt(DIRTY_LOG.MANUAL_PROTECT_ENABLE);
    const allowed = (wanted & enable) === 0n ? enable : BigInt(known);
    if (flags !== 0 || (wanted & ~allowed) !== 0n) return -ERRNO.EINVAL;
    this.#manualProtect = Number(wanted);
    return 0;
  }

  /** ENABLE_CAP(DIRTY_LOG_RING and _ACQ_REL); `maxBytes` is what CHECK_EXTENSION says of the capability. */
  enableRings(bytes: bigint, maxBytes: number, vcpus: number): number {
    const { pageSize } = this.#machine;
    const refused = refusal(DIRTY_RING_RULES, { bytes, pageSize, maxBytes, enabled: this.#ringBytes, vcpus });
    if (refused === 0) this.#ringBytes = Number(bytes);
    return refused;
  }

  /** ENABLE_CAP(DIRTY_LOG_RING_WITH_BITMAP). */
  enableRingWithBitmap(flags: number, isKnown: boolean): number {
    const hasMemslots = this.#spaces.some((space) => space.size !== 0);
    if (!isKnown || !this.usesRings || flags !== 0 || hasMemslots) return -ERRNO.EINVAL;
    this.#ringWithBitmap = true;
    return 0;
  }

  #context(word: number): DirtyLogContext {
    return {
      slot: word,
      userSlots: this.#machine.userSlots,
      addressSpaces: this.#spaces.length,
      ringOnly: this.ringOnly,
      existing: this.#slotOf(word),
    };
  }

  #slotOf(word: number): EmulatedMemslot | undefined {
    return this.#spaces[asIdOf(word)]?.get(slotIdOf(word));
  }
}
