import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  applyHtabStream,
  checkHtabStream,
  decodeHtabStream,
  encodeHpte,
  encodeHtabChanges,
  encodeHtabStream,
  encodeSegment,
  findHpte,
  HTAB_RUN_MAX,
  Htab,
  HtabStreamError,
  htabChunks,
  otherGroup,
  PAGE_ENCODINGS,
  primaryGroup,
  segmentOffset,
  virtualPage,
  wholeHtabChunks,
} from '../../lib/arch/ppc64/model/index.ts';

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });

/** Tables with some valid entries in clusters; what lies in the empty slots is noise. */
const tables = fc
  .record({
    order: fc.constantFrom(18, 19),
    runs: fc.array(fc.tuple(fc.integer({ min: 0, max: 16383 }), fc.integer({ min: 1, max: 40 }), u32), {
      maxLength: 30,
    }),
    holes: fc.array(fc.integer({ min: 0, max: 16383 }), { maxLength: 30 }),
  })
  .map(({ order, runs, holes }) => {
    const table = new Htab(order);
    for (const [from, length, seed] of runs) {
      for (let slot = from; slot < Math.min(from + length, table.entryCount); slot++) {
        const noise = Math.imul(seed + slot, 0x9e37_79b1);
        table.setWords(slot, noise & 0x7fff_ffff, (noise & 0xffff_ff9a) | 1, noise ^ seed, noise);
      }
    }
    for (const slot of holes) table.setWords(slot, 7, 8, 9, 10);
    return table;
  });

const contents = (table: Htab): string =>
  Array.from({ length: table.entryCount }, (_, slot) =>
    table.isValid(slot) ? `${slot}:${table.get(slot).v},${table.get(slot).r}` : '',
  ).join();

it('a table survives encoding and decoding, in either byte order', () => {
  fc.assert(
    fc.property(tables, fc.constantFrom('little' as const, 'big' as const), (table, headers) => {
      const bytes = encodeHtabStream(table, { headers });
      const back = decodeHtabStream(bytes, { headers });
      expect(back.order).toBe(table.order);
      expect(contents(back)).toBe(contents(table));
      expect(Buffer.compare(encodeHtabStream(back, { headers }), bytes)).toBe(0);
      let next = 0;
      for (const { index, nValid, nInvalid } of htabChunks(bytes, { headers })) {
        expect(index).toBe(next);
        expect(Math.max(nValid, nInvalid)).toBeLessThanOrEqual(HTAB_RUN_MAX);
        next = index + nValid + nInvalid;
      }
      expect(next).toBe(table.entryCount);
    }),
    { numRuns: 60 },
  );
});

it('the changes between two tables turn the one into the other', () => {
  fc.assert(
    fc.property(tables, tables, (before, other) => {
      const after = new Htab(before.order);
      applyHtabStream(after, encodeHtabStream(other, { to: Math.min(before.entryCount, other.entryCount) }));
      applyHtabStream(before, encodeHtabChanges(before, after));
      expect(contents(before)).toBe(contents(after));
    }),
    { numRuns: 40 },
  );
});

/** Streams that are nearly right: chunks with plausible headers and entries, bytes flipped, cut anywhere. */
const hostile = fc
  .record({
    chunks: fc.array(
      fc.tuple(
        fc.oneof(fc.integer({ min: 0, max: 16400 }), u32),
        fc.oneof(fc.integer({ min: 0, max: 4 }), fc.integer({ min: 0, max: 0xffff })),
        fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 0xffff })),
        fc.uint8Array({ maxLength: 70 }),
        fc.boolean(),
      ),
      { maxLength: 6 },
    ),
    flips: fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 }),
    cut: fc.nat(20),
  })
  .map(({ chunks, flips, cut }) => {
    const parts = chunks.map(([index, nValid, nInvalid, entries, fits]) => {
      const header = Buffer.alloc(8);
      header.writeUInt32LE(index);
      header.writeUInt16LE(fits ? Math.floor(entries.length / 16) : nValid, 4);
      header.writeUInt16LE(nInvalid, 6);
      const body = Buffer.from(entries.subarray(0, fits ? entries.length - (entries.length % 16) : entries.length));
      if (fits) for (let at = 7; at < body.length; at += 16) body[at]! |= 1;
      return Buffer.concat([header, body]);
    });
    const all = Buffer.concat(parts);
    for (const [at, value] of flips) if (all.length > 0) all[at % all.length] = value;
    return new Uint8Array(all.subarray(0, Math.max(0, all.length - (cut > 10 ? cut - 10 : 0))));
  });

