/** Each rule of the walk that a captured Linux guest cannot show, on small tables made here. */

import { describe, expect, it } from 'vitest';
import {
  type AbsoluteMemory,
  cpuState,
  explainTranslation,
  type FailedTranslation,
  type TranslatedAddress,
  type TranslateOptions,
  translate,
} from '../../../../../lib/arch/s390x/model/index.ts';
import { CR0, FRAME, fiveLevels, PAGES, R1, R2, R3, SEGMENTS, VA, withEntry } from './five-levels.ts';
import { Storage } from './storage.ts';

const I = 0x20n;
const P = 0x200n;
const FC = 0x400n;
const IEP = 0x100n;
const COMMON = 0x10n;
const ALL = { edat1: true, edat2: true, iep: true };

interface Situation extends TranslateOptions {
  asce?: bigint;
  va?: bigint;
  facilities?: Partial<typeof ALL>;
  cr0?: number;
}

function walk(storage: AbsoluteMemory, situation: Situation = {}): TranslatedAddress | FailedTranslation {
  const cpu = cpuState({
    cr: { 0: situation.cr0 ?? CR0, 1: situation.asce ?? R1 | 0xfn },
    facilities: situation.facilities ?? ALL,
  });
  const { access = 'fetch' } = situation;
  return translate(cpu, storage, situation.va ?? VA, { access });
}

const code = (storage: AbsoluteMemory, situation: Situation = {}): number => walk(storage, situation).code;

describe('a walk through five levels', () => {
  it('ends in the frame of the page-table entry', () => {
    expect(walk(fiveLevels())).toEqual({
      code: 0,
      absolute: FRAME | 0x345n,
      real: FRAME | 0x345n,
      frameSize: 4096,
      protection: false,
      iep: false,
    });
  });

  it.each([
    ['region-first', R1 + 8n, I, 0x39],
    ['region-second', R2 + 8n, I, 0x3a],
    ['region-third', R3 + 8n, I, 0x3b],
    ['segment', SEGMENTS + 8n, I, 0x10],
    ['page', PAGES + 8n, 0x400n, 0x11],
  ])('an invalid %s entry gives its own code', (_, address, invalid, expected) => {
    expect(code(withEntry(address, (entry) => entry | invalid))).toBe(expected);
  });

  it.each([
    ['region-first', R1 + 8n, 0xcn],
    ['region-second', R2 + 8n, 0xcn],
    ['region-third', R3 + 8n, 0xcn],
    ['segment', SEGMENTS + 8n, 0xcn],
  ])('a wrong table type in a %s entry gives 0x12, an invalid one its own code first', (_, address, mask) => {
    expect(code(withEntry(address, (entry) => entry ^ (mask & (entry ^ 4n) ? 4n : 8n)))).toBe(0x12);
    expect(code(withEntry(address, (entry) => (entry ^ 4n) | I))).not.toBe(0x12);
  });

  it('bit 52 of a page-table entry gives 0x12, but an invalid entry 0x11 first', () => {
    expect(code(withEntry(PAGES + 8n, (entry) => entry | 0x800n))).toBe(0x12);
    expect(code(withEntry(PAGES + 8n, (entry) => entry | 0xc00n))).toBe(0x11);
  });

  it.each([
    ['region-first', R1 + 8n, 0x3a],
    ['region-second', R2 + 8n, 0x3b],
    ['region-third', R3 + 8n, 0x10],
  ])('TF and TL of a %s entry bound the next table', (_, address, expected) => {
    const shift = { 58: 42n, 59: 31n, 16: 20n }[expected]!;
    const bounded = withEntry(address, (entry) => (entry & ~3n) | 1n | 0x40n);
    const index = (n: bigint) => (VA & ~(0x7ffn << shift)) | (n << shift);
    expect(code(bounded, { va: index(511n) })).toBe(expected);
    expect(code(bounded, { va: index(1024n) })).toBe(expected);
    // Inside 512 to 1023 the entry itself is read: it is zero, so of another type, or for a segment leads to frame 0.
    expect(code(bounded, { va: index(512n) })).not.toBe(expected);
    expect(code(bounded, { va: index(1023n) })).not.toBe(expected);
  });

  it('reads a table across frames', () => {
    const storage = fiveLevels();
    storage.put(SEGMENTS + 2047n * 8n, PAGES);
    const va = (VA & ~(0x7ffn << 20n)) | (2047n << 20n);
    expect(walk(storage, { va })).toMatchObject({ code: 0, absolute: FRAME | 0x345n });
  });

  it('takes table addresses as absolute and the frame as real', () => {
    const storage = fiveLevels();
    storage.put(PAGES + 8n, 0x1000n);
    const cpu = cpuState({ cr: { 0: CR0, 1: R1 | 0xfn }, prefix: R1 });
    expect(translate(cpu, storage, VA)).toMatchObject({ real: 0x1345n, absolute: R1 + 0x1345n });
    // The prefix area is where the tables lie: had they been real addresses, absolute 0 would have been read.
  });
});

