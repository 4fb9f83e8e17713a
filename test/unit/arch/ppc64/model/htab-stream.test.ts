import assert from 'node:assert';
import { afterEach, describe, expect, it, vi } from 'vitest';
import {
  applyHtabStream,
  checkHtabStream,
  decodeHtabStream,
  encodeHtabChanges,
  encodeHtabStream,
  Htab,
  HtabStreamError,
  htabChunks,
  orderFor,
  readHtabChunk,
  wholeHtabChunks,
} from '../../../../../lib/arch/ppc64/model/index.ts';
import { thrown } from './thrown.ts';

/** A stream from chunks, written down by hand. */
function stream(
  ...chunks: [index: number, entries: [v: bigint, r: bigint][], nInvalid: number, nValid?: number][]
): Buffer {
  return Buffer.concat(
    chunks.map(([index, entries, nInvalid, nValid = entries.length]) => {
      const bytes = Buffer.alloc(8 + entries.length * 16);
      bytes.writeUInt32LE(index);
      bytes.writeUInt16LE(nValid, 4);
      bytes.writeUInt16LE(nInvalid, 6);
      entries.forEach(([v, r], i) => {
        bytes.writeBigUInt64BE(v, 8 + i * 16);
        bytes.writeBigUInt64BE(r, 16 + i * 16);
      });
      return bytes;
    }),
  );
}

const A: [bigint, bigint] = [0x4000_0001_2345_6011n, 0x1192n];
const B: [bigint, bigint] = [0x4000_0001_2345_8001n, 0x2010n];

describe('an empty table', () => {
  it('of order 18 is one chunk, as a real kernel gives it', () => {
    expect([...encodeHtabStream(new Htab(18))]).toEqual([0, 0, 0, 0, 0, 0, 0x00, 0x40]);
  });

  it('of order 24 is 16 chunks of 65535 and one of 16: 136 bytes, as a real kernel gives it', () => {
    const chunks = [...htabChunks(encodeHtabStream(new Htab(24)))];
    expect(chunks.map(({ index, nValid, nInvalid }) => [index, nValid, nInvalid])).toEqual([
      ...Array.from({ length: 16 }, (_, i) => [i * 65535, 0, 65535]),
      [1048560, 0, 16],
    ]);
    expect(encodeHtabStream(new Htab(24)).byteLength).toBe(136);
  });
});

describe('runs', () => {
  // Short ones and long ones are cleared in two ways.
  it.each([1, 2, 40, 5000])('of %i invalid entries clear those, and no others', (count) => {
    const table = new Htab(18);
    for (let slot = 0; slot < 6000; slot++) table.setWords(slot, -1, 1, -1, slot << 12);
    applyHtabStream(table, stream([100, [], count]));
    const kept = [99, 100, 100 + count - 1, 100 + count].map((slot) => [table.get(slot).v, table.get(slot).r]);
    const whole = (slot: number): bigint[] => [0xffff_ffff_0000_0001n, 0xffff_ffff_0000_0000n | BigInt(slot << 12)];
    expect(kept).toEqual([whole(99), [0n, 0n], [0n, 0n], whole(100 + count)]);
  });

  it('of valid entries are cut at 65535', () => {
    const table = new Htab(21);
    for (let slot = 10; slot < 70000; slot++) table.setWords(slot, 0, 1, 0, slot << 12);
    const chunks = [...htabChunks(encodeHtabStream(table))].map(({ index, nValid, nInvalid }) => [
      index,
      nValid,
      nInvalid,
    ]);
    expect(chunks).toEqual([
      [0, 0, 10],
      [10, 65535, 0],
      [65545, 4455, 61072],
    ]);
    expect(Buffer.compare(decodeHtabStream(encodeHtabStream(table)).bytes, table.bytes)).toBe(0);
  });

  it('report entries that are not bolted as empty, when asked', () => {
    const table = decodeHtabStream(stream([0, [A, B, A], 5]));
    expect(encodeHtabStream(table, { boltedOnly: true, to: 8 })).toEqual(
      new Uint8Array(stream([0, [A], 1], [2, [A], 5])),
    );
  });

  it('cover the slots asked for', () => {
    const table = decodeHtabStream(stream([3, [A, B], 0]));
    expect(encodeHtabStream(table, { from: 4, to: 6 })).toEqual(new Uint8Array(stream([4, [B], 1])));
    expect(encodeHtabStream(table, { from: 4, to: 4 })).toHaveLength(0);
    expect(() => encodeHtabStream(table, { from: 5, to: 4 })).toThrow(RangeError);
    expect(() => encodeHtabStream(table, { to: 16385 })).toThrow(RangeError);
  });
});

