import { Storage } from './storage.ts';

export const R1 = 0x10_0000n;
export const R2 = 0x11_0000n;
export const R3 = 0x12_0000n;
export const SEGMENTS = 0x13_0000n;
export const PAGES = 0x14_0800n;
export const FRAME = 0x20_0000n;
/** CR0 with EDAT and IEP enabled. */
export const CR0 = 0x90_0000;

/** Address with index 1 in every table, so that no table is read at its origin by mistake. */
export const VA = (1n << 53n) | (1n << 42n) | (1n << 31n) | (1n << 20n) | (1n << 12n) | 0x345n;

/** Five levels that map VA to FRAME. */
export function fiveLevels(): Storage {
  const storage = new Storage(0x100_0000n);
  storage.put(R1 + 8n, R2 | 0xcn | 3n);
  storage.put(R2 + 8n, R3 | 8n | 3n);
  storage.put(R3 + 8n, SEGMENTS | 4n | 3n);
  storage.put(SEGMENTS + 8n, PAGES);
  storage.put(PAGES + 8n, FRAME);
  return storage;
}

/** The same with the entry at an address changed. */
export function withEntry(address: bigint, change: (entry: bigint) => bigint): Storage {
  const storage = fiveLevels();
  storage.put(address, change(storage.get(address)));
  return storage;
}