describe('what the ASCE says', () => {
  const segment = (tl: bigint) => SEGMENTS | tl;

  it.each([
    ['a segment table', segment(3n), 1n << 31n],
    ['a region-third table', R3 | 7n, 1n << 42n],
    ['a region-second table', R2 | 0xbn, 1n << 53n],
  ])('%s does not reach further: 0x38', (_, asce, va) => {
    expect(code(fiveLevels(), { asce, va })).toBe(0x38);
    expect(code(fiveLevels(), { asce, va: va - 1n })).not.toBe(0x38);
  });

  it.each([
    ['segment', SEGMENTS, 0n, 20n, 0x10],
    ['region-third', R3, 4n, 31n, 0x3b],
    ['region-second', R2, 8n, 42n, 0x3a],
    ['region-first', R1, 0xcn, 53n, 0x39],
  ])('TL of a %s-table ASCE bounds the table', (_, origin, dt, shift, expected) => {
    const storage = fiveLevels();
    // A valid-looking entry of another type behind the bound and before it: reading it gives 0x12.
    const other = dt === 4n ? 8n : 4n;
    for (const index of [511n, 512n]) storage.put(origin + index * 8n, other);
    const asce = origin | dt;
    expect(code(storage, { asce, va: 511n << shift })).toBe(0x12);
    expect(code(storage, { asce, va: 512n << shift })).toBe(expected);
    expect(code(storage, { asce: asce | 1n, va: 512n << shift })).toBe(0x12);
  });

  it('a real-space ASCE does not translate but prefixes', () => {
    const cpu = cpuState({ cr: { 1: 0x20 }, prefix: 0x4000 });
    const storage = new Storage(0x10_0000n);
    expect(translate(cpu, storage, 0x1008)).toMatchObject({ code: 0, real: 0x1008n, absolute: 0x5008n });
    expect(translate(cpu, storage, 0x5008)).toMatchObject({ code: 0, absolute: 0x1008n });
    expect(translate(cpu, storage, 0x6008)).toMatchObject({ code: 0, absolute: 0x6008n });
    expect(translate(cpu, storage, 0x10_0000)).toMatchObject({ code: 5 });
  });

  it('a table outside storage gives 5, one that the host cannot read −EFAULT', () => {
    expect(code(fiveLevels(), { asce: 0x4000_0000n | 0xfn })).toBe(5);
    const storage = fiveLevels();
    storage.unreadable.add(R2 & ~0xfffn);
    expect(code(storage)).toBe(-14);
  });

  it('a table across the top of the address space wraps to its bottom', () => {
    const storage = new Storage(0x100_0000n);
    // Index 512 of a table at the very last page is in page 0.
    storage.put(0n, 0x2n << 2n);
    expect(code(storage, { asce: 0xffff_ffff_ffff_f000n | 7n, va: 512n << 31n })).toBe(0x12);
  });
});

describe('protection', () => {
  it.each([
    ['region-first', R1 + 8n],
    ['region-second', R2 + 8n],
    ['region-third', R3 + 8n],
  ])('P of a %s entry counts only with EDAT-1', (_, address) => {
    const storage = withEntry(address, (entry) => entry | P);
    expect(code(storage, { access: 'store' })).toBe(4);
    expect(code(storage, { access: 'fetch' })).toBe(0);
    expect(code(storage, { access: 'store', facilities: { edat1: false } })).toBe(0);
    expect(code(storage, { access: 'store', cr0: 0 })).toBe(0);
  });

  it.each([
    ['segment', SEGMENTS + 8n],
    ['page', PAGES + 8n],
  ])('P of a %s entry always counts', (_, address) => {
    const storage = withEntry(address, (entry) => entry | P);
    expect(walk(storage, { access: 'store', cr0: 0, facilities: { edat1: false } })).toMatchObject({
      code: 4,
      protection: 'dat',
      teid: (VA & ~0xfffn) | 0x404n,
    });
  });

  it('is found before missing storage', () => {
    const storage = withEntry(PAGES + 8n, () => 0x4000_0000n | P);
    expect(code(storage, { access: 'store' })).toBe(4);
    expect(code(storage, { access: 'fetch' })).toBe(5);
  });

  it('of instruction execution needs facility and CR0, and forbids only instruction fetches', () => {
    const storage = withEntry(PAGES + 8n, (entry) => entry | IEP);
    expect(walk(storage, { access: 'instruction-fetch' })).toMatchObject({
      code: 4,
      protection: 'instruction-execution',
      teid: (VA & ~0xfffn) | 0x884n,
    });
    expect(code(storage, { access: 'instruction-fetch', facilities: { iep: false } })).toBe(0);
    expect(code(storage, { access: 'instruction-fetch', cr0: 0x80_0000 })).toBe(0);
    expect(code(storage, { access: 'fetch' })).toBe(0);
    expect(code(storage, { access: 'store' })).toBe(0);
  });
});

