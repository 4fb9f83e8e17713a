import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import {
  basePageShift,
  encodeHpte,
  encodeSegment,
  Htab,
  hpte,
  PAGE_ENCODINGS,
  pageShift,
  pageSizeName,
  segment,
  vrmaSegment,
} from '../../../../../lib/arch/ppc64/model/index.ts';

describe('page sizes', () => {
  // Facts sheet 4.1: with L = 1, LP = (R >> 12) & 15 and hi = (R >> 16) & 15.
  const expected = (lp: number, hi: number): [base: number, actual: number] => {
    if (lp === 0 && hi === 0) return [24, 24];
    if (lp === 1) return [16, 16];
    if (lp === 3 && hi === 0) return [34, 34];
    if (lp === 7) return [12, 16];
    if (lp === 8 && hi === 0) return [16, 24];
    if (lp === 8 && hi === 3) return [12, 24];
    return [0, 0];
  };

  it('are those of the facts sheet for all 256 values of the LP bits', () => {
    for (let bits = 0; bits < 256; bits++) {
      const rLo = (bits << 12) | 0xfff;
      expect([basePageShift(4, rLo), pageShift(4, rLo)], `LP 0x${bits.toString(16)}`).toEqual(
        expected(bits & 15, bits >> 4),
      );
      expect([basePageShift(0, rLo), pageShift(0, rLo)]).toEqual([12, 12]);
    }
  });

  it('have their usual names', () => {
    expect([12, 16, 20, 24, 34, 40].map(pageSizeName)).toEqual(['4K', '64K', '1M', '16M', '16G', '1T']);
  });
});

