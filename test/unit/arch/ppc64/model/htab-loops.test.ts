import { describe, expect, it } from 'vitest';
import { type HtabLoops, LARGE_SIZES, plainHtabLoops } from '../../../../../lib/arch/ppc64/model/htab-loops.ts';
import {
  applyHtabStream,
  decodeHtabStream,
  encodeHtabStream,
  Htab,
  type HtabEncodeOptions,
  htabChunks,
} from '../../../../../lib/arch/ppc64/model/index.ts';
import { loadNative } from '../../../../../lib/backends/native.ts';
import { addonHtabLoops } from '../../../../fuzz/htab-fuzz.ts';
import { Random } from '../../../../fuzz/random.ts';

const addon = addonHtabLoops(loadNative());
const all: [string, HtabLoops][] = [['TypeScript', plainHtabLoops]];
if (addon !== undefined) all.push(['the addon', addon]);

/** A table of order 21 with runs of each length, some cut by the format, some small and some large pages. */
function mixedTable(): Htab {
  const table = new Htab(21);
  const random = new Random(5);
  const put = (slot: number) => {
    const isLarge = random.oneIn(3);
    const vLo = (random.below(2 ** 25) * 128) | (random.oneIn(2) ? 0x10 : 0) | (isLarge ? 5 : 1);
    table.setWords(slot, random.below(2 ** 31), vLo, random.below(2 ** 32), isLarge ? 0x1000 : random.below(2 ** 32));
  };
  for (let slot = 3; slot < 3 + 65_537; slot++) put(slot);
  for (let slot = 65_600; slot < 65_900; slot++) if (random.oneIn(2)) put(slot);
  for (let slot = 65_900, length = 1; length < 150; slot += length + random.below(150), length++) {
    for (let i = 0; i < length; i++) put(slot + i);
  }
  put(table.entryCount - 1);
  return table;
}