describe('large frames', () => {
  const largeSegment = () => withEntry(SEGMENTS + 8n, () => 0x80_0000n | FC);
  const largeRegion = () => withEntry(R3 + 8n, () => 0x8000_0000n | FC | 4n);

  it('of 1 MiB need EDAT-1 and are absolute', () => {
    const storage = largeSegment();
    const expected = 0x80_0000n | (VA & 0xf_ffffn);
    expect(walk(storage)).toMatchObject({ code: 0, absolute: expected, frameSize: 1 << 20 });
    // Without EDAT-1 the entry is a page-table origin at 0x800000, where all is zero: page frame 0.
    expect(walk(storage, { facilities: { edat1: false } })).toMatchObject({ code: 0, absolute: VA & 0xfffn });
    const cpu = cpuState({ cr: { 0: CR0, 1: R1 | 0xfn }, prefix: expected & 0x7fff_e000n });
    expect(translate(cpu, storage, VA)).toMatchObject({ absolute: expected, real: expected });
  });

  it('of 2 GiB need EDAT-2 and are absolute', () => {
    const storage = new Storage(0x1_0000_0000n);
    for (const [address, entry] of largeRegion().entries()) storage.put(address, entry);
    expect(walk(storage)).toMatchObject({
      code: 0,
      absolute: 0x8000_0000n | (VA & 0x7fff_ffffn),
      frameSize: 2 ** 31,
    });
    // Without EDAT-2 it is a segment-table origin; TF and TL of 0 admit index 1; zeros lead to frame 0.
    for (const facilities of [{ edat2: false }, { edat1: false }]) {
      expect(walk(storage, { facilities })).toMatchObject({ code: 0, frameSize: 4096, absolute: VA & 0xfffn });
    }
  });

  it.each([
    ['segment', largeSegment, SEGMENTS + 8n],
    ['region-third', largeRegion, R3 + 8n],
  ])('carry P and IEP in a %s entry', (_, make, address) => {
    const storage = new Storage(0x1_0000_0000n);
    for (const [at, entry] of make().entries()) storage.put(at, entry);
    const entry = storage.get(address);
    storage.put(address, entry | P);
    expect(walk(storage, { access: 'store' })).toMatchObject({ code: 4, protection: 'dat' });
    storage.put(address, entry | IEP);
    expect(walk(storage, { access: 'instruction-fetch' })).toMatchObject({
      code: 4,
      protection: 'instruction-execution',
    });
    expect(code(storage, { access: 'store' })).toBe(0);
  });

  it('ignore the access-control bits of the entry', () => {
    const storage = withEntry(SEGMENTS + 8n, () => 0x80_0000n | FC | 0x1_f800n);
    expect(walk(storage)).toMatchObject({ code: 0, absolute: 0x80_0000n | (VA & 0xf_ffffn) });
  });
});

describe('common entries', () => {
  const PRIVATE = R1 | 0x10fn;

  it('of a segment table are 0x12 in a private space, large or not', () => {
    for (const entry of [PAGES | COMMON, 0x80_0000n | FC | COMMON]) {
      const storage = withEntry(SEGMENTS + 8n, () => entry);
      expect(code(storage, { asce: PRIVATE })).toBe(0x12);
      expect(code(storage)).toBe(0);
    }
  });

  it('of a region-third table are 0x12 in a private space with EDAT-2 only', () => {
    const storage = withEntry(R3 + 8n, (entry) => entry | COMMON);
    expect(code(storage, { asce: PRIVATE })).toBe(0x12);
    expect(code(storage, { asce: PRIVATE, facilities: { edat2: false } })).toBe(0);
    expect(code(storage)).toBe(0);
  });
});

describe('the explanation', () => {
  it('names every entry and what it said', () => {
    const cpu = cpuState({ cr: { 0: CR0, 1: R1 | 0xfn } });
    const explained = explainTranslation(cpu, fiveLevels(), VA);
    expect(explained.steps.map((step) => [step.level, step.address])).toEqual([
      ['R1', R1 + 8n],
      ['R2', R2 + 8n],
      ['R3', R3 + 8n],
      ['S', SEGMENTS + 8n],
      ['P', PAGES + 8n],
    ]);
    expect(explained.steps[2]).toMatchObject({ says: 'segment table at 0x0000000000130000, TF 0, TL 3' });
    expect(explained.absolute).toBe(FRAME | 0x345n);
    expect(explained.text.split('\n')).toHaveLength(8);
  });

  it.each([
    [R3 + 8n, (entry: bigint) => entry | I, '0x3b (region-third-translation): entry invalid, at R3'],
    [SEGMENTS + 8n, () => 0xcn, '0x12 (translation-specification): entry of another table type, at S'],
    [PAGES + 8n, () => 0x7000_0000n, '0x5 (addressing): no storage at absolute 0x0000000070000000'],
    [R2 + 8n, () => 0x7000_000bn, '0x5 (addressing): table entry not readable, at R3'],
  ])('says why it stopped (%#)', (address, change, outcome) => {
    const cpu = cpuState({ cr: { 0: CR0, 1: R1 | 0xfn } });
    expect(explainTranslation(cpu, withEntry(address, change), VA).outcome).toBe(outcome);
  });
});
