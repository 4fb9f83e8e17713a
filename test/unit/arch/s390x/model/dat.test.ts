/** The walk by itself: what its result says, a walk in the segment of the one before, and runs of frames. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { consecutiveFrames, walkDatOn } from '../../../../../lib/arch/s390x/model/dat.ts';
import { type AbsoluteMemory, DatResult, walkDat } from '../../../../../lib/arch/s390x/model/index.ts';
import { fiveLevels, PAGES, R1, R2, R3, SEGMENTS, VA, withEntry } from './five-levels.ts';
import { Storage } from './storage.ts';

const EDAT1 = 1;
const EDAT2 = 2;
const IEP = 4;
const ALL = EDAT1 | EDAT2 | IEP;
const P = 0x200n;
const FC = 0x400n;
const IEP_BIT = 0x100n;
const COMMON = 0x10n;
const ASCE = R1 | 0xfn;
const PRIVATE = 0x100n;

const half = (value: bigint): [hi: number, lo: number] => [Number(value >> 32n), Number(value & 0xffff_ffffn)];

function walk(memory: AbsoluteMemory, va: bigint, asce = ASCE, features = ALL, out = new DatResult()) {
  const code = walkDat(memory, ...half(asce), ...half(va), features, out);
  return { code, out };
}

describe('a result', () => {
  it('says nothing before a walk', () => {
    expect({ ...new DatResult() }).toEqual({
      pfn: 0,
      absolute: false,
      frameShift: 12,
      protection: false,
      iep: false,
      level: -1,
      stop: 'mapped',
      segment: -1,
      segmentHi: 0,
      segmentLo: 0,
      segmentProtection: false,
    });
  });

  it('says where the walk came to', () => {
    const { code, out } = walk(fiveLevels(), VA);
    expect(code).toBe(0);
    // VA is 2^53 + 2^42 + 2^31 + 2^20 + …: in segments of 1 MiB 2^33 + 2^22 + 2^11 + 1.
    expect(out).toMatchObject({ pfn: 0x200, level: -1, stop: 'mapped', frameShift: 12, absolute: false });
    expect(out).toMatchObject({ segment: 2 ** 33 + 2 ** 22 + 2 ** 11 + 1, segmentHi: 0, segmentLo: Number(PAGES) });
  });

  it('of an earlier walk does not show', () => {
    const out = new DatResult();
    walk(
      withEntry(SEGMENTS + 8n, () => 0x80_0000n | FC | P | IEP_BIT),
      VA,
      ASCE,
      ALL,
      out,
    );
    expect(out).toMatchObject({ absolute: true, frameShift: 20, protection: true, iep: true });
    walk(fiveLevels(), VA, ASCE, ALL, out);
    expect(out).toMatchObject({ absolute: false, frameShift: 12, protection: false, iep: false });
  });
});

describe('what an entry does not say', () => {
  it.each<[string, bigint, bigint, bigint, number, Partial<DatResult>]>([
    [
      'a protected segment of a private space is not a common one',
      SEGMENTS + 8n,
      P,
      PRIVATE,
      ALL,
      { protection: true },
    ],
    ['a common bit means nothing in a region-second entry', R2 + 8n, COMMON, PRIVATE, ALL, {}],
    ['nor in a region-first entry', R1 + 8n, COMMON, PRIVATE, ALL, {}],
    ['a protected page may be executed', PAGES + 8n, P, 0n, ALL, { protection: true, iep: false }],
    ['IEP means nothing where it is not in force', PAGES + 8n, IEP_BIT, 0n, EDAT1, { iep: false }],
    ['FC means nothing in a region-second entry', R2 + 8n, FC, 0n, ALL, { frameShift: 12 }],
  ])('%s', (_, address, bits, asceBits, features, expected) => {
    const storage = withEntry(address, (entry) => entry | bits);
    const { code, out } = walk(storage, VA, ASCE | asceBits, features);
    expect(code).toBe(0);
    expect(out).toMatchObject({ pfn: 0x200, ...expected });
  });

  it.each([
    ['a large frame without IEP may be executed', 0n, ALL, false],
    ['one with IEP where it is in force must not', IEP_BIT, ALL, true],
    ['where it is not in force, it may', IEP_BIT, EDAT1 | EDAT2, false],
  ])('%s', (_, bits, features, iep) => {
    const { out } = walk(
      withEntry(SEGMENTS + 8n, () => 0x80_0000n | FC | bits),
      VA,
      ASCE,
      features,
    );
    expect(out).toMatchObject({ frameShift: 20, iep });
  });
});

it.each([
  ['address beyond the designated table', 0x38, 0, SEGMENTS, 1n << 31n],
  ['address beyond the designated table', 0x38, 0, SEGMENTS, 1n << 32n],
  ['index beyond the table length', 0x10, 0, SEGMENTS, 512n << 20n],
])('%s: 0x%x', (stop, expected, level, asce, va) => {
  const { code, out } = walk(fiveLevels(), va, asce);
  expect(code).toBe(expected);
  expect(out).toMatchObject({ stop, level });
});

it('an index inside the table offset but beyond the table length is beyond the length', () => {
  // TF 1, TL 0: there is no part of the table, and index 512 is in part 1.
  const storage = withEntry(R3 + 8n, (entry) => (entry & ~3n) | 0x40n);
  const { code, out } = walk(storage, (VA & ~(0x7ffn << 20n)) | (512n << 20n));
  expect(code).toBe(0x10);
  expect(out.stop).toBe('index beyond the table length');
});

describe('a walk after a walk', () => {
  /** Passes reads on and counts them. */
  class Counting implements AbsoluteMemory {
    hi = 0;
    lo = 0;
    reads = 0;
    readonly #of: AbsoluteMemory;

    constructor(of: AbsoluteMemory) {
      this.#of = of;
    }

    readDoubleword(pfn: number, offset: number): number {
      this.reads++;
      const code = this.#of.readDoubleword(pfn, offset);
      this.hi = this.#of.hi;
      this.lo = this.#of.lo;
      return code;
    }

    hasFrame(pfn: number): boolean {
      return this.#of.hasFrame(pfn);
    }
  }

  const on = (memory: AbsoluteMemory, va: bigint, out: DatResult, asce = ASCE) =>
    walkDatOn(memory, ...half(asce), ...half(va), ALL, out);

  it('reads a page-table entry alone in the same segment', () => {
    const storage = withEntry(SEGMENTS + 8n, (entry) => entry | P);
    storage.put(PAGES + 8n, 0x20_0000n | IEP_BIT);
    storage.put(PAGES + 16n, 0x30_0000n);
    const memory = new Counting(storage);
    const out = new DatResult();
    expect(on(memory, VA, out)).toBe(0);
    expect(memory.reads).toBe(5);
    expect(out).toMatchObject({ pfn: 0x200, protection: true, iep: true });
    expect(on(memory, VA + 0x1000n, out)).toBe(0);
    expect(memory.reads).toBe(6);
    // The segment protects both; that the first page must not be executed is no matter of the second.
    expect(out).toMatchObject({ pfn: 0x300, protection: true, iep: false });
  });

  it('does not take the protection of one page for the other’s', () => {
    const storage = fiveLevels();
    storage.put(PAGES + 8n, 0x20_0000n | P);
    storage.put(PAGES + 16n, 0x30_0000n);
    const out = new DatResult();
    expect(on(storage, VA, out)).toBe(0);
    expect(out.protection).toBe(true);
    expect(on(storage, VA + 0x1000n, out)).toBe(0);
    expect(out.protection).toBe(false);
  });

  it.each([20n, 31n, 32n, 42n, 53n])('reads all tables where bit %s of the address differs', (bit) => {
    const out = new DatResult();
    expect(on(fiveLevels(), VA, out)).toBe(0);
    // Index 0 or 3 of a table of zeros: an entry of another type, or for a segment the page table at 0 and frame 0.
    const code = on(fiveLevels(), VA ^ (1n << bit), out);
    expect([code, out.pfn === 0x200]).toEqual(bit === 20n ? [0, false] : [0x12, true]);
  });

  it.each(['no walk', 'a walk that ended before'])('knows no page table after %s', (what) => {
    const storage = new Storage(0x100_0000n);
    const asce = SEGMENTS;
    storage.put(SEGMENTS + 8n, PAGES);
    storage.put(PAGES, 0x50_0000n);
    const out = new DatResult();
    if (what !== 'no walk') {
      out.segment = 7;
      expect(on(storage, 1n << 31n, out, asce)).toBe(0x38);
    }
    // In segment 1.
    expect(on(storage, 0x10_0000n, out, asce)).toBe(0);
    expect(out.pfn).toBe(0x500);
  });
});

