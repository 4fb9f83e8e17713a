import { describe, expect, test } from 'vitest';
import { mappedFrames, mappedRanges } from '../../../../../lib/arch/s390x/model/index.ts';
import { Storage } from './storage.ts';

/** A segment table of zeros: each of its 2048 entries names the page table at 0. */
const ASCE = 0x4003n;

/** Tables that map the same MiB again and again: 2^19 pages. */
function repeatingTables(): Storage {
  const storage = new Storage(0x10_0000n);
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
    const walks = 2048 * 256;
    let pages = 0;
    // A walk more finds out that nothing follows the table.
    for (const _ of mappedFrames(repeatingTables(), ASCE, { ...options, maxWalks: walks + 1 })) pages++;
    expect(pages).toBe(walks);
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
