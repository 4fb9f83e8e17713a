/** Storage keys: one byte per 4 KiB frame, and the check of an access key against it. */

import { checkBoolean, checkBytes, checkHalf, checkInteger, checkOptions } from '../../../base/arguments.ts';
import { CR0_FETCH_PROTECTION_OVERRIDE, CR0_STORAGE_PROTECTION_OVERRIDE } from './control-registers.ts';

export const KEY_ACC = 0xf0;
export const KEY_FETCH_PROTECTION = 0x08;
export const KEY_REFERENCE = 0x04;
export const KEY_CHANGE = 0x02;

/** ACC of the frames that storage-protection override opens. */
const OVERRIDE_ACC = 0x90;
/** Fetch-protection override reaches effective addresses below this. */
const FETCH_OVERRIDE_END = 2048;

/** A storage key taken apart. */
export interface StorageKey {
  /** Access-control bits, 0 to 15: the access key that may store (and fetch, with F). */
  readonly acc: number;
  /** Fetch protection (F): other access keys may not fetch either. */
  readonly fetchProtection: boolean;
  /** Reference bit (R). */
  readonly reference: boolean;
  /** Change bit (C). */
  readonly change: boolean;
}

const NAMES = { acc: true, fetchProtection: true, reference: true, change: true } as const;

const checkKey = (key: number, name: string): number => checkInteger(key, name, 0, 0xff);

/** Takes a storage-key byte apart. Bit 0x01, which is always 0 in a key, is ignored. */
export function decodeStorageKey(key: number): StorageKey {
  checkKey(key, 'key');
  return {
    acc: (key & KEY_ACC) >>> 4,
    fetchProtection: (key & KEY_FETCH_PROTECTION) !== 0,
    reference: (key & KEY_REFERENCE) !== 0,
    change: (key & KEY_CHANGE) !== 0,
  };
}

/**
 * The byte of a storage key.
 * @param name what an error calls it
 * @throws RangeError ERR_OUT_OF_RANGE if `acc` is not an integer of 0 to 15; TypeError ERR_INVALID_ARG_TYPE if a bit is neither true nor false.
 */
export function encodeStorageKey(key: StorageKey, name = 'key'): number {
  const acc = checkInteger(checkOptions(key, NAMES, name).acc, `${name}.acc`, 0, 15);
  const bit = (of: 'fetchProtection' | 'reference' | 'change', value: number): number =>
    checkBoolean(key[of] ?? false, `${name}.${of}`) ? value : 0;
  return (
    (acc << 4) |
    bit('fetchProtection', KEY_FETCH_PROTECTION) |
    bit('reference', KEY_REFERENCE) |
    bit('change', KEY_CHANGE)
  );
}

/**
 * Whether the access key permits the access by the key alone; for KVM's absolute operations that is all there is.
 * @param accessKey 0 to 15; 0 permits everything.
 */
export function keyPermits(accessKey: number, storageKey: number, store: boolean): boolean {
  checkInteger(accessKey, 'accessKey', 0, 15);
  checkKey(storageKey, 'storageKey');
  if (accessKey === 0 || accessKey === (storageKey & KEY_ACC) >>> 4) return true;
  return !store && (storageKey & KEY_FETCH_PROTECTION) === 0;
}

/** Whether storage-protection override (CR0) permits what the key does not, for fetches and stores. */
export function storageOverridePermits(cr0Lo: number, storageKey: number): boolean {
  checkHalf(cr0Lo, 'cr0Lo');
  checkKey(storageKey, 'storageKey');
  return (cr0Lo & CR0_STORAGE_PROTECTION_OVERRIDE) !== 0 && (storageKey & KEY_ACC) === OVERRIDE_ACC;
}

/**
 * Whether fetch-protection override (CR0) permits a fetch from the page fragment [address, address + length) of
 * effective addresses. The whole fragment must be below 2048.
 * @param inPrivateSpace DAT is on and the ASCE has private-space control, which switches the override off.
 */
export function fetchOverridePermits(
  cr0Lo: number,
  inPrivateSpace: boolean,
  addressHi: number,
  addressLo: number,
  length: number,
): boolean {
  checkHalf(cr0Lo, 'cr0Lo');
  checkHalf(addressHi, 'addressHi');
  checkHalf(addressLo, 'addressLo');
  checkInteger(length, 'length', 0, Number.MAX_SAFE_INTEGER);
  if ((cr0Lo & CR0_FETCH_PROTECTION_OVERRIDE) === 0 || inPrivateSpace) return false;
  return addressHi === 0 && addressLo >>> 0 < FETCH_OVERRIDE_END && (addressLo >>> 0) + length <= FETCH_OVERRIDE_END;
}

/**
 * Storage keys as text, a line per frame: the form of QEMU's `dump-skeys`, which its users' tools read.
 * @param keys a byte per frame, beginning with frame `firstGfn`.
 */
export function* formatStorageKeys(keys: Uint8Array, firstGfn = 0): Generator<string, void> {
  checkBytes(keys, 'keys');
  checkInteger(firstGfn, 'firstGfn', 0, Number.MAX_SAFE_INTEGER);
  for (let i = 0; i < keys.length; i++) {
    const byte = keys[i]!;
    const key = decodeStorageKey(byte);
    const page = (firstGfn + i).toString(16).padStart(3, '0');
    const acc = key.acc.toString(16).toUpperCase();
    const flags = `FP=${+key.fetchProtection}, REF=${+key.reference}, CH=${+key.change}`;
    yield `page=${page}: key(${byte}) => ACC=${acc}, ${flags}`;
  }
}