describe('an entry', () => {
  it('has the fields of a real one (written and read back in the lab)', () => {
    const entry = hpte(0x4000_0001_2345_6011n, 0x1192);
    expect(entry).toMatchObject({
      valid: true,
      bolted: true,
      secondary: false,
      large: false,
      segmentSize: '1T',
      ra: 0x1000n,
      pp: 2,
      key: 0,
      wimg: 2,
      referenced: true,
      changed: true,
      noExecute: false,
      shift: 12,
      baseShift: 12,
    });
    expect(entry.avpn).toBe(0x1_2345_6011n >> 7n);
    expect([entry.v, entry.r]).toEqual([0x4000_0001_2345_6011n, 0x1192n]);
  });

  it('keeps its key in two places and PP0 in the top bit', () => {
    expect(hpte(1, 0x3000_0000_0000_0e00n)).toMatchObject({ key: 31, pp: 0 });
    expect(hpte(1, 0x1000_0000_0000_0200n).key).toBe(0b01001);
    expect(hpte(1, 0x8000_0000_0000_0002n)).toMatchObject({ key: 0, pp: 6 });
  });

  it('has no LP bits in its real address', () => {
    expect(hpte(5, 0x0abc_0000_0503_8002n)).toMatchObject({ shift: 24, baseShift: 12, ra: 0x0abc_0000_0500_0000n });
    expect(hpte(5, 0x0012_3456_7123_1192n)).toMatchObject({ shift: 16, ra: 0x0012_3456_7123_0000n });
    expect(hpte(5, 0x5_1234_5003n)).toMatchObject({ shift: 0 });
    expect(hpte(1, 0x0fff_ffff_ffff_f192n).ra).toBe(0x0fff_ffff_ffff_f000n);
  });

  it('says what segment size it has, reserved ones too', () => {
    expect([0n, 1n, 2n, 3n].map((b) => hpte((b << 62n) | 1n, 0).segmentSize)).toEqual([
      '256M',
      '1T',
      'reserved',
      'reserved',
    ]);
  });

  it('prints every field on one line', () => {
    const line = inspect(hpte(0xc000_0001_2345_6077n, 0xb000_0000_0003_8f8en));
    expect(line).toBe(
      'HPTE 0xc000000123456077 0xb000000000038f8e: valid bolted secondary hvlock absent, reserved segment, ' +
        'avpn 0x2468ac0, 16M in 4K at 0x0, pp 6, key 31, ---G, RCN',
    );
    expect(inspect(hpte(0, 0))).toBe('HPTE empty');
    expect(inspect(hpte(5, 0x2000))).toContain('invalid page size');
  });

  it('is made of fields, and has them again', () => {
    for (const { baseShift, shift } of PAGE_ENCODINGS) {
      for (const segmentSize of ['256M', '1T'] as const) {
        if (shift > 28 && segmentSize === '256M') continue;
        const made = encodeHpte({
          vsid: 0x3_1234_5678n,
          segmentSize,
          offset: 0xf80_0000,
          ra: 0x0f00_000c_0000_0000n,
          baseShift,
          shift,
          pp: 6,
          key: 21,
          wimg: 5,
          noExecute: true,
          referenced: true,
          changed: true,
          bolted: true,
          secondary: true,
        });
        expect(made).toMatchObject({
          valid: true,
          segmentSize,
          baseShift,
          shift,
          ra: 0x0f00_000c_0000_0000n,
          pp: 6,
          key: 21,
          wimg: 5,
          noExecute: true,
          referenced: true,
          changed: true,
          bolted: true,
          secondary: true,
        });
        expect((made.avpn << 23n) >> (segmentSize === '1T' ? 40n : 28n)).toBe(0x3_1234_5678n);
      }
    }
  });

  it('is refused with a field out of range', () => {
    const page = { vsid: 1, segmentSize: '1T', offset: 0, ra: 0 } as const;
    expect(() => encodeHpte({ ...page, vsid: 1n << 38n })).toThrow(/"vsid" is out of range. It must be below 2\^38/);
    expect(() => encodeHpte({ ...page, offset: 2 ** 40 })).toThrow(/"offset" is out of range. It must be below 2\^40/);
    expect(() => encodeHpte({ ...page, segmentSize: '256M', offset: 2 ** 28 })).toThrow(
      /"offset" is out of range. It must be below 2\^28/,
    );
    expect(() => encodeHpte({ ...page, ra: 0x800 })).toThrow(/multiple of 2\^12/);
    expect(() => encodeHpte({ ...page, ra: 1n << 60n })).toThrow(/"ra" is out of range. It must be below/);
    expect(() => encodeHpte({ ...page, key: 32 })).toThrow(/"key" is out of range. It must be below 2\^5/);
    expect(() => encodeHpte({ ...page, pp: 8 })).toThrow(/"pp" is out of range. It must be below/);
    expect(() => encodeHpte({ ...page, baseShift: 20 })).toThrow(
      /"baseShift" is out of range. It must be one of 12, 16, 24, 34/,
    );
    expect(() => encodeHpte({ ...page, segmentSize: '256M', baseShift: 34 })).toThrow(
      /"shift" is out of range. It must be at most 28 in a segment of 256M/,
    );
    expect(() => hpte(-1, 0)).toThrow(RangeError);
    expect(() => hpte(0, 2 ** 53)).toThrow(/bigint/);
  });
});

describe('a segment', () => {
  it('covers its own addresses only', () => {
    const small = encodeSegment({ ea: 0x8f_f812_3456n, vsid: 5, segmentSize: '256M' });
    expect(small.covers(0x8f, 0xf000_0000)).toBe(true);
    expect(small.covers(0x8f, 0xffff_ffff)).toBe(true);
    expect(small.covers(0x90, 0)).toBe(false);
    expect(small.covers(0x8f, 0xefff_ffff)).toBe(false);
    const large = encodeSegment({ ea: 0xc000_3f00_0000_0000n, vsid: 5, segmentSize: '1T' });
    expect(large.covers(0xc000_3fff, 0xffff_ffff)).toBe(true);
    expect(large.covers(0xc000_4000, 0)).toBe(false);
    expect(segment(0, large.vsidWord).covers(0, 0)).toBe(false);
    expect(inspect(segment(0, large.vsidWord))).toContain('(invalid)');
  });

  it('is refused with a VSID that is too long or a page size that does not exist', () => {
    expect(() => encodeSegment({ ea: 0, vsid: 1n << 38n, segmentSize: '1T' })).toThrow(RangeError);
    expect(() => encodeSegment({ ea: 0, vsid: 1n << 50n, segmentSize: '256M' })).toThrow(RangeError);
    expect(() => encodeSegment({ ea: 0, vsid: 1, segmentSize: '1T', baseShift: 20 })).toThrow(RangeError);
  });

  it('has the encodings that GET_SMMU_INFO lists', () => {
    const sllp = (baseShift: number): bigint => vrmaSegment(baseShift).vsidWord & 0x130n;
    expect([12, 16, 24].map(sllp)).toEqual([0n, 0x110n, 0x100n]);
    expect(vrmaSegment().vsidWord).toBe((1n << 62n) | (0x1ff_ffffn << 24n));
  });
});

