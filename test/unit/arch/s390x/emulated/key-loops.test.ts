import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import {
  type KeyLoops,
  noted,
  noteKeys,
  plainKeyLoops,
  useKeyLoops,
} from '../../../../../lib/arch/s390x/emulated/key-loops.ts';
import { loopsOfBoth, ofAddon } from '../../../addon-loops.ts';

afterAll(() => useKeyLoops(ofAddon(({ storageKeys }) => storageKeys)));

it('a page is changed by another key than the one before, and stays so', () => {
  expect([noted(0x30, 0x30), noted(0x31, 0x30), noted(0x30, 0x32), noted(0x31, 0x32), noted(0, 0x80)]).toEqual([
    0x30, 0x31, 0x33, 0x33, 0x81,
  ]);
});

describe.each(loopsOfBoth<KeyLoops>(plainKeyLoops, ({ storageKeys }) => storageKeys))('the loop %s', (_name, loops) => {
  it('notes as one by one does, at any place in memory, and nothing beside it', () => {
    const bytes = fc.uint8Array({ minLength: 0, maxLength: 80 });
    fc.assert(
      fc.property(bytes, bytes, fc.nat(7), (one, other, skip) => {
        const length = Math.min(one.length, other.length);
        const [whole, given] = [new Uint8Array(skip + length + 3).fill(0xaa), new Uint8Array(skip + length)];
        whole.set(one.subarray(0, length), skip);
        given.set(
          other.subarray(0, length).map((key) => key & 0xfe),
          skip,
        );
        const [last, keys] = [whole.subarray(skip, skip + length), given.subarray(skip)];
        const expected = last.map((before, i) => noted(before, keys[i]!));
        expect(loops.note(last, keys)).toBe(0);
        expect(last).toEqual(expected);
        expect([...whole.subarray(0, skip), ...whole.subarray(skip + length)]).toEqual(new Array(skip + 3).fill(0xaa));
      }),
    );
  });

  it('notes each of two keys', () => {
    // All pairs, in each place of a word.
    for (let skip = 0; skip < 4; skip++) {
      for (let before = 0; before < 256; before++) {
        const last = new Uint8Array(132).fill(before).subarray(skip, skip + 128);
        const keys = new Uint8Array(132).map((_, i) => 2 * (i - skip)).subarray(skip, skip + 128);
        loops.note(last, keys);
        expect(last).toEqual(keys.map((key) => noted(before, key)));
      }
    }
  });
});

it('the addon is asked for many', () => {
  const asked: number[] = [];
  useKeyLoops({ note: (last, keys) => asked.push(last.length, keys.length) });
  const noteMany = (count: number): number => {
    const last = new Uint8Array(count);
    noteKeys(last, new Uint8Array(count).fill(0x20));
    return last[count - 1]!;
  };
  expect([noteMany(511), asked]).toEqual([0x21, []]);
  expect([noteMany(512), asked]).toEqual([0, [512, 512]]);
  useKeyLoops(undefined);
  expect([noteMany(512), asked]).toEqual([0x21, [512, 512]]);
});