describe.each(all)('the loops of %s', (_name, loops) => {
  it('clear no more than 64 turns of the table, for eight bytes can clear a MiB', () => {
    const table = new Htab(18);
    table.setWords(1, 0, 1, 0, 0);
    // Of all slots, so many times; entries, so that it is worth a call of the addon.
    const turns = (count: number): Buffer => {
      const header = Buffer.alloc(8);
      header.writeUInt16LE(table.entryCount, 6);
      return Buffer.concat([encodeHtabStream(mixedTable(), { from: 3, to: 600 }), ...Array(count).fill(header)]);
    };
    expect(() => applyHtabStream(table, turns(65), { loops })).toThrow(expect.objectContaining({ problem: 'repeats' }));
    expect(table.isValid(1)).toBe(true);
    applyHtabStream(table, turns(64), { loops });
    expect(table.isValid(1)).toBe(false);
  });

  it.each([
    ['all', {}],
    ['big-endian headers', { headers: 'big' }],
    ['bolted entries', { boltedOnly: true }],
    ['an odd part', { from: 65, to: 98_303 }],
    ['one block of 64', { from: 65_600, to: 65_664 }],
  ] satisfies [string, HtabEncodeOptions][])('encode what comes back: %s', (_what, options: HtabEncodeOptions) => {
    const table = mixedTable();
    const { from = 0, to = table.entryCount, headers = 'little', boltedOnly = false } = options;
    const bytes = encodeHtabStream(table, { ...options, loops });
    let next = from;
    // One expectation for all: for each of so many chunks they would take longer than the rest.
    const wrong: unknown[] = [];
    for (const { index, nValid, nInvalid } of htabChunks(bytes, { headers })) {
      const isBehindTheLast = index === next;
      next = index + nValid + nInvalid;
      // A run ends where the other kind begins, or is as long as it may be.
      const isWhole = next >= to || nInvalid === 65_535 || nValid === 65_535 || table.isValid(next);
      if (!isBehindTheLast || !isWhole) wrong.push({ index, nValid, nInvalid });
    }
    expect(wrong).toEqual([]);
    expect(next).toBe(to);
    const again = new Htab(21);
    applyHtabStream(again, bytes, { headers, loops });
    const expected = new Htab(21);
    for (let slot = from; slot < to; slot++) {
      if (!table.isValid(slot) || (boltedOnly && (table.vLo(slot) & 0x10) === 0)) continue;
      expected.bytes.set(table.bytes.subarray(slot * 16, slot * 16 + 16), slot * 16);
    }
    expect(Buffer.compare(again.bytes, expected.bytes)).toBe(0);
  });

  describe('encode a large table into new memory', () => {
    let calls = 0;
    const counted: HtabLoops = {
      ...loops,
      encode: (...args) => {
        calls++;
        return loops.encode(...args);
      },
    };
    const order = 22;
    const room = new Uint8Array(new Htab(order).bytes.length + 8 * 5);
    const put = (table: Htab, slot: number) => table.setWords(slot, slot, 1, slot, 0x1000);
    /** Encodes it, and says how often the loops were asked. */
    const encoded = (table: Htab, options: HtabEncodeOptions): [calls: number, bytes: Uint8Array] => {
      calls = 0;
      const bytes = encodeHtabStream(table, { ...options, loops: counted });
      const asked = calls;
      expect(Buffer.compare(bytes, encodeHtabStream(table, { ...options, loops, into: room }))).toBe(0);
      return [asked, bytes];
    };

    it.each([0.05, 0.5, 0.95, 1])('at once, and with little room to spare: %f of the slots', (density) => {
      const random = new Random(7);
      const table = new Htab(order);
      for (let slot = 0; slot < table.entryCount; slot++) if (random.below(1000) < density * 1000) put(table, slot);
      for (const from of [0, 4097]) {
        const [asked, bytes] = encoded(table, { from });
        expect(asked).toBe(1);
        expect(bytes.buffer.byteLength / bytes.length).toBeLessThan(1.25);
      }
    });

    it('at the second attempt where what samples say of it was too little', () => {
      const attempts = new Set<number>();
      for (let at = 0; at < 4; at++) {
        const table = new Htab(order);
        for (let i = 0; i < 200; i++) put(table, 65_536 * at + 1000 * at + i);
        attempts.add(encoded(table, {})[0]);
      }
      expect(attempts).toContain(2);
    });
  });

  it('know nothing but streams that are right, anywhere in memory', () => {
    const table = mixedTable();
    const stream = encodeHtabStream(table);
    const target = new Htab(21);
    const anywhere = Buffer.alloc(stream.length + 3).subarray(3);
    anywhere.set(stream);
    expect(loops.apply(target.bytes, anywhere, 1, LARGE_SIZES)).toBe(1);
    expect(Buffer.compare(encodeHtabStream(target), stream)).toBe(0);
    const before = Buffer.from(target.bytes);
    anywhere[stream.length - 16 + 7]! &= ~1;
    expect(loops.apply(target.bytes, anywhere, 1, LARGE_SIZES)).toBe(0);
    expect(Buffer.compare(target.bytes, before)).toBe(0);
    expect(loops.apply(target.bytes, stream, 0, LARGE_SIZES)).toBe(0);
    expect(loops.apply(target.bytes, stream, 1, new Uint8Array(256))).toBe(0);
    expect(Buffer.compare(target.bytes, before)).toBe(0);
  });
});

it.skipIf(addon === undefined)('a table that no cache holds is the same by both loops, wherever it begins', () => {
  const runs = [1, 63, 64, 65, 1000, 65_535];
  const bytes = 64 * 2 ** 20;
  const stream = Buffer.concat(
    runs.map((nValid, i) => {
      const chunk = Buffer.alloc(8 + nValid * 16, 0xa5);
      chunk.writeUInt32LE(i * 70_001);
      chunk.writeUInt16LE(nValid, 4);
      chunk.writeUInt16LE(i, 6);
      // Valid, ABSENT and HVLOCK, the number of its slot, and no reserved B.
      for (let slot = 0; slot < nValid; slot++) chunk.writeBigUInt64BE((BigInt(slot) << 12n) | 0x61n, 8 + slot * 16);
      return chunk;
    }),
  );
  const [plain, ...others] = [0, 0, 8].map((at) => new Uint8Array(bytes + 16).fill(0x5a).subarray(at, at + bytes));
  expect(plainHtabLoops.apply(plain!, stream, 1, LARGE_SIZES)).toBe(1);
  expect(Buffer.from(plain!.buffer).readBigUInt64BE(5 * 70_001 * 16 + 16)).toBe(0x1001n);
  for (const other of others) {
    expect(addon!.apply(other, stream, 1, LARGE_SIZES)).toBe(1);
    expect(Buffer.compare(other, plain!)).toBe(0);
  }
});