describe('a table', () => {
  it('is 2^order bytes, in memory as the processor has it', () => {
    const table = new Htab(18);
    expect([table.entryCount, table.groupCount, table.bytes.byteLength]).toEqual([16384, 2048, 262144]);
    table.set(3, { v: 0x0102_0304_0506_0708n, r: 0x090a_0b0c_0d0e_0f10n });
    expect([...table.bytes.subarray(48, 64)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    expect(table.get(3).v).toBe(0x0102_0304_0506_0708n);
    table.clear(3, 1);
    expect(table.get(3).r).toBe(0n);
  });

  it('refuses orders, lengths and slots out of range', () => {
    expect(() => new Htab(17)).toThrow(RangeError);
    expect(() => new Htab(47)).toThrow(RangeError);
    expect(() => new Htab(46)).toThrow(
      /"size" is out of range. It must be a number of bytes that this process can allocate/,
    );
    expect(() => new Htab(19, new Uint8Array(2 ** 18))).toThrow(
      /"bytes.byteLength" is out of range. It must be 524288 for order 19. Received 262144/,
    );
    expect(() => new Htab(18, new Uint8Array(16))).toThrow(RangeError);
    const table = new Htab(18);
    expect(() => table.get(16384)).toThrow(/"slot" is out of range/);
    expect(() => table.set(-1, { v: 0, r: 0 })).toThrow(RangeError);
    expect(() => table.get(0.5)).toThrow(RangeError);
    // Words are aligned, as everywhere.
    for (const at of [1, 2, 3]) {
      const bytes = new Uint8Array(2 ** 18 + 4).subarray(at, at + 2 ** 18);
      expect(() => new Htab(18, bytes)).toThrow(/"bytes.byteOffset" .* a multiple of 4/);
    }
    expect(new Htab(18, new Uint8Array(2 ** 18 + 4).subarray(4)).entryCount).toBe(16384);
  });

  it('is cleared from a slot on, so many or all', () => {
    const valid = (...cleared: Parameters<Htab['clear']>) => {
      const table = new Htab(18);
      for (const slot of [0, 2, 3, 16383]) table.set(slot, { v: 1, r: 0 });
      table.clear(...cleared);
      return [0, 2, 3, 16383].filter((slot) => table.isValid(slot));
    };
    expect(valid()).toEqual([]);
    expect(valid(3)).toEqual([0, 2]);
    expect(valid(2, 1)).toEqual([0, 3, 16383]);
    expect(valid(3, 0)).toEqual([0, 2, 3, 16383]);
    expect(valid(16384)).toEqual([0, 2, 3, 16383]);
    expect(() => valid(3, 16382)).toThrow('"count"');
    expect(() => valid(16385)).toThrow('"slot"');
  });

  it('shows how much of it is valid', () => {
    const table = new Htab(18);
    for (const slot of [0, 5, 16383]) table.set(slot, { v: 1, r: 0 });
    table.set(6, { v: 0x10, r: 1 });
    expect(inspect(table)).toBe('Htab of order 18: 16384 slots in 2048 groups, 3 of them valid');
  });
});
