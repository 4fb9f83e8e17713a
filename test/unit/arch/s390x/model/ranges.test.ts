import { describe, expect, test } from 'vitest';
import {
  formatRange,
  type MappedRange,
  mappedFrames,
  mappedRanges,
} from '../../../../../lib/arch/s390x/model/index.ts';
import { Storage } from './storage.ts';

/** A segment table of 512 entries. */
const ASCE = 0x4000n;

/** Tables that map the same MiB eight times: eight entries of zeros name the page table at 0, the others are invalid. */
function repeatingTables(): Storage {
  const storage = new Storage(0x10_0000n);
  for (let segment = 8n; segment < 512n; segment++) storage.put(ASCE + segment * 8n, 0x20n);
  for (let page = 0n; page < 256n; page++) storage.put(page * 8n, page << 12n);
  return storage;
}

describe('the ranges of tables that map more than anybody wants', () => {
  const options = { features: 0 };

  test('end after so many walks, and what was found is given before', () => {
    const found: [bigint, bigint][] = [];
    const all = (): void => {
      for (const { va, length } of mappedRanges(repeatingTables(), ASCE, { ...options, maxWalks: 300 })) {
        found.push([va, length]);
      }
    };
    expect(all).toThrow(
      expect.objectContaining({
        code: 'ERR_OUT_OF_RANGE',
        message: expect.stringMatching(/lead on at 0x000000000012c000/),
      }),
    );
    expect(found).toEqual([
      [0n, 0x10_0000n],
      [0x10_0000n, 44n * 4096n],
    ]);
  });

  test('need no more walks than there are', () => {
    const mapped = 8 * 256;
    // One for each MiB of 2 GiB that isn't mapped, and one more finds out that nothing follows.
    const unmapped = 2048 - 8 + 1;
    let pages = 0;
    for (const _ of mappedFrames(repeatingTables(), ASCE, { ...options, maxWalks: mapped + unmapped })) pages++;
    expect(pages).toBe(mapped);
    expect(() => [...mappedFrames(repeatingTables(), ASCE, { ...options, maxWalks: mapped + unmapped - 1 })]).toThrow(
      expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }),
    );
  });

  test('end where a table maps itself: as its own page tables, and what it maps', () => {
    const storage = new Storage(0x10_0000n);
    for (let entry = 0n; entry < 512n; entry++) storage.put(ASCE + entry * 8n, ASCE);
    const maxWalks = 1000;
    let frames = 0;
    const all = (): void => {
      for (const { va, absolute } of mappedFrames(storage, ASCE, { ...options, maxWalks })) {
        expect([va, absolute]).toEqual([BigInt(frames) << 12n, ASCE]);
        frames++;
      }
    };
    expect(all).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
    expect(frames).toBe(maxWalks);
    const controller = new AbortController();
    const until = (va: bigint): void => {
      for (const range of mappedRanges(storage, ASCE, { ...options, signal: controller.signal }))
        if (range.va === va) controller.abort(new Error('enough'));
    };
    expect(() => until(77n << 12n)).toThrow('enough');
  });

  test('end when they are aborted', () => {
    const controller = new AbortController();
    let pages = 0;
    const all = (): void => {
      for (const _ of mappedFrames(repeatingTables(), ASCE, { ...options, signal: controller.signal })) {
        if (++pages === 5) controller.abort(new Error('enough'));
      }
    };
    expect(all).toThrow('enough');
    expect(pages).toBe(5);
  });
});

