import type { EmulatedMemslot } from '../memslots.ts';
import type { Release } from '../release.ts';
import type { EmulatedVm } from '../vm.ts';
import { CmmaDirty } from './cmma.ts';
import { GuestStorage } from './guest-storage.ts';
import type { IpteLock } from './ipte-lock.ts';
import { PageStates, processPageStates } from './page-states.ts';

/** What an emulated s390x VM has beside its memslots. */
export class S390xVm {
  readonly storage: GuestStorage;
  readonly states: PageStates;
  /** Highest guest address + 1. */
  readonly memoryLimit: bigint;
  cmmaEnabled = false;
  migrating = false;
  readonly cmmaDirty = new CmmaDirty();
  /** Present once the guest's memory is shared with other threads; in one thread nothing can interleave. */
  ipteLock: IpteLock | undefined;
  readonly #vm: EmulatedVm;

  constructor(vm: EmulatedVm, memoryLimit: bigint) {
    this.#vm = vm;
    this.memoryLimit = memoryLimit;
    this.states = vm.architecture.release.since(7, 0) ? new PageStates(true) : processPageStates(vm.memory);
    this.storage = new GuestStorage(vm, this.states);
  }

  get release(): Release {
    return this.#vm.architecture.release;
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

  /** Sets a key; a change of it counts as a change of the page. */
  setKey(slot: EmulatedMemslot, gfn: number, key: number): void {
    if (this.states.key(slot, gfn) !== key) this.#vm.markDirty(slot, gfn);
    this.states.setKey(slot, gfn, key);
  }

  lockTranslations(): void {
    this.ipteLock?.lock();
  }

  unlockTranslations(): void {
    this.ipteLock?.unlock();
  }
}
