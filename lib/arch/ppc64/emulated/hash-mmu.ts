import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import type { EmulatedVm } from '../../../emulated/vm.ts';
import { refusal } from '../../../rules/rule.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { MMUV3 } from '../../../uapi/flags.ts';
import { groupsOf } from '../model/hash.ts';
import { HPTES_PER_GROUP, R_LO, V_LO } from '../model/hpte.ts';
import { pageEncoding } from '../model/page-sizes.ts';
import { type Segment, vrmaSegment } from '../model/slb.ts';
import {
  ALLOCATE_HTAB_RULES,
  type AllocateHtabContext,
  COMMIT_HPT_RULES,
  CONFIGURE_V3_RULES,
  NEW_HTAB_RULES,
  RESIZE_HPT_RULES,
  SWITCH_MMU_RULES,
} from '../rules.ts';
import { Hpt, HptContext } from './hpt.ts';
import { DEFAULT_HCALLS, H, HCALL } from './papr.ts';

/** Order of the table that the first KVM_RUN makes when there is none; the host has memory for it. */
const DEFAULT_ORDER = 24;

/** Largest order the emulated host has contiguous memory for, as a host of 2 GiB; larger ones are ENOMEM. */
const MAX_ALLOCATION = 27;

/** What RESIZE_HPT_PREPARE answers while the new table is being allocated: an estimate in milliseconds. */
const RESIZE_ESTIMATE = 100;

/** A table that RESIZE_HPT_PREPARE allocated, or why it couldn't. */
interface PendingResize {
  readonly order: number;
  readonly result: Hpt | number;
}

/** The MMU of one VM: radix until user space asks for a hashed page table, then that table. */
export class HashMmu {
  readonly context: HptContext;
  /** 1 for the hypercalls that the kernel answers; the others go to user space. */
  readonly enabledHcalls: Uint8Array = new Uint8Array(HCALL.BULK_REMOVE + 1);
  readonly #vm: EmulatedVm;
  /** A POWER9 host with radix makes radix guests. */
  radix = true;
  hpt: Hpt | undefined;
  /** The table is complete and vCPUs may run; else the next KVM_RUN sets it up. */
  ready = false;
  /** The segment that real-mode accesses go through. */
  vrma: Segment = vrmaSegment();
  #pending: PendingResize | undefined;

  constructor(vm: EmulatedVm) {
    this.#vm = vm;
    for (const nr of DEFAULT_HCALLS) this.enabledHcalls[nr] = 1;
    this.context = new HptContext(vm);
  }

  /** A descriptor of the table keeps the VM. */
  hold(): void {
    this.#vm.hold();
  }

  letGo(): void {
    this.#vm.letGo();
  }

  /** The vCPUs inside KVM_RUN, as far as they matter: a table that isn't set up has nobody using it. */
  get runningVcpus(): readonly number[] {
    return this.ready ? [...this.#vm.vcpus.values()].filter(({ running }) => running).map(({ id }) => id) : [];
  }

  #allocation(order: number): AllocateHtabContext {
    return { order, runningVcpus: this.runningVcpus, nested: false, hostOrder: MAX_ALLOCATION };
  }

  #allocate(order: number): Hpt | number {
    const refused = refusal(NEW_HTAB_RULES, this.#allocation(order));
    return refused === 0 ? new Hpt(this.context, order) : refused;
  }

  /** ALLOCATE_HTAB. */
  allocate(order: number): number {
    const refused = refusal(ALLOCATE_HTAB_RULES, this.#allocation(order));
    if (refused !== 0) return refused;
    this.ready = false;
    this.#switchToHash();
    if (this.hpt?.order === order) {
      this.hpt.reset();
      return 0;
    }
    // The old table goes before the new order is even looked at.
    this.#free();
    const allocated = this.#allocate(order);
    if (typeof allocated === 'number') return allocated;
    this.hpt = allocated;
    return 0;
  }

  #free(): void {
    this.hpt = undefined;
    this.context.resetReverseMaps();
  }

