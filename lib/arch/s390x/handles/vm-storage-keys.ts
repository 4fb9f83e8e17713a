import { bytesFor, checkBytes, checkInstance, checkObject, checkU64 } from '../../../base/arguments.ts';
import { hex, invalidArgType, type KvmError } from '../../../base/errors.ts';
import { partOf } from '../../../base/part-of.ts';
import type { U64 } from '../../../base/u64.ts';
import { type Callee, callFailure } from '../../../calls/failure.ts';
import type { S390xCalls } from '../../../calls/kvm-calls.ts';
import { explain } from '../../../rules/rule.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { KEYOP, S390_GET_SKEYS_NONE, S390_SKEYS_MAX } from '../../../uapi/flags.ts';
import {
  decodeStorageKey,
  encodeStorageKey,
  KEY_ACC,
  KEY_FETCH_PROTECTION,
  type StorageKey,
} from '../model/storage-key.ts';
import { SKEYS_COUNT_RULES, SKEYS_FLAGS_RULES } from '../rules.ts';
import { copyStates } from './frame-states.ts';
import { plus } from './mem-op.ts';

/** A run of guest frames that have memory. */
interface Slot {
  readonly id: number;
  readonly baseGfn: number;
  readonly npages: number;
}

/** The VM whose keys they are. */
export interface KeysOwner extends Callee {
  readonly memslots: Iterable<Slot>;
}

const UNUSED_BIT = 1;
const PROTECTION_BITS = KEY_ACC | KEY_FETCH_PROTECTION;

/**
 * The storage keys of a VM: one per 4 KiB frame of absolute storage (KVM_CAP_S390_SKEYS, 4.1 and later). They aren't
 * kept before they are first used, by the guest or by {@link setBytes}; reading them then gives null, which isn't an
 * error. Up to 6.19 first use is a matter of the whole process, from 7.0 on of the VM.
 *
 * @example
 * for (const line of formatStorageKeys(vm.storageKeys.getBytes(0, 256) ?? new Uint8Array(256))) console.log(line);
 */
export class VmStorageKeys {
  readonly #s390x: S390xCalls;
  readonly #owner: KeysOwner;
  /** Kept: new memory would be faulted in for each call. */
  #readBack = new Uint8Array(0);

  /** Made by {@link Vm.storageKeys}. */
  constructor(s390x: S390xCalls, owner: KeysOwner) {
    this.#s390x = s390x;
    this.#owner = owner;
  }

  /**
   * KVM_S390_GET_SKEYS: a byte per frame, or null when nobody used keys. More than 2^20 are several calls.
   * @param count of frames; or the array that is filled, which takes a fraction of the time where it is used again
   * @throws KvmError EINVAL for none, EFAULT where a frame has no memory
   * @example vm.storageKeys.getBytes(0, 256)
   */
  getBytes(startGfn: U64, count: number | Uint8Array): Uint8Array | null {
    checkU64(startGfn, 'startGfn');
    const keys = bytesFor(count, 'count');
    for (const { gfn, part } of parts(startGfn, keys)) {
      const result = this.#s390x.getSkeys(this.#owner.fd, gfn, part.length, 0, part);
      if (result === S390_GET_SKEYS_NONE) return null;
      if (result !== 0) throw this.#failure('getSkeys', result, gfn, part);
    }
    return keys;
  }

  /** The keys taken apart, or null when nobody used keys. @throws as {@link getBytes} */
  get(startGfn: U64, count: number): StorageKey[] | null {
    const keys = this.getBytes(startGfn, count);
    return keys === null ? null : Array.from(keys, decodeStorageKey);
  }

