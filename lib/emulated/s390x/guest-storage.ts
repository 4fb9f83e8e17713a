import { type AbsoluteMemory, keyPermits, PGM_ADDRESSING, PGM_PROTECTION } from '../../s390x/index.ts';
import { ERRNO } from '../../uapi/errno.ts';
import type { EmulatedMemslot } from '../memslots.ts';
import type { EmulatedVm } from '../vm.ts';
import type { PageStates } from './page-states.ts';

/** Absolute storage of a guest: what its memslots show of the process's memory. */
export class GuestStorage implements AbsoluteMemory {
  hi = 0;
  lo = 0;
  readonly states: PageStates;
  readonly #vm: EmulatedVm;
  readonly #scratch = new Uint8Array(8);

  constructor(vm: EmulatedVm, states: PageStates) {
    this.#vm = vm;
    this.states = states;
  }

  readDoubleword(pfn: number, offset: number): number {
    const slot = this.#vm.usableSlot(pfn);
    if (slot === undefined) return PGM_ADDRESSING;
    const { memory } = this.#vm;
    const hva = this.#vm.hostAddress(slot, pfn) + offset;
    if (memory.resolve(hva, false)) {
      this.#take(memory.bytes, memory.at);
    } else {
      // A page of a file, or none.
      if (memory.read(hva, this.#scratch) !== 8) return -ERRNO.EFAULT;
      this.#take(this.#scratch, 0);
    }
    this.states.accessed(slot, pfn, false);
    return 0;
  }

  #take(bytes: Uint8Array, at: number): void {
    this.hi = ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
    this.lo = ((bytes[at + 4]! << 24) | (bytes[at + 5]! << 16) | (bytes[at + 6]! << 8) | bytes[at + 7]!) >>> 0;
  }

  hasFrame(pfn: number): boolean {
    return this.#vm.usableSlot(pfn) !== undefined;
  }

  slot(gfn: number): EmulatedMemslot | undefined {
    return this.#vm.usableSlot(gfn);
  }

  /** Whether user space has anything mapped where the slot's page should be; without it there is no key either. */
  hasHostPage(slot: EmulatedMemslot, gfn: number): boolean {
    const hva = this.#vm.hostAddress(slot, gfn);
    return this.#vm.memory.canAccess(hva, false) || this.#vm.memory.canAccess(hva, true);
  }

  /** Whether user space lets the page be written. */
  canStore(slot: EmulatedMemslot, gfn: number): boolean {
    return this.#vm.memory.canAccess(this.#vm.hostAddress(slot, gfn), true);
  }

  markDirty(slot: EmulatedMemslot, gfn: number): void {
    this.#vm.markDirty(slot, gfn);
  }

  /**
   * Moves bytes between a part of one frame and `data`, as the machine's move with an access key does.
   * @returns 0; 5; 4 where the key forbids it, or the host page is missing or may not be accessed that way (before
   * 7.0 KVM can't tell the two apart); −EFAULT and −EOPNOTSUPP for the latter from 7.0 on.
   */
  moveWithKey(gfn: number, offset: number, data: Uint8Array, store: boolean, key: number): number {
    const slot = this.#vm.usableSlot(gfn);
    if (slot === undefined) return PGM_ADDRESSING;
    if (!keyPermits(key, this.states.key(slot, gfn), store)) return PGM_PROTECTION;
    const hva = this.#vm.hostAddress(slot, gfn) + offset;
    if (!this.#vm.memory.canAccess(hva, store)) return this.#hostFault(hva, store);
    return this.#move(slot, gfn, hva, data, store);
  }

  /** Moves bytes without a look at the key; a host page that is missing is −EFAULT. */
  move(gfn: number, offset: number, data: Uint8Array, store: boolean): number {
    const slot = this.#vm.usableSlot(gfn);
    if (slot === undefined) return PGM_ADDRESSING;
    return this.#move(slot, gfn, this.#vm.hostAddress(slot, gfn) + offset, data, store);
  }

  #move(slot: EmulatedMemslot, gfn: number, hva: number, data: Uint8Array, store: boolean): number {
    const { memory } = this.#vm;
    const moved = store ? memory.write(hva, data) : memory.read(hva, data);
    if (moved !== data.length) return -ERRNO.EFAULT;
    this.states.accessed(slot, gfn, store);
    if (store) this.#vm.markDirty(slot, gfn);
    return 0;
  }

  #hostFault(hva: number, store: boolean): number {
    if (!this.#vm.architecture.release.since(7, 0)) return PGM_PROTECTION;
    return store && this.#vm.memory.canAccess(hva, false) ? -ERRNO.EOPNOTSUPP : -ERRNO.EFAULT;
  }
}
