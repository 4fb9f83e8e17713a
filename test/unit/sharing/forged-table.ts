import { fstatSync, readSync, writeSync } from 'node:fs';
import type { KvmCalls } from '../../../lib/raw.ts';
import { SEAL } from '../../../lib/raw.ts';
import { HEADER, HOST_IS_LITTLE_ENDIAN as LE, REGION } from '../../../lib/sharing/table/layout.ts';

/** A copy of a table in which something is another, sealed as a table is: its descriptor, which is the caller's. */
export function forgeTable(calls: KvmCalls, fd: number, put: (view: DataView) => void = () => {}): number {
  const { size } = fstatSync(fd);
  const bytes = Buffer.alloc(size);
  readSync(fd, bytes, 0, size, 0);
  put(new DataView(bytes.buffer, bytes.byteOffset, size));
  const copy = calls.memfdCreate('forged', size, 0);
  writeSync(copy, bytes, 0, size, 0);
  calls.sharing!.addSeals(copy, SEAL.GROW | SEAL.SEAL);
  return copy;
}

/** Puts a field of a region, in the array that the generation says. */
export function putRegion(view: DataView, region: number, offset: number, value: bigint): void {
  const parity = Number(view.getBigUint64(HEADER.GENERATION, LE) & 1n);
  const maxRegions = view.getUint32(HEADER.MAX_REGIONS, LE);
  const regions = Number(view.getBigUint64(HEADER.REGIONS_OFFSET, LE));
  view.setBigUint64(regions + (parity * maxRegions + region) * REGION.BYTES + offset, value, LE);
}
