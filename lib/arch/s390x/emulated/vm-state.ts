import type { ArchVm } from '../../../emulated/arch-state.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import type { EmulatedVm } from '../../../emulated/vm.ts';
import { MEM } from '../../../uapi/flags.ts';
import type { Release } from '../../../uapi/release.ts';
import { getAttribute, hasAttribute, setAttribute } from './attributes.ts';
import { CmmaDirty } from './cmma-dirty.ts';
import { GuestStorage } from './guest-storage.ts';
import type { IpteLock } from './ipte-lock.ts';
import { PageStates, processPageStates } from './page-states.ts';

/** Pages of 1 MiB. */
const SEGMENT_PAGES = 256;

/** Of the machine that the recordings are from: what SCLP says of its highest guest address. */
export const MEMORY_LIMIT = 1n << 47n;

/** What an emulated s390x VM has beside its memslots. */
export class S390xVm implements ArchVm {
  readonly storage: GuestStorage;
  readonly states: PageStates;
  /** Highest guest address + 1. */
  readonly memoryLimit = MEMORY_LIMIT;
  cmmaEnabled = false;
  /** User space used SET_MP_STATE: whether vCPUs are stopped is its affair alone. */
  userSetsMpState = false;
  migrating = false;
  readonly cmmaDirty = new CmmaDirty();
  /** Present once the guest's memory is shared with other threads; in one thread nothing can interleave. */
  ipteLock: IpteLock | undefined;
  /** Segments in the guest's own tables. */
  readonly #linked = new Set<number>();
  readonly #vm: EmulatedVm;

  constructor(vm: EmulatedVm) {
    this.#vm = vm;
    this.states = vm.machine.release.since(7, 0) ? new PageStates(true) : processPageStates(vm.memory);
    this.storage = new GuestStorage(vm, this.states);
  }

  get release(): Release {
    return this.#vm.machine.release;
  }

  get hasVcpus(): boolean {
    return this.#vm.vcpus.size !== 0;
  }

  /** In ascending order of guest address. */
  slots(): readonly EmulatedMemslot[] {
    return [...this.#vm.spaces[0]!];
  }

  /** The first use of keys: those that were there are cleared, and from now on they are maintained. */
  enableKeys(): void {
    this.states.keysEnabled = true;
  }

  setKey(slot: EmulatedMemslot, gfn: number, key: number): void {
    if (this.release.since(7, 0) && this.states.key(slot, gfn) !== key) this.#vm.dirtyLog.mark(slot, gfn);
    this.states.setKey(slot, gfn, key);
  }

  /** Sets the keys of frames that follow one another. */
  setKeys(slot: EmulatedMemslot, gfn: number, keys: Uint8Array, at: number, length: number): void {
    if (!this.release.since(7, 0)) this.states.writeKeys(slot, gfn, keys, at, length);
    else for (let i = 0; i < length; i++) this.setKey(slot, gfn + i, keys[at + i]!);
  }

  /** The guest touched the page: its own tables point to the process's page table for the segment. */
  linkSegment(gfn: number): void {
    this.#linked.add(Math.floor(gfn / SEGMENT_PAGES));
  }

  memslotCommitted(slot: EmulatedMemslot): void {
    // A slot that isn't logged ends migration mode, silently.
    if ((slot.flags & MEM.LOG_DIRTY_PAGES) === 0) this.migrating = false;
  }

  /** The slot's part of the guest's own tables goes. */
  memslotFlushed(slot: EmulatedMemslot): void {
    for (const segment of this.#linkedOf(slot)) this.#linked.delete(segment);
  }

  setDeviceAttr(group: number, attr: bigint, value: Uint8Array | null): number {
    return setAttribute(this, group, attr, value);
  }

  getDeviceAttr(group: number, attr: bigint, value: Uint8Array | null): number {
    return getAttribute(this, group, attr, value);
  }

  hasDeviceAttr(group: number, attr: bigint): number {
    return hasAttribute(group, attr);
  }

  /**
   * Brings the dirty bitmap of a slot up to date: up to 6.19 with every change of the pages that the guest's own
   * tables lead to, also those by user space and of keys.
   */
  syncDirtyLog(slot: EmulatedMemslot): void {
    if (this.release.since(7, 0)) return;
    for (const segment of this.#linkedOf(slot)) {
      const start = Math.max(segment * SEGMENT_PAGES, slot.baseGfn);
      const end = Math.min((segment + 1) * SEGMENT_PAGES, slot.baseGfn + slot.npages);
      for (let gfn = start; gfn < end; gfn++) if (this.states.takeChanged(slot, gfn)) this.#vm.dirtyLog.mark(slot, gfn);
    }
  }

  #linkedOf(slot: EmulatedMemslot): number[] {
    const first = Math.floor(slot.baseGfn / SEGMENT_PAGES);
    const end = (slot.baseGfn + slot.npages) / SEGMENT_PAGES;
    return [...this.#linked].filter((segment) => segment >= first && segment < end);
  }

  lockTranslations(): void {
    this.ipteLock?.lock();
  }

  unlockTranslations(): void {
    this.ipteLock?.unlock();
  }

  /** Before a guest's invalidation: false while a host walk is under way. */
  tryInvalidate(): boolean {
    return this.ipteLock?.tryInvalidate() ?? true;
  }

  invalidated(): void {
    this.ipteLock?.invalidated();
  }
}
