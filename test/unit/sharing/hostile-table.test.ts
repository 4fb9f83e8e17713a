import { readSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AddressSpace, Mapping } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { CONSUMER, HEADER, HOST_IS_LITTLE_ENDIAN, REGION } from '../../../lib/sharing/table/layout.ts';
import { UNIT } from '../handles/backends.ts';
import { forgeTable, putRegion } from './forged-table.ts';
import { hostCalls, openDescriptors, remainingDescriptors } from './host.ts';

let calls: KvmCalls;
let before: number;
let space: AddressSpace;

beforeEach((test) => {
  calls = hostCalls(test);
  before = openDescriptors();
  space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  for (const gpa of [0, 4 * UNIT]) {
    const ram = Mapping.memfd(calls, UNIT);
    space.addRam(gpa, ram);
    ram.close();
  }
  space.share({ regions: 4, consumers: 2, end: 2 ** 31 });
});
afterEach(async () => {
  space.close();
  expect(await remainingDescriptors(before)).toBeLessThanOrEqual(before);
});

/** Attaches to a copy of the table in which one number is another. */
async function attachTo(put: (view: DataView) => void): Promise<void> {
  const copy = forgeTable(calls, space.fd, put);
  try {
    (await AddressSpace.attach(calls, [copy, ...space.descriptors.slice(1)])).release();
  } finally {
    calls.close(copy);
  }
}

const LE = HOST_IS_LITTLE_ENDIAN;
const u32 = (offset: number, value: number) => (view: DataView) => view.setUint32(offset, value, LE);
const u64 = (offset: number, value: bigint) => (view: DataView) => view.setBigUint64(offset, value, LE);
const field = (region: number, offset: number, value: bigint) => (view: DataView) =>
  putRegion(view, region, offset, value);

describe('a table', () => {
  it('that is a copy is attached to', async () => {
    await attachTo(() => {});
  });

  it.each([
    ['of another version', u32(HEADER.VERSION, 2), 'version 2'],
    ['of the other byte order', u32(HEADER.VERSION, 0x0100_0000), `of a ${LE ? 'big' : 'little'}-endian machine`],
    ['with pages of 0 bytes', u32(HEADER.PAGE_SIZE, 0), 'pages of 0 bytes'],
    ['with pages of 12288 bytes', u32(HEADER.PAGE_SIZE, 12288), 'pages of 12288 bytes'],
    ['that says it is larger than its file', u64(HEADER.TABLE_BYTES, 1n << 40n), 'the size of the table'],
    ['with more regions than it has room for', u32(HEADER.MAX_REGIONS, 0xffff_ffff), 'the size of the table'],
    ['whose regions are elsewhere', u64(HEADER.REGIONS_OFFSET, 1n << 63n), 'the offset of the regions'],
    ['whose consumers are elsewhere', u64(HEADER.CONSUMERS_OFFSET, 1n), 'the offset of the consumers'],
    ['whose log is elsewhere', u64(HEADER.LOG_OFFSET, 0n), 'the offset of the dirty log'],
    ['whose log is larger than memory can be', u64(HEADER.LOG_BYTES, (1n << 64n) - 1n), 'the dirty log would have'],
    ['with overlapping regions', field(1, REGION.GPA, 0n), 'overlaps'],
    ['with an empty region', field(0, REGION.SIZE, 0n), 'is empty'],
    ['whose region is no whole pages', field(0, REGION.SIZE, 0x1001n), 'not a multiple of 4096'],
    ['whose region overflows', field(1, REGION.GPA, (1n << 64n) - 0x1000n), 'ends beyond the dirty log'],
    ['whose region reaches past its memory', field(1, REGION.OFFSET, 0x1000n), 'of a memory of'],
    ['whose memory reaches past its file', field(1, REGION.MEMORY_BYTES, 1n << 30n), 'and its file has'],
  ] as const)('%s is refused, and nothing stays open', async (_what, put, why) => {
    await expect(attachTo(put)).rejects.toThrow(
      expect.objectContaining({ code: 'EPROTO', message: expect.stringContaining(why) }),
    );
  });

  it('that tells of more regions than fit is refused', async () => {
    const counts = (view: DataView) => {
      for (const at of [0, 4]) view.setUint32(HEADER.REGION_COUNT + at, 5, LE);
    };
    await expect(attachTo(counts)).rejects.toThrow(expect.objectContaining({ code: 'EPROTO' }));
  });
});

it('a view that cannot be made is not one that is open for writing', async () => {
  using binding = await AddressSpace.attach(calls, space.token);
  for (const [gpa, length] of [
    [0, -1],
    [0, 1.5],
    [2 * UNIT, 1],
    [-1, 1],
  ] as const) {
    expect(() => binding.vmap(gpa, length, { write: true })).toThrow();
  }
  const table = Buffer.alloc(CONSUMER.BYTES);
  readSync(space.fd, table, 0, table.length, HEADER.BYTES);
  expect(table.readUInt32LE(CONSUMER.WRITERS)).toBe(0);
});

it('a space that cannot be shared as it is asked for is not shared at all', () => {
  const other = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  expect(() => other.share({ calls, patienceMs: -1 })).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
  expect(other.fd).toBe(-1);
  other.close();
});
