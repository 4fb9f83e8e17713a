import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { USER_CHANGED } from '../../lib/arch/s390x/emulated/key-loops.ts';
import { PageStates } from '../../lib/arch/s390x/emulated/page-states.ts';
import { indexOfBits, keepBits } from '../../lib/base/wide-bytes.ts';
import type { EmulatedMemslot } from '../../lib/emulated/memslots.ts';

/** A part of an array that begins anywhere in a word. */
const part = fc
  .record({ bytes: fc.uint8Array({ maxLength: 60 }), skip: fc.nat(9), start: fc.nat(60), length: fc.nat(60) })
  .map(({ bytes, skip, start, length }) => {
    const whole = new Uint8Array(skip + bytes.length);
    whole.set(bytes, skip);
    const first = Math.min(start, bytes.length);
    return { bytes: whole.subarray(skip), first, end: Math.min(first + length, bytes.length) };
  });

describe('bytes four at a time', () => {
  it('keep their bits as one by one, and no others are touched', () => {
    fc.assert(
      fc.property(part, fc.nat(255), ({ bytes, first, end }, bits) => {
        const wanted = bytes.map((byte, i) => (i >= first && i < end ? byte & bits : byte));
        keepBits(bytes, first, end, bits);
        expect(bytes).toEqual(wanted);
      }),
    );
  });

  it('are searched as one by one', () => {
    fc.assert(
      fc.property(part, fc.nat(7), fc.boolean(), ({ bytes, first, end }, bit, sparse) => {
        if (sparse) for (let i = 0; i < bytes.length; i++) if (i % 13 !== 7) bytes[i] = 0;
        const found = bytes.findIndex((byte, i) => i >= first && i < end && (byte & (1 << bit)) !== 0);
        expect(indexOfBits(bytes, first, end, 1 << bit)).toBe(found < 0 ? end : found);
      }),
    );
  });
});

describe('storage keys of runs', () => {
  /** Frames around the end of a chunk of 32768. */
  const slot = { hostAddress: 0x7f00_0000_0000 + 32740 * 4096, baseGfn: 0, npages: 100 } as unknown as EmulatedMemslot;
  /** The changed bit of each frame, which no call shows alone. */
  class Watched extends PageStates {
    changed(gfn: number): number {
      return this.lastSet.get(this.page(slot, gfn)) & USER_CHANGED;
    }
    forget(): void {
      this.lastSet.mask(0xfe);
    }
  }
  const frames = Array.from({ length: 100 }, (_, gfn) => gfn);

  it('are set and read as those of single frames', () => {
    const keys = fc.uint8Array({ maxLength: 70 }).map((bytes) => bytes.map((byte) => byte & 0x1e));
    const step = fc.record({ gfn: fc.nat(29), keys, skip: fc.nat(5), forget: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 6 }), (steps) => {
        const [together, singly] = [new Watched(), new Watched()];
        for (const { gfn, keys, skip, forget } of steps) {
          const from = new Uint8Array(skip + keys.length);
          from.set(keys, skip);
          together.writeKeys(slot, gfn, from, skip, keys.length);
          for (const [i, key] of keys.entries()) singly.setKey(slot, gfn + i, key);
          expect(frames.map((each) => together.changed(each))).toEqual(frames.map((each) => singly.changed(each)));
          const read = new Uint8Array(102).fill(0xff);
          together.readKeys(slot, 0, read, 1, 100);
          expect([...read]).toEqual([0xff, ...frames.map((each) => singly.key(slot, each)), 0xff]);
          if (forget) for (const states of [together, singly]) states.forget();
        }
      }),
    );
  });
});