describe('headers', () => {
  it('can be big-endian; entries always are', () => {
    const table = decodeHtabStream(stream([0x102, [A], 3]));
    const big = encodeHtabStream(table, { headers: 'big', from: 0x102, to: 0x106 });
    expect([...big.subarray(0, 16)]).toEqual([0, 0, 1, 2, 0, 1, 0, 3, 0x40, 0, 0, 1, 0x23, 0x45, 0x60, 0x11]);
    expect(decodeHtabStream(big, { headers: 'big' }).get(0x102).v).toBe(A[0]);
    expect(thrown(() => decodeHtabStream(big))).toMatchObject({ offset: 0 });
  });
});

describe('decoding', () => {
  it('drops the bits that KVM sets in what it reports', () => {
    const table = decodeHtabStream(stream([7, [[A[0] | 0x60n, A[1]]], 0]));
    expect([table.get(7).v, table.get(7).r]).toEqual(A);
  });

  it('empties invalid slots', () => {
    const table = decodeHtabStream(stream([0, [A, B, A], 0]));
    applyHtabStream(table, stream([1, [], 2]));
    expect([0, 1, 2].map((slot) => table.isValid(slot))).toEqual([true, false, false]);
    expect(table.get(1).r).toBe(0n);
  });

  it('takes the order from the slots mentioned', () => {
    expect(decodeHtabStream(stream([0x7fff, [], 1])).order).toBe(19);
    expect(decodeHtabStream(stream([0x7fff, [], 1]), { order: 20 }).order).toBe(20);
    expect([0, 1, 16384, 16385, 1 << 20].map(orderFor)).toEqual([18, 18, 18, 19, 24]);
  });

  it.each<[string, Buffer, string, number]>([
    [
      'a header of which little is there',
      Buffer.concat([stream([0, [A], 0]), Buffer.alloc(3)]),
      'truncated-header',
      24,
    ],
    ['half a header', Buffer.concat([stream([0, [A], 0]), Buffer.alloc(5)]), 'truncated-header', 24],
    ['half an entry', stream([0, [A, B], 0]).subarray(0, 39), 'truncated-entries', 0],
    ['an entry of which a doubleword is there', stream([0, [A, B], 0]).subarray(0, 32), 'truncated-entries', 0],
    ['more entries announced than there are', stream([0, [A], 0, 0xffff]), 'index', 0],
    ['slots beyond the end', stream([0, [A], 0], [16383, [B], 1]), 'index', 24],
    ['an index at the end, and nothing there', stream([0, [A], 0], [16384, [], 0]), 'index', 24],
    ['an index beyond the end', stream([0xffff_ffff, [], 0]), 'index', 0],
    ['an entry without VALID', stream([5, [A, [B[0] & ~1n, B[1]]], 0]), 'not-valid', 24],
    ['a reserved segment size', stream([5, [[A[0] | (1n << 63n), A[1]]], 0]), 'segment-size', 8],
    ['a page size that does not exist', stream([5, [[A[0] | 4n, 0x2000n]], 0]), 'page-size', 8],
  ])('refuses %s, changing nothing', (_what, bytes, problem, offset) => {
    const table = decodeHtabStream(stream([0, [B], 0]));
    const before = Buffer.from(table.bytes);
    expect(thrown(() => applyHtabStream(table, bytes))).toEqual({ problem, offset });
    expect(Buffer.compare(table.bytes, before)).toBe(0);
  });

  it('says in words what is wrong and where', () => {
    expect(() => checkHtabStream(stream([4, [A, [0n, 0n]], 0]))).toThrow(
      'the entry of slot 5 lacks VALID (at byte 24 of the HTAB stream)',
    );
    expect(() => checkHtabStream(Buffer.concat([stream([4, [A], 0]), Buffer.alloc(5)]))).toThrow(
      'a chunk header has 8 bytes, 5 are left (at byte 24 of',
    );
    expect(() => checkHtabStream(stream([0, [A], 0], [4, [A, A], 0]).subarray(0, 50))).toThrow(
      '2 valid entries have 32 bytes, 18 are left (at byte 24 of',
    );
    expect(() => checkHtabStream(stream([0, [A], 0]).subarray(0, 16))).toThrow(
      '1 valid entry has 16 bytes, 8 are left',
    );
    expect(() => checkHtabStream(stream([4, [A, [A[0] | (1n << 63n), A[1]]], 0]))).toThrow(
      'the entry of slot 5 has a reserved segment size (at byte 24 of',
    );
    expect(() => checkHtabStream(stream([4, [[A[0] | 4n, 0x2000n]], 0]))).toThrow(
      'the entry of slot 4 has a page size that does not exist (at byte 8 of',
    );
    expect(() => checkHtabStream(stream([4, [A], 3]), { entryCount: 7 })).toThrow(
      'slot 4 and 1 valid and 3 empty entries from there, in a table of 7 (at byte 0 of',
    );
    expect(() => readHtabChunk(stream([4, [A], 0]), 24)).toThrow('the stream ends (at byte 24 of the HTAB stream)');
    const error = new HtabStreamError('index', 3, 'x');
    expect(error).toBeInstanceOf(RangeError);
    expect(error).toMatchObject({
      name: 'HtabStreamError',
      code: 'ERR_HTAB_STREAM',
      problem: 'index',
      offset: 3,
      message: 'x (at byte 3 of the HTAB stream)',
    });
    // Of a part of a stream, and with what else is known.
    expect(error.from(40).with('y')).toMatchObject({
      problem: 'index',
      offset: 43,
      message: 'x; y (at byte 43 of the HTAB stream)',
    });
  });

  it('takes empty slots 64 times over the table, and no more', () => {
    const turns = (count: number) => Buffer.concat(Array(count).fill(stream([0, [], 8])));
    expect(checkHtabStream(turns(64), { entryCount: 8 })).toMatchObject({ chunks: 64, invalid: 512 });
    expect(() => checkHtabStream(turns(65), { entryCount: 8 })).toThrow(
      '520 slots are told to be empty, more than 64 times the 8 of the table (at byte 0 of',
    );
    // Valid ones carry their bytes: nothing is made of nothing.
    expect(checkHtabStream(Buffer.concat(Array(65).fill(stream([0, [A], 0]))), { entryCount: 1 }).valid).toBe(65);
  });

  it('finds orders up to 28, and says that of others it must be told', () => {
    const far = stream([2 ** 24, [A], 0]);
    expect(() => decodeHtabStream(far)).toThrow(/; a table of an order above 28 must be told of \(at byte 0 of/);
    const wrong = stream([5, [[B[0] & ~1n, B[1]]], 0]);
    expect(() => decodeHtabStream(wrong)).toThrow('lacks VALID (at byte 8 of');
    expect(orderFor(2 ** 24)).toBe(28);
  });

  it('counts gaps: a first pass has none', () => {
    expect(checkHtabStream(stream([0, [A], 2], [3, [], 1], [4, [B], 0]))).toEqual({
      chunks: 3,
      valid: 2,
      invalid: 3,
      extent: 5,
      gapless: true,
    });
    expect(checkHtabStream(stream([0, [A], 2], [1, [], 1])).gapless).toBe(false);
    expect(checkHtabStream(stream([1, [A], 2])).gapless).toBe(false);
    // Back to what was told before: the highest slot counts.
    expect(checkHtabStream(stream([0, [A, A], 2], [0, [], 1]))).toMatchObject({ extent: 4, gapless: false });
  });
});

describe('pieces of a stream', () => {
  const whole = stream([0, [A, B], 3], [9, [], 4], [20, [A], 0]);

  it('are cut behind the last whole chunk', () => {
    const ends = new Set([0, 40, 48, 72]);
    for (let length = 0; length <= whole.byteLength; length++) {
      const cut = wholeHtabChunks(whole.subarray(0, length));
      expect(cut).toBe(Math.max(...[...ends].filter((end) => end <= length)));
    }
  });

  it('are refused when no more bytes can make them right', () => {
    expect(thrown(() => wholeHtabChunks(whole, { entryCount: 20 }))).toEqual({ problem: 'index', offset: 48 });
    expect(thrown(() => wholeHtabChunks(whole.subarray(0, 57), { entryCount: 20 }))).toMatchObject({ offset: 48 });
  });

  it('can be read one chunk at a time', () => {
    expect(readHtabChunk(whole, 40)).toEqual({ index: 9, nValid: 0, nInvalid: 4, offset: 40, entries: 48, end: 48 });
    expect(thrown(() => readHtabChunk(whole, 72))).toEqual({ problem: 'truncated-header', offset: 72 });
    expect(thrown(() => readHtabChunk(whole, 66))).toEqual({ problem: 'truncated-header', offset: 66 });
  });
});

describe('changes', () => {
  it('are the slots that differ, and only those', () => {
    const before = decodeHtabStream(stream([0, [A, A, B, A], 0]));
    const after = decodeHtabStream(stream([0, [A, B], 1], [3, [A], 0], [100, [A], 0]));
    expect(encodeHtabChanges(before, after)).toEqual(new Uint8Array(stream([1, [B], 1], [100, [A], 0])));
    expect(encodeHtabChanges(after, after)).toHaveLength(0);
    expect(() => encodeHtabChanges(before, new Htab(19))).toThrow(RangeError);
  });

  it('come in chunks of valid entries and then of empty slots', () => {
    const before = decodeHtabStream(stream([0, [A, A, A, A], 0]));
    const after = decodeHtabStream(stream([1, [B], 1], [3, [B], 0]));
    expect(encodeHtabChanges(before, after)).toEqual(new Uint8Array(stream([0, [], 1], [1, [B], 1], [3, [B], 0])));
  });

  it('have big-endian headers for a kernel that has them', () => {
    const before = new Htab(18);
    const after = decodeHtabStream(stream([0x102, [A], 0]));
    expect([...encodeHtabChanges(before, after, { headers: 'big' }).subarray(0, 8)]).toEqual([0, 0, 1, 2, 0, 1, 0, 0]);
    expect([...encodeHtabChanges(before, after).subarray(0, 8)]).toEqual([2, 1, 0, 0, 1, 0, 0, 0]);
    expect(() => encodeHtabChanges(before, after, { headers: 'middle' as 'big' })).toThrow('"options.headers"');
  });

  it('go up to the last slot, and no further', () => {
    const [none, last] = [new Htab(18), new Htab(18)];
    last.setV(16383, 0, 1);
    expect(encodeHtabChanges(none, last)).toEqual(new Uint8Array(stream([16383, [[1n, 0n]], 0])));
    expect(encodeHtabChanges(last, none)).toEqual(new Uint8Array(stream([16383, [], 1])));
    last.setV(16382, 0, 1);
    none.setV(16383, 0, 1);
    expect(encodeHtabChanges(none, last)).toEqual(new Uint8Array(stream([16382, [[1n, 0n]], 0])));
    none.setV(16383, 0, 0x11);
    last.setV(16383, 0, 0);
    expect(encodeHtabChanges(none, last)).toEqual(new Uint8Array(stream([16382, [[1n, 0n]], 1])));
  });

  it('are cut at 65535, to the last slot', () => {
    const [none, all] = [new Htab(20), new Htab(20)];
    for (let at = 7; at < all.bytes.length; at += 16) all.bytes[at] = 1;
    // Headers alone: 65535 empty slots, and one.
    const removed = [stream([0, [], 65535]), stream([65535, [], 1])];
    expect(Buffer.compare(encodeHtabChanges(all, none), Buffer.concat(removed))).toBe(0);
    const added = encodeHtabChanges(none, all);
    expect(added).toHaveLength(8 + 65535 * 16 + 8 + 16);
    expect([...added.subarray(0, 8)]).toEqual([0, 0, 0, 0, 0xff, 0xff, 0, 0]);
    expect([...added.subarray(-24, -16)]).toEqual([0xff, 0xff, 0, 0, 1, 0, 0, 0]);
  });
});

describe('what an encoded stream takes', () => {
  afterEach(() => {
    vi.restoreAllMocks();
  });

  it('is little more than it has bytes, from any slot on', () => {
    const table = new Htab(21);
    for (let slot = 0; slot < table.entryCount; slot += 2) if (slot % 16 !== 0) table.setV(slot, 0, 1);
    for (const from of [0, 100, 65_536, 131_000]) {
      const bytes = encodeHtabStream(table, { from });
      // Runs are cut: two headers for each 65535 slots or part of them, and one.
      const most = (2 * Math.ceil((table.entryCount - from) / 65_535) + 1) * 8;
      expect(bytes.buffer.byteLength - bytes.length).toBeLessThanOrEqual(most);
    }
    const bolted = encodeHtabStream(table, { boltedOnly: true });
    expect(bolted.buffer.byteLength).toBeLessThanOrEqual(64);
  });

  it('shows nothing of what was in memory before', () => {
    vi.spyOn(Buffer, 'allocUnsafeSlow').mockImplementation((size) => Buffer.alloc(size).fill(0xee));
    const bytes = encodeHtabStream(decodeHtabStream(stream([0, [A, B], 5])));
    const rest = new Uint8Array(bytes.buffer).subarray(bytes.length);
    expect(rest.length).toBeGreaterThan(0);
    expect(rest.every((byte) => byte === 0)).toBe(true);
  });

  it('leaves what is behind it in bytes of the caller’s, and may end with them', () => {
    expect([...encodeHtabStream(new Htab(18), { into: new Uint8Array(8) })]).toEqual([0, 0, 0, 0, 0, 0, 0, 0x40]);
    expect(() => encodeHtabStream(new Htab(18), { into: new Uint8Array(7) })).toThrow(
      /"options.into.byteLength" is out of range. It must be enough for the stream. Received 7/,
    );
    const into = new Uint8Array(12).fill(0xee);
    encodeHtabStream(new Htab(18), { into });
    expect([...into.subarray(8)]).toEqual([0xee, 0xee, 0xee, 0xee]);
  });
});

describe('how a stream is read', () => {
  it.each([
    ['format.headers', { headers: 'middle' }],
    ['format.loops.apply', { loops: { encode() {} } }],
    ['format.loops.encode', { loops: { apply() {} } }],
    ['format.loops', { loops: 1 }],
    ['format.entryCount', { entryCount: -1 }],
  ])('must make sense: %s', (name, format) => {
    expect(() =>
      checkHtabStream(new Uint8Array(0), format as unknown as Parameters<typeof checkHtabStream>[1]),
    ).toThrow(`"${name}"`);
  });
});

it('a table whose memory has gone can be shown by an assertion that fails', () => {
  const table = new Htab(18);
  structuredClone(table.bytes.buffer, { transfer: [table.bytes.buffer as ArrayBuffer] });
  expect(table.view).toBe(table.view);
  expect(() => assert.strictEqual({ ...table }, undefined)).toThrow(assert.AssertionError);
  expect(() => assert.strictEqual(table, undefined)).toThrow(assert.AssertionError);
});
