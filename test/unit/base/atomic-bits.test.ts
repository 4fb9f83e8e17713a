import fc from 'fast-check';
import { expect, it } from 'vitest';
import { setBits, takeBits } from '../../../lib/base/atomic-bits.ts';

const ranges = fc.array(fc.tuple(fc.nat(320), fc.nat(320)), { maxLength: 6 });

it('bits that were set are taken once, in order, wherever the array begins; none beside them is touched', () => {
  fc.assert(
    fc.property(fc.nat(15), fc.integer({ min: 40, max: 57 }), ranges, (offset, length, some) => {
      const buffer = new Uint8Array(offset + length + 8).fill(0xff);
      const bytes = buffer.subarray(offset, offset + length).fill(0);
      const set = new Set<number>();
      for (const [one, other] of some) {
        const [first, end] = [Math.min(one, other), Math.max(one, other)];
        setBits(bytes, first, end);
        for (let bit = first; bit < end; bit++) set.add(bit);
      }
      const taken: number[] = [];
      takeBits(bytes, (bit) => taken.push(bit));
      expect(taken).toEqual([...set].sort((a, b) => a - b));
      expect(bytes.every((byte) => byte === 0)).toBe(true);
      expect(buffer.filter((byte) => byte !== 0xff).length).toBe(length);
      takeBits(bytes, () => expect.unreachable());
    }),
  );
});

it('the last bit of eight bytes alone is seen', () => {
  const bytes = new Uint8Array(24);
  setBits(bytes, 127, 128);
  const taken: number[] = [];
  takeBits(bytes, (bit) => taken.push(bit));
  expect(taken).toEqual([127]);
});
