import type { ArchVm } from '../../../emulated/arch-state.ts';
import type { MemoryObserver } from '../../../emulated/host-memory.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import type { EmulatedVm } from '../../../emulated/vm.ts';
import type { MemslotContext } from '../../../rules/memslot.ts';
import type { Rule } from '../../../rules/rule.ts';
import { CAP } from '../../../uapi/capabilities.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { MEM } from '../../../uapi/flags.ts';
import type { Release } from '../../../uapi/release.ts';
import { SEGMENT_PAGES } from '../model/dat-entries.ts';
import { s390xMemslotRules } from '../rules.ts';
import { getAttribute, hasAttribute, setAttribute } from './attributes.ts';
import { CmmaDirty } from './cmma-dirty.ts';
import { GuestPageStates } from './guest-page-states.ts';
import { GuestStorage } from './guest-storage.ts';
import type { IpteLock } from './ipte-lock.ts';
import { type PageStates, processPageStates } from './page-states.ts';

const PAGE = 4096;

/** Of the machine that the recordings are from: what SCLP says of its highest guest address. */
const MEMORY_LIMIT = 1n << 47n;

/** What tables of two, three and four levels reach. */
const TABLE_REACH = [1n << 31n, 1n << 42n, 1n << 53n] as const;

/** What an emulated s390x VM has beside its memslots. */
export class S390xVm implements ArchVm, MemoryObserver {
  readonly storage: GuestStorage;
  readonly states: PageStates;
  /** The same, where they are the VM's own; from 7.0 on. */
  readonly #own: GuestPageStates | undefined;
  /** Highest guest address + 1. */
  readonly memoryLimit = MEMORY_LIMIT;
  readonly memslotRules: readonly Rule<MemslotContext>[];
  cmmaEnabled = false;
  /** ENABLE_CAP(S390_IRQCHIP) was done: user space may make the interrupt controller. */
  #irqchip = false;
  /** User space used SET_MP_STATE: whether vCPUs are stopped is its affair alone. */
  userSetsMpState = false;
  migrating = false;
  readonly cmmaDirty = new CmmaDirty();
  /** Present once the guest's memory is shared with other threads; in one thread nothing can interleave. */
  ipteLock: IpteLock | undefined;
  /** Segments in the guest's own tables. */
  readonly #linked = new Set<number>();
  readonly #vm: EmulatedVm;
  /** First address that the VM's own page tables don't reach; from 7.0 on. */
  #reach: bigint = TABLE_REACH[2];

  constructor(vm: EmulatedVm) {
    this.#vm = vm;
    this.#own = vm.machine.release.since(7, 0) ? new GuestPageStates() : undefined;
    this.states = this.#own ?? processPageStates(vm.memory);
    if (this.#own !== undefined) vm.memory.observe(this);
    this.storage = new GuestStorage(vm, this.states);
    const limit = () => (this.#reach < MEMORY_LIMIT ? this.#reach : MEMORY_LIMIT);
    this.memslotRules = s390xMemslotRules(!this.ownsPageTables, limit);
  }

  released(): void {
    this.#vm.memory.unobserve(this);
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

  /**
   * The page tables are to reach no further than they must for a limit. Up to 6.19 it is no matter of the memslots, and
   * from 7.0 on −EBUSY where one lies beyond.
   */
  limitTables(limit: bigint): number {
    if (!this.ownsPageTables) return 0;
    const isBeyond = ({ baseGfn, npages }: EmulatedMemslot): boolean => BigInt(baseGfn + npages) << 12n > limit;
    if (this.slots().some(isBeyond)) return -ERRNO.EBUSY;
    this.#reach = TABLE_REACH.find((reach) => limit <= reach) ?? TABLE_REACH[2];
    return 0;
  }

  /** KVM has page tables of its own for each VM, with keys and CMMA values in them. */
  get ownsPageTables(): boolean {
    return this.#own !== undefined;
  }

  /** Makes the guest's page present, as a load of the guest's does; false where user space has none. */
  faultIn(slot: EmulatedMemslot, gfn: number): boolean {
    if (!this.storage.faultIn(slot, gfn, false)) return false;
    this.link(gfn);
    return true;
  }

  /** The guest touched the page: its own tables lead to it, up to 6.19 by way of the process's page table for the segment. */
  link(gfn: number): void {
    if (this.#own !== undefined) this.#own.link(gfn);
    else this.#linked.add(Math.floor(gfn / SEGMENT_PAGES));
  }

  memslotCommitted(slot: EmulatedMemslot): void {
    // A slot that isn't logged ends migration mode, silently.
    if ((slot.flags & MEM.LOG_DIRTY_PAGES) === 0) this.migrating = false;
  }

  /** The slot's part of the guest's own tables goes; from 7.0 on with what was in them. */
  memslotFlushed(slot: EmulatedMemslot): void {
    this.#own?.forget(slot.baseGfn, slot.npages);
    if (this.ownsPageTables) this.cmmaDirty.forget(slot);
    for (const segment of this.#linkedOf(slot)) this.#linked.delete(segment);
  }

  pagesInvalidated(first: number, end: number): void {
    this.#own?.absent(first, end);
  }

  /** User space itself accessed memory, which the VM is told where page tables are its own. */
  touched(hva: number, length: number, write: boolean): void {
    for (const slot of this.slots()) {
      const first = Math.max(0, Math.floor((hva - slot.hostAddress) / PAGE));
      const end = Math.min(slot.npages, Math.ceil((hva + length - slot.hostAddress) / PAGE));
      if (first < end) this.#own!.userAccessed(slot.baseGfn + first, end - first, write);
    }
  }

  enableCap(cap: number): number {
    if (cap !== CAP.S390_IRQCHIP) return -ERRNO.EINVAL;
    this.#irqchip = true;
    return 0;
  }

  /** Made by the capability; this only makes its routing. */
  createIrqchip(): number {
    return this.#irqchip ? 0 : -ERRNO.EINVAL;
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
   * Brings the dirty bitmap of a slot up to date with the changes of the pages that the guest's own tables lead to, keys
   * included: up to 6.19 those by user space too.
   */
  syncDirtyLog(slot: EmulatedMemslot): void {
    if (this.#own !== undefined) {
      for (const gfn of this.#own.takeAllChanged(slot)) this.#vm.dirtyLog.mark(slot, gfn);
      return;
    }
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
