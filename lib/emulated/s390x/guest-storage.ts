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
    this.#accessed(slot, pfn, hva, false);
    return 0;
  }

  #accessed(slot: EmulatedMemslot, gfn: number, hva: number, store: boolean): void {
    this.states.makePageTable(hva);
    this.states.accessed(slot, gfn, store);
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

  /** Whether user space has anything mapped where the slot's page should be, even if nobody may touch it. */
  isMapped(slot: EmulatedMemslot, gfn: number): boolean {
    return this.#vm.memory.isMapped(this.#vm.hostAddress(slot, gfn), 4096);
  }

  /** Whether there is a page table for the page; up to 6.19 that is where its key is. */
  hasPageTable(slot: EmulatedMemslot, gfn: number): boolean {
    const hva = this.#vm.hostAddress(slot, gfn);
    return this.states.hasPageTable(hva) || this.#vm.memory.isViewed(hva);
  }

  /** Makes the page present, if user space lets it be touched. */
  faultIn(slot: EmulatedMemslot, gfn: number, store: boolean): boolean {
    const hva = this.#vm.hostAddress(slot, gfn);
    if (!this.#vm.memory.canAccess(hva, store)) return false;
    this.states.makePageTable(hva);
    return true;
  }

  /** Whether user space lets the page be written. */
  canStore(slot: EmulatedMemslot, gfn: number): boolean {
    return this.#vm.memory.canAccess(this.#vm.hostAddress(slot, gfn), true);
  }

  /**
   * Whether the machine's move with an access key gets at the frame.
   * @returns 0; 5; 4 where the key forbids it, or the host page is missing or may not be accessed that way (before
   * 7.0 KVM can't tell the two apart); −EFAULT and −EOPNOTSUPP for the latter from 7.0 on.
   */
  permits(gfn: number, store: boolean, key: number): number {
    const slot = this.#vm.usableSlot(gfn);
    if (slot === undefined) return PGM_ADDRESSING;
    if (key !== 0 && !keyPermits(key, this.states.key(slot, gfn), store)) return PGM_PROTECTION;
    const hva = this.#vm.hostAddress(slot, gfn);
    return this.#vm.memory.canAccess(hva, store) ? 0 : this.#hostFault(hva, store);
  }

  /**
   * Moves bytes between a part of one frame and `data[at .. at + length)`, whatever the key.
   * @returns 0; 5; −EFAULT where the host page is missing or may not be accessed that way.
   */
  move(gfn: number, offset: number, data: Uint8Array, at: number, length: number, store: boolean): number {
    const slot = this.#vm.usableSlot(gfn);
    if (slot === undefined) return PGM_ADDRESSING;
    const { memory } = this.#vm;
    const hva = this.#vm.hostAddress(slot, gfn) + offset;
    if (memory.resolve(hva, store) && memory.available >= length) {
      if (store) copyBytes(data, at, memory.bytes, memory.at, length);
      else copyBytes(memory.bytes, memory.at, data, at, length);
    } else {
      // A page of a file, or none.
      const part = data.subarray(at, at + length);
      if ((store ? memory.write(hva, part) : memory.read(hva, part)) !== length) return -ERRNO.EFAULT;
    }
    this.#accessed(slot, gfn, hva, store);
    if (store) this.#vm.markDirty(slot, gfn);
    return 0;
  }

  #hostFault(hva: number, store: boolean): number {
    if (!this.#vm.architecture.release.since(7, 0)) return PGM_PROTECTION;
    return store && this.#vm.memory.canAccess(hva, false) ? -ERRNO.EOPNOTSUPP : -ERRNO.EFAULT;
  }
}

/** Up to this many bytes a loop is cheaper than a view of the part and a call. */
const FEW_BYTES = 32;

function copyBytes(from: Uint8Array, fromAt: number, to: Uint8Array, toAt: number, length: number): void {
  if (length > FEW_BYTES) to.set(from.subarray(fromAt, fromAt + length), toAt);
  else for (let i = 0; i < length; i++) to[toAt + i] = from[fromAt + i]!;
}