describe.each(all)('encoding into bytes of the caller’s with the loops of %s', (_name, loops) => {
  it.each([0, 1, 4])('writes them and nothing behind, %i bytes from the beginning of a Buffer', (offset) => {
    const table = mixedTable();
    const stream = encodeHtabStream(table);
    const room = Buffer.alloc(offset + stream.length + 5, 0xee);
    const bytes = encodeHtabStream(table, { loops, into: room.subarray(offset, offset + stream.length) });
    expect(bytes.byteOffset).toBe(room.byteOffset + offset);
    expect(bytes.buffer).toBe(room.buffer);
    expect(Buffer.compare(bytes, stream)).toBe(0);
    expect([...room.subarray(0, offset), ...room.subarray(offset + stream.length)]).toEqual(
      Array(offset + 5).fill(0xee),
    );
    expect(Buffer.compare(encodeHtabStream(table, { loops, into: Buffer.alloc(stream.length + 99) }), stream)).toBe(0);
  });

  it('may end with the header of empty slots', () => {
    const table = new Htab(18);
    const empty = [0, 0, 0, 0, 0, 0, 0, 0x40];
    expect([...encodeHtabStream(table, { loops, into: new Uint8Array(8) })]).toEqual(empty);
    expect(() => encodeHtabStream(table, { loops, into: new Uint8Array(7) })).toThrow(RangeError);
  });

  it('refuses too few of them', () => {
    const table = mixedTable();
    const { length } = encodeHtabStream(table);
    for (const size of [0, 7, 8, length - 1]) {
      expect(() => encodeHtabStream(table, { loops, into: new Uint8Array(size) })).toThrow(RangeError);
    }
  });
});

it('the codec uses the loops it is given, for more than a few KiB, and no others', () => {
  const calls: string[] = [];
  const loops: HtabLoops = {
    apply: (...args) => {
      calls.push('apply');
      return plainHtabLoops.apply(...args);
    },
    encode: (...args) => {
      calls.push('encode');
      return plainHtabLoops.encode(...args);
    },
  };
  const table = new Htab(18);
  for (let slot = 0; slot < table.entryCount; slot += 2) table.setV(slot, 0, 1);
  const stream = encodeHtabStream(table, { loops });
  applyHtabStream(new Htab(18), stream, { loops });
  decodeHtabStream(stream, { loops });
  expect(calls).toEqual(['encode', 'apply', 'apply']);
  encodeHtabStream(table);
  encodeHtabStream(table, { loops, to: 8 });
  applyHtabStream(new Htab(18), stream);
  decodeHtabStream(stream);
  expect(calls).toHaveLength(3);
});

it('a stream that is right and is not taken is one that changes meanwhile, or is the table itself', () => {
  const table = mixedTable();
  const bytes = encodeHtabStream(table, { from: 3, to: 600 });
  const loops: HtabLoops = { ...plainHtabLoops, apply: () => 0 };
  expect(() => applyHtabStream(new Htab(18), bytes, { loops })).toThrow(
    'The stream overlaps the table, or was changed while it was applied',
  );
});

describe.runIf(addon !== undefined)('the addon', () => {
  it('refuses what makes no sense', () => {
    const { apply, encode } = addon!;
    const bytes = new Uint8Array(2 ** 18 + 64);
    const table = bytes.subarray(0, 2 ** 18);
    const out = new Uint8Array(2 ** 19);
    expect(encode(table, 0, 2 ** 14, 1, 1, out)).toBe(8);
    expect(encode(table, 1, 0, 1, 1, out)).toBeLessThan(0);
    expect(encode(table, 0, 2 ** 14 + 1, 1, 1, out)).toBeLessThan(0);
    expect(encode(table, 0, Number.MAX_SAFE_INTEGER, 1, 1, out)).toBeLessThan(0);
    expect(encode(table, 0, 2 ** 14, 1, 1, bytes.subarray(2 ** 18 - 1))).toBeLessThan(0);
    const stream = Uint8Array.of(0, 0, 0, 0, 0, 0, 1, 0);
    expect(apply(table, stream, 1, LARGE_SIZES)).toBe(1);
    expect(apply(table, stream, 1, LARGE_SIZES.subarray(1))).toBe(0);
    expect(apply(table, bytes.subarray(2 ** 18 - 8, 2 ** 18), 1, LARGE_SIZES)).toBe(0);
    expect(apply(new Uint8Array(0), stream, 1, LARGE_SIZES)).toBe(0);
    expect(apply(new Uint8Array(0), new Uint8Array(0), 1, LARGE_SIZES)).toBe(1);
  });
});