describe('frames that follow one another', () => {
  const table = (entries: readonly bigint[]): DataView => {
    const view = new DataView(new ArrayBuffer(8 * entries.length));
    for (const [i, entry] of entries.entries()) view.setBigUint64(8 * i, entry);
    return view;
  };
  const count = (entries: readonly bigint[], most = entries.length - 1): number =>
    consecutiveFrames(table(entries), 8, most);

  it.each<[string, bigint[], number]>([
    ['three more', [0x5000n, 0x6000n, 0x7000n, 0x8000n], 3],
    ['one more, then another', [0x5000n, 0x6000n, 0x8000n, 0x9000n], 1],
    ['none: the same frame again', [0x5000n, 0x5000n], 0],
    ['none: the frame before', [0x5000n, 0x4000n], 0],
    ['none: 4 GiB further up', [0x5000n, 0x1_0000_6000n], 0],
    ['none: protected', [0x5000n, 0x6200n], 0],
    ['none: invalid', [0x5000n, 0x6400n], 0],
    ['none: bit 52', [0x5000n, 0x6800n], 0],
    ['none: IEP', [0x5000n, 0x6100n], 0],
    ['none: the first is protected', [0x5200n, 0x6200n], 0],
    ['whatever is in the low byte', [0x5012n, 0x60ffn, 0x7000n], 2],
    ['frames above 4 GiB', [0x12_ffff_d000n, 0x12_ffff_e000n, 0x12_ffff_f000n], 2],
    ['none beyond a multiple of 4 GiB', [0x12_ffff_f000n, 0x13_0000_0000n], 0],
    ['not from the end of 4 GiB to their beginning', [0x12_ffff_e000n, 0x12_ffff_f000n, 0x12_0000_0000n], 1],
  ])('%s', (_, entries, expected) => {
    expect(count(entries)).toBe(expected);
  });

  it('are counted up to so many, from where is said', () => {
    const entries = [0x9000n, 0x5000n, 0x6000n, 0x7000n, 0x8000n];
    expect(count([0x5000n, 0x6000n, 0x7000n, 0x8000n], 2)).toBe(2);
    expect(consecutiveFrames(table(entries), 16, 3)).toBe(3);
    expect(consecutiveFrames(table(entries), 8, 4)).toBe(0);
  });

  it('are those of which each is one page behind the one before', () => {
    const step = fc.constantFrom(0x1000n, 0x1000n, 0x1000n, 0x1000n, 0x1001n, 0x2000n, 0x1200n, 0n, 0x1_0000_1000n);
    const start = fc.bigInt({ min: 0n, max: 0xf_ffffn }).map((frame) => frame << 12n);
    fc.assert(
      fc.property(start, fc.array(step, { maxLength: 12 }), (first, steps) => {
        const entries = [first];
        for (const one of steps) entries.push(BigInt.asUintN(64, entries.at(-1)! + one));
        // All that an entry says, without its low byte, is a multiple of 256.
        const follows = (i: number): boolean =>
          (entries[i]! >> 8n) - (entries[0]! >> 8n) === BigInt(i) * 16n && entries[i]! >> 32n === first >> 32n;
        let expected = 0;
        while (expected < steps.length && follows(expected + 1)) expected++;
        expect(count(entries)).toBe(expected);
      }),
      { numRuns: 200 },
    );
  });
});