  /**
   * KVM_S390_SET_SKEYS: sets a key per frame, R and C included, and begins the use of keys. Where a frame has no
   * memory, or a byte has bit 0x01, the frames before are set.
   *
   * Kernels up to 6.19 lose the first key in each 1 MiB of host memory that was never touched: keys that don't read back
   * are set again.
   * @throws KvmError EINVAL, EFAULT
   */
  setBytes(startGfn: U64, keys: Uint8Array): void {
    checkU64(startGfn, 'startGfn');
    for (const { gfn, part } of parts(startGfn, checkBytes(keys, 'keys'))) {
      this.#set(gfn, part);
      if (this.#someWereLost(gfn, part)) this.#set(gfn, part);
    }
  }

  /** As {@link setBytes}, from keys taken apart. @throws RangeError for an ACC that isn't 0 to 15 */
  set(startGfn: U64, keys: readonly StorageKey[]): void {
    if (!Array.isArray(keys)) throw invalidArgType('keys', 'an array of storage keys', keys);
    this.setBytes(
      startGfn,
      Uint8Array.from(keys, (key, index) => encodeStorageKey(key, `keys[${index}]`)),
    );
  }

  /**
   * Gives the frames of this VM's memslots the same keys in another VM, R and C included: to how many, as the others had them already. Keys
   * change without a log, so pause the guest first, and let the other's not run. Nothing happens where nobody has used keys.
   * @throws KvmError EFAULT where the other VM has no memory
   * @example await vm.pause(); vm.storageKeys.copyTo(other)
   */
  copyTo(target: { readonly storageKeys: VmStorageKeys }): number {
    const { storageKeys } = checkObject(target, 'target');
    const into = checkInstance(storageKeys, 'target.storageKeys', VmStorageKeys);
    const { memslots } = this.#owner;
    return copyStates(
      { memslots, read: (gfn, count) => this.getBytes(gfn, count) },
      { read: (gfn, count) => into.getBytes(gfn, count), set: (gfn, keys) => into.setBytes(gfn, keys) },
    );
  }

  /** KVM_S390_KEYOP (7.0 and later), insert storage key extended: the key. It doesn't begin the use of keys, and the first {@link setBytes} clears what {@link sske} set
   * before.
   * @throws KvmError EFAULT without a memslot, ENOTTY */
  iske(gaddr: U64): StorageKey {
    return decodeStorageKey(this.#keyOp(gaddr, KEYOP.ISKE, 0));
  }

  /** KVM_S390_KEYOP, reset reference bit: R and C as they were. @throws as {@link iske} */
  rrbe(gaddr: U64): Pick<StorageKey, 'reference' | 'change'> {
    const { reference, change } = decodeStorageKey(this.#keyOp(gaddr, KEYOP.RRBE, 0));
    return { reference, change };
  }

  /** KVM_S390_KEYOP, set storage key extended: the key before. @throws as {@link iske} */
  sske(gaddr: U64, key: StorageKey): StorageKey {
    return decodeStorageKey(this.#keyOp(gaddr, KEYOP.SSKE, encodeStorageKey(key)));
  }

  #keyOp(gaddr: U64, operation: number, value: number): number {
    const key = Uint8Array.of(value);
    const result = this.#s390x.keyOp(this.#owner.fd, checkU64(gaddr, 'gaddr'), operation, key);
    if (result === 0) return key[0]!;
    const explanation =
      result === -ERRNO.ENOTTY
        ? 'kernels before 7.0 have no KEYOP'
        : result === -ERRNO.EFAULT
          ? `no memslot has absolute ${hex(gaddr)}`
          : undefined;
    throw callFailure('keyOp', result, this.#owner, { gpa: gaddr, explanation });
  }

  #set(gfn: U64, keys: Uint8Array): void {
    const result = this.#s390x.setSkeys(this.#owner.fd, gfn, keys.length, 0, keys);
    if (result !== 0) throw this.#failure('setSkeys', result, gfn, keys);
  }

  /** R and C may have changed since, by whoever touches the frames. */
  #someWereLost(gfn: U64, keys: Uint8Array): boolean {
    if (this.#readBack.length < keys.length) this.#readBack = new Uint8Array(keys.length);
    const now = this.#readBack.subarray(0, keys.length);
    if (this.#s390x.getSkeys(this.#owner.fd, gfn, keys.length, 0, now) !== 0) return false;
    if (Buffer.compare(keys, now) === 0) return false;
    // A loop takes a third of the time of some().
    for (let i = 0; i < keys.length; i++) {
      const [set, key] = [keys[i]!, now[i]!];
      if (((key ^ set) & PROTECTION_BITS) !== 0 || (set & ~key) !== 0) return true;
    }
    return false;
  }

  #failure(call: 'getSkeys' | 'setSkeys', result: number, gfn: U64, keys: Uint8Array): KvmError {
    const explanation =
      this.#whyFrames(gfn, keys.length, result) ??
      (call === 'setSkeys' ? whyKey(gfn, keys, result) : undefined) ??
      explain([...SKEYS_FLAGS_RULES, ...SKEYS_COUNT_RULES], { flags: 0, count: BigInt(keys.length) }, result);
    return callFailure(call, result, this.#owner, { gpa: BigInt(gfn) << 12n, explanation });
  }

  #whyFrames(startGfn: U64, count: number, result: number): string | undefined {
    if (result !== -ERRNO.EFAULT) return undefined;
    const slots = [...this.#owner.memslots];
    let gfn = Number(startGfn);
    const end = gfn + count;
    for (let slot = find(slots, gfn); slot !== undefined && gfn < end; slot = find(slots, gfn)) {
      gfn = slot.baseGfn + slot.npages;
    }
    if (gfn < end) return `frame ${hex(gfn)} of the ${count} from ${hex(startGfn)} on is in no memslot`;
    return 'a frame is in a memslot, but the host has no memory there';
  }
}

const find = (slots: readonly Slot[], gfn: number): Slot | undefined =>
  slots.find((slot) => gfn >= slot.baseGfn && gfn < slot.baseGfn + slot.npages);

function whyKey(startGfn: U64, keys: Uint8Array, result: number): string | undefined {
  const index = keys.findIndex((key) => (key & UNUSED_BIT) !== 0);
  if (result !== -ERRNO.EINVAL || index < 0) return undefined;
  return `the key ${hex(keys[index]!)} of frame ${hex(plus(startGfn, index))} has bit 0x01, which no key has`;
}

/** As many keys as one call takes, and at least one call. */
function* parts(startGfn: U64, keys: Uint8Array): Generator<{ gfn: U64; part: Uint8Array }, void> {
  for (let at = 0; at === 0 || at < keys.length; at += S390_SKEYS_MAX) {
    yield { gfn: plus(startGfn, at), part: partOf(keys, at, at + S390_SKEYS_MAX) };
  }
}
