import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { chunksRead } from '../../../../../lib/arch/ppc64/model/htab-chunk.ts';
import { HtabDecoder, HtabPieces } from '../../../../../lib/arch/ppc64/model/htab-pieces.ts';
import { htabChunks } from '../../../../../lib/arch/ppc64/model/index.ts';
import { thrown } from './thrown.ts';

/** A chunk written down by hand: its header in the order asked for, entries as the processor has them. */
function chunk(
  index: number,
  entries: readonly (readonly [v: bigint, r: bigint])[],
  nInvalid = 0,
  big = false,
): Buffer {
  const bytes = Buffer.alloc(8 + entries.length * 16);
  if (big) {
    bytes.writeUInt32BE(index);
    bytes.writeUInt16BE(entries.length, 4);
    bytes.writeUInt16BE(nInvalid, 6);
  } else {
    bytes.writeUInt32LE(index);
    bytes.writeUInt16LE(entries.length, 4);
    bytes.writeUInt16LE(nInvalid, 6);
  }
  for (const [i, [v, r]] of entries.entries()) {
    bytes.writeBigUInt64BE(v, 8 + i * 16);
    bytes.writeBigUInt64BE(r, 16 + i * 16);
  }
  return bytes;
}

const A = [0x4000_0001_2345_6011n, 0x1192n] as const;
const B = [0x4000_0001_2345_8001n, 0x2010n] as const;

const streamOf = (big: boolean): Buffer =>
  Buffer.concat([
    chunk(0, [A, B], 3, big),
    chunk(9, [], 4, big),
    chunk(20, [A], 0, big),
    chunk(300, [B, B, A], 1, big),
  ]);

/** Gives pieces of `size` bytes in one buffer that is used again and again, as a reader of files does. */
function* piecesOf(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  const buffer = Buffer.alloc(size);
  for (let at = 0; at < bytes.length; at += size) {
    const piece = bytes.subarray(at, at + size);
    buffer.fill(0xff);
    buffer.set(piece);
    yield buffer.subarray(0, piece.length);
  }
}

describe.each(['little', 'big'] as const)('a stream with %s-endian headers in pieces', (headers) => {
  const whole = streamOf(headers === 'big');

  it.each([1, 3, 7, 8, 9, 16, 23, 24, 40, 47, 1000])('of %i bytes is cut at the ends of its chunks', (size) => {
    const pieces = new HtabPieces({ headers });
    const got: Buffer[] = [];
    for (const piece of piecesOf(whole, size)) {
      pieces.take(piece, (chunks) => {
        expect(pieces.offset).toBe(Buffer.concat(got).length);
        // Whole chunks, each time: their bytes end with the last one.
        expect([...htabChunks(chunks, { headers })].at(-1)?.end).toBe(chunks.length);
        got.push(Buffer.from(chunks));
      });
    }
    pieces.end();
    expect(pieces.offset).toBe(whole.length);
    expect(Buffer.concat(got).equals(whole)).toBe(true);
  });

  it('is given out as soon as a chunk is whole, and not before', () => {
    const pieces = new HtabPieces({ headers });
    const given: [taken: number, chunks: number][] = [];
    for (const [i, byte] of whole.entries())
      pieces.take(Uint8Array.of(byte), (chunks) => given.push([i + 1, chunks.length]));
    expect(given).toEqual([
      [40, 40],
      [48, 8],
      [72, 24],
      [128, 56],
    ]);
  });

  it('ends at the end of a chunk, or is cut', () => {
    for (let length = 0; length <= whole.length; length++) {
      const pieces = new HtabPieces({ headers });
      pieces.take(whole.subarray(0, length), () => {});
      const begins = [0, 40, 48, 72, 128].filter((at) => at <= length).at(-1) ?? 0;
      if (begins === length) {
        pieces.end();
        continue;
      }
      const problem = length - begins < 8 ? 'truncated-header' : 'truncated-entries';
      expect(thrown(() => pieces.end())).toEqual({ problem, offset: begins });
    }
  });

  it('is a table in the end, the smallest or the one asked for', () => {
    for (const size of [1, 13, 64, 1000]) {
      const decoder = new HtabDecoder({ headers, entryCount: 2 ** 15 });
      for (const piece of piecesOf(whole, size)) decoder.take(piece);
      const { chunks, valid, invalid, extent, gapless } = decoder.summary;
      expect({ chunks, valid, invalid, extent, gapless }).toEqual({
        chunks: 4,
        valid: 6,
        invalid: 8,
        extent: 304,
        gapless: false,
      });
      const table = decoder.end();
      expect(table.order).toBe(18);
      const found = [0, 1, 2, 20, 300, 301, 302, 303].map((slot) => [table.get(slot).v, table.get(slot).r]);
      expect(found).toEqual([A, B, [0n, 0n], A, B, B, A, [0n, 0n]]);
      expect(decoder.end(20).order).toBe(20);
      expect(decoder.end(20).get(302).v).toBe(A[0]);
    }
  });

  it('lets its table grow, and later chunks say what is there', () => {
    const big = headers === 'big';
    const decoder = new HtabDecoder({ headers, entryCount: 2 ** 15 });
    decoder.take(chunk(0, [A, B], 16382, big));
    expect(decoder.end().order).toBe(18);
    expect(decoder.summary.gapless).toBe(true);
    decoder.take(chunk(16384, [B], 1, big));
    expect(decoder.summary.gapless).toBe(true);
    decoder.take(chunk(1, [], 1, big));
    expect(decoder.summary.gapless).toBe(false);
    const table = decoder.end();
    expect([table.order, table.get(0).v, table.isValid(1), table.get(16384).v]).toEqual([19, A[0], false, B[0]]);
    // It is not made smaller than what is in it.
    expect([decoder.end(18).order, decoder.end(18).get(16384).v]).toEqual([19, B[0]]);
  });

  it('is wrong where it is in the whole stream', () => {
    const big = headers === 'big';
    const bad = chunk(5, [A, [B[0] & ~1n, B[1]]], 0, big);
    for (const size of [1, 30, 1000]) {
      const decoder = new HtabDecoder({ headers, entryCount: 304 });
      const take = (bytes: Uint8Array) => {
        for (const piece of piecesOf(bytes, size)) decoder.take(piece);
      };
      take(whole);
      expect(thrown(() => take(bad))).toEqual({ problem: 'not-valid', offset: 128 + 24 });
      const further = new HtabDecoder({ headers, entryCount: 303 });
      const all = () => {
        for (const piece of piecesOf(whole, size)) further.take(piece);
      };
      expect(thrown(all)).toEqual({ problem: 'index', offset: 72 });
    }
  });

  it('gives out the errors of who takes the chunks as they are', () => {
    const pieces = new HtabPieces({ headers });
    const error = new Error('full');
    const take = () =>
      pieces.take(whole, () => {
        throw error;
      });
    expect(take).toThrow(error);
  });
});