describe('ranges', () => {
  const ORIGIN = 0x8000n;
  const PAGES = 0xc000n;

  /** Storage in which the ASCE ORIGIN has one segment, with these page-table entries and nothing else. */
  function pages(entries: Readonly<Record<number, bigint>>): Storage {
    const storage = new Storage(0x10_0000n);
    for (let i = 0n; i < 512n; i++) storage.put(ORIGIN + 8n * i, i === 0n ? PAGES : 0x20n);
    for (let i = 0; i < 256; i++) storage.put(PAGES + 8n * BigInt(i), entries[i] ?? 0x400n);
    return storage;
  }
  const found = (storage: Storage, prefix = 0, features = 7): string[] =>
    [...mappedRanges(storage, ORIGIN, { features, prefix })].map(({ va, length, absolute, protection, iep }) =>
      [va, length, absolute]
        .map((n) => n.toString(16))
        .concat(protection ? 'p' : [], iep ? 'i' : [])
        .join(' '),
    );

  test.each<[string, Record<number, bigint>, string[]]>([
    ['nothing is mapped', {}, []],
    ['one page', { 7: 0x5000n }, ['7000 1000 5000']],
    ['two that follow', { 7: 0x5000n, 8: 0x6000n }, ['7000 2000 5000']],
    ['two with other frames', { 7: 0x5000n, 8: 0x5000n }, ['7000 1000 5000', '8000 1000 5000']],
    ['two with a gap between them', { 7: 0x5000n, 9: 0x6000n }, ['7000 1000 5000', '9000 1000 6000']],
    ['one that is protected', { 7: 0x5000n, 8: 0x6200n }, ['7000 1000 5000', '8000 1000 6000 p']],
    ['one that must not be executed', { 7: 0x5100n, 8: 0x6000n }, ['7000 1000 5000 i', '8000 1000 6000']],
    ['the last page of the table', { 255: 0x5000n }, ['ff000 1000 5000']],
  ])('%s', (_, entries, expected) => {
    expect(found(pages(entries))).toEqual(expected);
  });

  test('a large frame behind a small one is a range of its own', () => {
    const storage = pages({ 255: 0x1f_f000n });
    // The next MiB is one frame, whose place is the next, too.
    storage.put(ORIGIN + 8n, 0x20_0400n);
    expect(found(storage)).toEqual(['ff000 1000 1ff000', '100000 100000 200000']);
  });

  test('the prefix area is seen where it is: real frames 0 and 1 at the prefix, and those there at 0', () => {
    const entries = { 0: 0n, 1: 0x1000n, 2: 0x2000n, 4: 0x4000n, 5: 0x5000n };
    expect(found(pages(entries))).toEqual(['0 3000 0', '4000 2000 4000']);
    expect(found(pages(entries), 0x4000)).toEqual(['0 2000 4000', '2000 1000 2000', '4000 2000 0']);
    expect(() => found(pages({}), 0x1000)).toThrow('"options.prefix" is out of range. It must be a multiple of 8 KiB');
    expect(() => found(pages({}), 0x8000_0000)).toThrow('"options.prefix"');
  });

  test('what was found before an error is given, and where nothing was found, nothing', () => {
    const controller = new AbortController();
    controller.abort(new Error('before'));
    const ranges: unknown[] = [];
    expect(() => {
      for (const range of mappedRanges(pages({}), ORIGIN, { features: 0, signal: controller.signal }))
        ranges.push(range);
    }).toThrow('before');
    expect(ranges).toEqual([]);
  });

  test('the whole address space ends at 2^64', () => {
    const storage = new Storage(0x10_0000n);
    // Region first, second, third and segment table with but their first entries, the page table full: frame 7 at address 0.
    const tables = [ORIGIN, 0x2_0000n, 0x3_0000n, 0x4_0000n, PAGES];
    for (const [level, table] of tables.entries()) {
      for (let i = 0n; i < (level === 4 ? 256n : 2048n); i++)
        storage.put(table + 8n * i, level === 4 ? 0x7000n : 0x20n);
      if (level < 4) storage.put(table, tables[level + 1]! | [0xcn, 8n, 4n, 0n][level]! | 3n);
    }
    const frames = [...mappedFrames(storage, ORIGIN | 0xfn, { features: 0, maxWalks: 1e5 })];
    expect(frames.map(({ va }) => va)).toEqual(Array.from({ length: 256 }, (_, page) => BigInt(page) << 12n));
  });
});

describe('a range is printed', () => {
  const range: MappedRange = {
    va: 0x10_0000n,
    length: 0x3000n,
    absolute: 0x1_2345_6000n,
    frameSize: 4096,
    protection: false,
    iep: false,
  };

  test.each<[Partial<MappedRange>, string]>([
    [{}, '0x0000000000100000-0x0000000000102fff -> 0x0000000123456000    12 KiB 4 KiB rwx'],
    [{ protection: true }, '0x0000000000100000-0x0000000000102fff -> 0x0000000123456000    12 KiB 4 KiB r-x'],
    [{ iep: true }, '0x0000000000100000-0x0000000000102fff -> 0x0000000123456000    12 KiB 4 KiB rw-'],
    [
      { length: 0x20_0000n, frameSize: 1 << 20 },
      '0x0000000000100000-0x00000000002fffff -> 0x0000000123456000     2 MiB 1 MiB rwx',
    ],
    [
      { length: 1n << 31n, frameSize: 2 ** 31 },
      '0x0000000000100000-0x00000000800fffff -> 0x0000000123456000     2 GiB 2 GiB rwx',
    ],
    [{ length: 100n }, '0x0000000000100000-0x0000000000100063 -> 0x0000000123456000     100 B 4 KiB rwx'],
  ])('%o', (changed, text) => {
    expect(formatRange({ ...range, ...changed })).toBe(text);
  });

  test('only if it is one', () => {
    expect(() => formatRange({ ...range, length: 0n })).toThrow(
      '"range.length" is out of range. It must be more than 0',
    );
    expect(() => formatRange({ ...range, iep: 0 as never })).toThrow('"range.iep"');
    expect(() => formatRange({ ...range, protection: 0 as never })).toThrow('"range.protection"');
  });
});