it('a hostile stream is refused with its offset and changes nothing, or is applied whole', () => {
  let refused = 0;
  let taken = 0;
  fc.assert(
    fc.property(fc.oneof(hostile, fc.uint8Array({ maxLength: 200 })), (bytes) => {
      const table = new Htab(18);
      table.set(3, { v: 1, r: 0x1000 });
      const before = Buffer.from(table.bytes);
      try {
        applyHtabStream(table, bytes);
        taken++;
        const sum = checkHtabStream(bytes);
        expect(sum.extent).toBeLessThanOrEqual(table.entryCount);
        expect(wholeHtabChunks(bytes)).toBe(bytes.byteLength);
      } catch (error) {
        refused++;
        if (!(error instanceof HtabStreamError)) throw error;
        expect(error.offset).toBeGreaterThanOrEqual(0);
        expect(error.offset).toBeLessThan(bytes.byteLength);
        expect(Buffer.compare(table.bytes, before)).toBe(0);
      }
    }),
    { numRuns: 3000 },
  );
  expect(Math.min(refused, taken)).toBeGreaterThan(300);
});

it('an entry is found exactly where it was put, from any address in its page, and gives its virtual page back', () => {
  fc.assert(
    fc.property(
      fc.record({
        order: fc.integer({ min: 18, max: 22 }),
        segmentSize: fc.constantFrom('256M' as const, '1T' as const),
        vsid: fc.bigInt({ min: 0n, max: (1n << 38n) - 1n }),
        esid: fc.bigInt({ min: 0n, max: (1n << 24n) - 1n }),
        offset: fc.bigInt({ min: 0n, max: (1n << 40n) - 1n }),
        within: fc.bigInt({ min: 0n, max: (1n << 34n) - 1n }),
        sizes: fc.constantFrom(...PAGE_ENCODINGS),
        secondary: fc.boolean(),
        place: fc.nat(7),
      }),
      ({ order, segmentSize, vsid, esid, offset, within, sizes: { baseShift, shift }, secondary, place }) => {
        fc.pre(segmentSize === '1T' || baseShift < 28);
        const inSegment = segmentSize === '1T' ? offset : offset & 0xfff_ffffn;
        const base = esid << 40n;
        const seg = encodeSegment({ ea: base, vsid, segmentSize, baseShift });
        const page = (inSegment >> BigInt(baseShift)) << BigInt(baseShift);
        const group = primaryGroup(seg, Number(page), order);
        const slot = (secondary ? otherGroup(group, order) : group) * 8 + place;
        const table = new Htab(order);
        const entry = encodeHpte({ vsid, segmentSize, offset: page, ra: 0, baseShift, shift, secondary });
        table.set(slot, entry);

        const ea = base | page | (within & ((1n << BigInt(baseShift)) - 1n));
        const [hi, lo] = [Number(ea >> 32n), Number(ea & 0xffff_ffffn)];
        expect(segmentOffset(segmentSize, hi, lo)).toBe(Number(ea - base));
        expect(findHpte(table, seg, hi, lo)).toBe(slot);
        const next = ea + (1n << BigInt(baseShift));
        if (next - base < (segmentSize === '1T' ? 1n << 40n : 1n << 28n)) {
          expect(findHpte(table, seg, Number(next >> 32n), Number(next & 0xffff_ffffn))).toBe(-1);
        }
        expect(virtualPage(entry, slot, order)).toEqual({ segmentSize, vsid, offset: Number(page), reachable: true });
      },
    ),
    { numRuns: 2000 },
  );
});