  #switchToHash(): void {
    this.context.resetReverseMaps();
    this.radix = false;
  }

  /** CONFIGURE_V3_MMU. */
  configure(flags: bigint, processTable: bigint): number {
    const refused = refusal(CONFIGURE_V3_RULES, { flags, processTable });
    if (refused !== 0) return refused;
    const radix = (flags & MMUV3.RADIX) !== 0n;
    if (radix === this.radix) return 0;
    const busy = refusal(SWITCH_MMU_RULES, this);
    if (busy !== 0) return busy;
    this.ready = false;
    if (radix) {
      this.#free();
      this.radix = true;
    } else {
      this.#switchToHash();
    }
    return 0;
  }

  /** RESIZE_HPT_PREPARE. The allocation, in KVM a worker thread's, is over when the next call comes. */
  prepareResize(flags: bigint, order: number): number {
    const refused = refusal(RESIZE_HPT_RULES, { flags, order, radix: this.radix });
    if (refused !== 0) return refused;
    const pending = this.#pending;
    if (pending?.order === order) {
      if (typeof pending.result !== 'number') return 0;
      this.#pending = undefined;
      return pending.result;
    }
    this.#pending = undefined;
    if (order === 0) return 0;
    this.#pending = { order, result: this.#allocate(order) };
    return RESIZE_ESTIMATE;
  }

  /** RESIZE_HPT_COMMIT. */
  commitResize(flags: bigint, order: number): number {
    const { radix, ready } = this;
    if (refusal(RESIZE_HPT_RULES, { flags, order, radix }) !== 0) return -ERRNO.EINVAL;
    const pending = this.#pending;
    this.#pending = undefined;
    const refused = refusal(COMMIT_HPT_RULES, { flags, order, radix, ready, prepared: pending?.order });
    if (refused !== 0 || pending === undefined) return refused;
    const { result } = pending;
    if (typeof result === 'number') return result;
    // An MMU that is set up has one.
    if (!this.hpt!.rehashInto(result)) return -ERRNO.ENOSPC;
    this.hpt = result;
    return 0;
  }

  /** What KVM_RUN does first: a table if there is none, and entries for real mode if nobody wrote any. */
  setUp(): number {
    if (this.ready) return 0;
    if (this.radix) {
      this.ready = true;
      return 0;
    }
    this.hpt ??= new Hpt(this.context, DEFAULT_ORDER);
    const memslot = this.#vm.usableSlot(0);
    if (memslot === undefined || !this.#vm.memory.isMapped(memslot.hostAddress, this.#vm.pageSize))
      return -ERRNO.EINVAL;
    const shift = Math.log2(this.#vm.pageSize);
    this.useVrma(shift);
    this.#mapVrma(this.hpt, memslot, shift);
    return 0;
  }

  /** Real mode goes through segments of this base page size from now on, and the table counts as set up. */
  useVrma(baseShift: number): void {
    this.vrma = vrmaSegment(baseShift);
    this.ready = true;
  }

  /** One bolted entry per page from address 0 on, in the last slot of its group, which nobody else has taken yet. */
  #mapVrma(hpt: Hpt, memslot: EmulatedMemslot, shift: number): void {
    const { large, lp } = pageEncoding(shift, shift);
    const pageSize = 2 ** shift;
    const groups = groupsOf(hpt.order);
    // Fewer than the segment of 1 TiB has: of no table that there is memory for are there so many groups.
    const pages = Math.min(memslot.npages, groups);
    const { avpnHi, avpnLo, hashLo } = this.vrma;
    const rLo = (lp << 12) | R_LO.R | R_LO.C | 0x10;
    for (let page = 0; page < pages; page++) {
      const address = page * pageSize;
      const slot = (((hashLo ^ page) >>> 0) % groups) * HPTES_PER_GROUP + HPTES_PER_GROUP - 1;
      const vLo = avpnLo | (Math.floor(address / 2 ** 16) & V_LO.AVPN) | V_LO.BOLTED | (large ? V_LO.LARGE : 0);
      const entered = hpt.enter(true, slot, avpnHi, vLo, Math.floor(address / 2 ** 32), (address >>> 0) | rLo);
      if (entered === H.PTEG_FULL) break;
    }
  }
}
