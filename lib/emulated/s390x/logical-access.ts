import { ASCE_REAL_SPACE } from '../../s390x/asce.ts';
import { cr0Low } from '../../s390x/cpu-state.ts';
import {
  fetchOverridePermits,
  keyPermits,
  PGM_PROTECTION,
  selectAsce,
  storageOverridePermits,
  Translation,
  translateFragment,
} from '../../s390x/index.ts';
import { inPrivateSpace, setEffectiveAddress, teidOf } from '../../s390x/translate.ts';
import { ERRNO } from '../../uapi/errno.ts';
import type { PendingInterruption, S390xVcpu } from './vcpu-state.ts';
import type { S390xVm } from './vm-state.ts';

/** Access key with which a frame of ACC 9 is tried again under storage-protection override. */
const OVERRIDE_KEY = 9;
const U32 = 0x1_0000_0000;

/**
 * One access to a guest's logical addresses: first every page is translated, so that no byte moves if any page has a
 * translation exception; then page by page is moved with the access key.
 */
export class LogicalAccess {
  readonly #vm: S390xVm;
  readonly #vcpu: S390xVcpu;
  readonly #access: 'fetch' | 'store';
  readonly #ar: number;
  readonly #key: number;
  readonly #translation = new Translation();
  #hi: number;
  #lo: number;
  /** A key failed after pages had been stored. */
  #terminating = false;

  constructor(vm: S390xVm, vcpu: S390xVcpu, gaddr: bigint, ar: number, store: boolean, key: number) {
    this.#vm = vm;
    this.#vcpu = vcpu;
    this.#access = store ? 'store' : 'fetch';
    this.#ar = ar;
    this.#key = key;
    this.#hi = Number(gaddr >> 32n);
    this.#lo = Number(gaddr & 0xffff_ffffn);
  }

  /** CHECK_ONLY: the first exception of the range, keys included. The interlock is taken even with DAT off. */
  check(size: number): number {
    const code = this.#select();
    if (code !== 0) return code;
    this.#vm.lockTranslations();
    try {
      return this.#eachFragment(size, (_done, length) => this.#translate() || this.#checkKey(length));
    } finally {
      this.#vm.unlockTranslations();
    }
  }

  /** Moves `data` out of the guest, or into it. */
  move(data: Uint8Array): number {
    const code = this.#select();
    if (code !== 0) return code;
    // Only what reads translation tables has to keep the guest from invalidating them.
    const locked = (this.#translation.asceLo & ASCE_REAL_SPACE) === 0;
    if (locked) this.#vm.lockTranslations();
    try {
      return this.#translateAndMove(data);
    } finally {
      if (locked) this.#vm.unlockTranslations();
    }
  }

  #translateAndMove(data: Uint8Array): number {
    const [hi, lo] = [this.#hi, this.#lo];
    const pfns: number[] = [];
    const code = this.#eachFragment(data.length, () => {
      const failure = this.#translate();
      pfns.push(this.#translation.pfn);
      return failure;
    });
    if (code !== 0) return code;
    this.#hi = hi;
    this.#lo = lo;
    let page = 0;
    return this.#eachFragment(data.length, (done, length) => {
      setEffectiveAddress(this.#vcpu.cpu, this.#hi, this.#lo, this.#translation);
      const part = data.subarray(done, done + length);
      const failure = this.#moveFragment(pfns[page]!, part);
      if (failure > 0) this.#terminating = this.#access === 'store' && page > 0;
      page++;
      return failure;
    });
  }

  #moveFragment(pfn: number, part: Uint8Array): number {
    const { storage } = this.#vm;
    const offset = this.#lo & 0xfff;
    const store = this.#access === 'store';
    const cr0 = cr0Low(this.#vcpu.cpu);
    let result: number;
    if (!store && this.#fetchOverride(part.length)) result = storage.move(pfn, offset, part, false);
    else result = storage.moveWithKey(pfn, offset, part, store, this.#key);
    if (result === PGM_PROTECTION) {
      const slot = storage.slot(pfn);
      if (slot !== undefined && storageOverridePermits(cr0, storage.states.key(slot, pfn))) {
        result = storage.moveWithKey(pfn, offset, part, store, OVERRIDE_KEY);
      }
    }
    if (result === PGM_PROTECTION) this.#translation.protection = 'key';
    return result;
  }

  #select(): number {
    const { cpu } = this.#vcpu;
    setEffectiveAddress(cpu, this.#hi, this.#lo, this.#translation);
    return selectAsce(cpu, this.#vm.storage, this.#access, this.#ar, this.#translation);
  }

  #translate(): number {
    return translateFragment(this.#vcpu.cpu, this.#vm.storage, this.#hi, this.#lo, this.#access, this.#translation);
  }

  #checkKey(length: number): number {
    if (this.#key === 0) return 0;
    const { storage } = this.#vm;
    const { pfn } = this.#translation;
    const slot = storage.slot(pfn)!;
    if (!storage.hasHostPage(slot, pfn)) return -ERRNO.EFAULT;
    const key = storage.states.key(slot, pfn);
    const store = this.#access === 'store';
    if (keyPermits(this.#key, key, store)) return 0;
    if (!store && this.#fetchOverride(length)) return 0;
    if (storageOverridePermits(cr0Low(this.#vcpu.cpu), key)) return 0;
    this.#translation.protection = 'key';
    return PGM_PROTECTION;
  }

  #fetchOverride(length: number): boolean {
    const { cpu } = this.#vcpu;
    const { addressHi, addressLo } = this.#translation;
    return fetchOverridePermits(cr0Low(cpu), inPrivateSpace(cpu, this.#translation), addressHi, addressLo, length);
  }

  /** Calls for each fragment of a page, with the address in `#hi` and `#lo`, until one fails. */
  #eachFragment(size: number, fragment: (done: number, length: number) => number): number {
    for (let done = 0; done < size; ) {
      const length = Math.min(4096 - (this.#lo & 0xfff), size - done);
      const result = fragment(done, length);
      if (result !== 0) return result;
      done += length;
      const next = this.#lo + length;
      if (next >= U32) this.#hi = (this.#hi + 1) >>> 0;
      this.#lo = next >>> 0;
    }
    return 0;
  }

  /** What KVM makes pending about the failed access. */
  interruption(code: number): PendingInterruption {
    const teid = teidOf(this.#vcpu.cpu, this.#translation, code, this.#access, this.#terminating);
    return { code, teid, exceptionAccessId: code >= 0x29 || teid !== undefined ? this.#ar : 0 };
  }
}