describe('chunks that a kernel gave', () => {
  // Order of bits in V's lowest byte: HVLOCK 0x40, ABSENT 0x20, BOLTED 0x10.
  const given = () =>
    Buffer.concat([
      chunk(
        7,
        [
          [A[0] | 0x60n, A[1]],
          [B[0] | 0x40n, B[1]],
        ],
        2,
      ),
      chunk(11, [], 5),
    ]);

  it('have the bits that are KVM’s own cleared, and nothing else', () => {
    const chunks = chunksRead(given(), {});
    const clean = Buffer.concat([chunk(7, [A, B], 2), chunk(11, [], 5)]);
    expect(Buffer.concat(chunks.map(({ bytes }) => bytes)).equals(clean)).toBe(true);
    expect(chunks.map(({ bytes }) => bytes.length)).toEqual([40, 8]);
  });

  it('say which slots they tell of', () => {
    const chunks = chunksRead(given(), {});
    expect(chunks.map(({ index, nValid, nInvalid, slots, end }) => [index, nValid, nInvalid, slots, end])).toEqual([
      [7, 2, 2, 4, 11],
      [11, 0, 5, 5, 16],
    ]);
    expect(chunks.map((one) => inspect(one))).toEqual([
      'HtabChunkBytes from slot 7 on: 2 valid, 2 empty',
      'HtabChunkBytes from slot 11 on: 0 valid, 5 empty',
    ]);
  });

  it('have entries, then empty slots', () => {
    // Not at a multiple of anything in its buffer.
    const anywhere = Buffer.concat([Buffer.alloc(3), given()]).subarray(3);
    const [first, second] = chunksRead(anywhere, {});
    const entries = [...first!.entries()].map(({ slot, entry }) => [slot, entry?.v, entry?.r]);
    expect(entries).toEqual([
      [7, ...A],
      [8, ...B],
      [9, undefined, undefined],
      [10, undefined, undefined],
    ]);
    expect([...first!.validEntries()].map(({ slot }) => slot)).toEqual([7, 8]);
    expect([...second!.entries()].map(({ slot }) => slot)).toEqual([11, 12, 13, 14, 15]);
    expect([...second!.validEntries()]).toEqual([]);
  });
});
