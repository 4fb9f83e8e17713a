import { describe, expect, it } from 'vitest';
import { copyByCopy, copyBySet, copyBySubarray, copyBytes, copyMemory } from '../../../lib/base/copy-bytes.ts';

const numbered = (length: number) => Uint8Array.from({ length }, (_, i) => i & 0xff);

/** What memmove makes of it. */
function moved(bytes: Uint8Array, fromAt: number, toAt: number, length: number): Uint8Array {
  const all = [...bytes];
  all.splice(toAt, length, ...all.slice(fromAt, fromAt + length));
  return Uint8Array.from(all);
}

// Some of them are what Node's version doesn't choose.
describe.each([
  ['copyBytes', copyBytes],
  ['copyByCopy', copyByCopy],
  ['copyBySet', copyBySet],
  ['copyMemory', copyMemory],
  ['copyBySubarray', copyBySubarray],
])('%s', (_name, copy) => {
  it.each([0, 1, 8, 15, 16, 17, 32, 100, 255])('copies %i bytes, overlapping either way or not', (length) => {
    for (const [fromAt, toAt] of [
      [0, 300],
      [300, 0],
      [5, 5],
      [5, 6],
      [6, 5],
      [5, 5 + (length >> 1)],
      [5 + (length >> 1), 5],
    ] as const) {
      const bytes = numbered(600);
      copy(bytes, fromAt, bytes, toAt, length);
      expect({ fromAt, toAt, bytes }).toEqual({ fromAt, toAt, bytes: moved(numbered(600), fromAt, toAt, length) });
    }
  });

  it.each([8, 64])('copies %i bytes between arrays that begin at different places of one buffer', (length) => {
    for (const [fromAt, toAt] of [
      [3, 7],
      [7, 3],
    ] as const) {
      const bytes = numbered(200);
      copy(bytes.subarray(fromAt - 1), 1, bytes.subarray(toAt - 2), 2, length);
      expect({ fromAt, toAt, bytes }).toEqual({ fromAt, toAt, bytes: moved(numbered(200), fromAt, toAt, length) });
    }
  });

  it('copies whole arrays, into and out of Buffers and shared memory too', () => {
    const from = numbered(100);
    for (const to of [Buffer.alloc(102), new Uint8Array(new SharedArrayBuffer(102))]) {
      copy(from, 0, to, 1, 100);
      expect([...to]).toEqual([0, ...from, 0]);
      const back = new Uint8Array(100);
      copy(to, 1, back, 0, 100);
      expect(back).toEqual(from);
    }
  });

  it('never pretends that memory which has gone was copied', () => {
    const gone = new Uint8Array(64);
    structuredClone(gone.buffer, { transfer: [gone.buffer] });
    expect(() => copy(gone, 4, new Uint8Array(64), 0, 40)).toThrow();
    expect(() => copy(new Uint8Array(64), 4, gone, 0, 40)).toThrow();
  });
});
