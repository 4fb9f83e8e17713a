import { expect, it } from 'vitest';
import { copyIn, copyOut, movePieces } from '../../../lib/emulated/user-memory.ts';
import { ERRNO } from '../../../lib/raw.ts';

it('what the kernel copies out fills what there is, and is EFAULT where that is too short', () => {
  const from = Uint8Array.of(1, 2, 3);
  const to = new Uint8Array(4);
  expect(copyOut(from, to)).toBe(0);
  expect([...to]).toEqual([1, 2, 3, 0]);
  const exact = new Uint8Array(3);
  expect(copyOut(from, exact)).toBe(0);
  expect([...exact]).toEqual([1, 2, 3]);
  const short = new Uint8Array(2);
  expect(copyOut(from, short)).toBe(-ERRNO.EFAULT);
  expect([...short]).toEqual([1, 2]);
  expect(copyOut(from, null)).toBe(-ERRNO.EFAULT);
});

it('what it copies in is a copy of so many bytes, or nothing', () => {
  const from = Uint8Array.of(1, 2, 3);
  const copy = copyIn(from, 2)!;
  from[0] = 9;
  expect([...copy]).toEqual([1, 2]);
  expect(copyIn(from, 3)).toHaveLength(3);
  expect(copyIn(from, 4)).toBeUndefined();
  expect(copyIn(null, 0)).toBeUndefined();
});

it('an array that was detached has no room, also for compiled code that has met resizable buffers', () => {
  const resizable: ArrayBuffer = Reflect.construct(ArrayBuffer, [8, { maxByteLength: 16 }]);
  const there = [new Uint8Array(8), new Uint8Array(resizable), new Uint8Array(resizable, 0, 4)];
  const from = new Uint8Array(4);
  const move = (_hva: number, bytes: Uint8Array): number => bytes.length;
  const moveOne = (bytes: Uint8Array): number => movePieces(Float64Array.of(0x10), Uint32Array.of(4), bytes, move);
  for (let i = 0; i < 200_000; i++) {
    const bytes = there[i % there.length]!;
    copyOut(from, bytes);
    copyIn(bytes, 4);
    moveOne(bytes);
  }
  const gone = new Uint8Array(8);
  structuredClone(gone, { transfer: [gone.buffer] });
  expect(copyOut(from, gone)).toBe(-ERRNO.EFAULT);
  expect(copyIn(gone, 4)).toBeUndefined();
  expect(moveOne(gone)).toBe(0);
});

it('pieces are moved back to back until one can not be moved whole', () => {
  const moved: [number, number[]][] = [];
  const move = (hva: number, bytes: Uint8Array): number => {
    moved.push([hva, [...bytes]]);
    return hva === 0x30 ? bytes.length - 1 : bytes.length;
  };
  const bytes = Uint8Array.of(1, 2, 3, 4, 5, 6);
  const run = (hvas: number[], lengths: number[]): number => {
    moved.length = 0;
    return movePieces(Float64Array.from(hvas), Uint32Array.from(lengths), bytes, move);
  };
  expect(run([0x10, 0x20, 0x40], [2, 0, 4])).toBe(3);
  expect(moved).toEqual([
    [0x10, [1, 2]],
    [0x40, [3, 4, 5, 6]],
  ]);
  expect(run([0x10, 0x30, 0x40], [1, 2, 1])).toBe(1);
  expect(moved).toHaveLength(2);
  // The array ends before the second one does.
  expect(run([0x10, 0x20], [3, 4])).toBe(1);
  expect(moved).toHaveLength(1);
  // As many as have an address and a length.
  expect(run([0x10, 0x20], [1])).toBe(1);
  expect(run([0x10], [1, 1])).toBe(1);
});
