import { Storage } from './storage.ts';

export const DUCT = 0x1_0000n;
const LIST = 0x1_1000n;
export const ASTE = 0x1_2000n;
export const AUTHORITY = 0x1_3000n;
export const SPACE = 0x2_0000n;
/** ALET: sequence 0x5a, entry 9 of the dispatchable-unit list. */
export const ALET = 0x005a_0009;
export const EAX = 0x123n;
export const ALE = LIST + 9n * 16n;
/** ALE word 0 with sequence 0x5a. */
const ALE_WORD = 0x005a_0000n << 32n;

/** Storage with the access list of ALET, whose space maps address 0 to SPACE + 0x9000. */
export function accessList(): Storage {
  const storage = new Storage(0x4000_0000n);
  storage.put(DUCT + 16n, (LIST | 1n) << 32n);
  storage.put(ALE, ALE_WORD);
  storage.put(ALE + 8n, (ASTE << 32n) | 0xcafe_f00dn);
  storage.put(ASTE, (AUTHORITY << 32n) | (0x12n << 4n));
  storage.put(ASTE + 8n, SPACE);
  storage.put(ASTE + 16n, 0xcafe_f00dn);
  storage.put(SPACE, SPACE + 0x8000n);
  storage.put(SPACE + 0x8000n, SPACE + 0x9000n);
  return storage;
}
