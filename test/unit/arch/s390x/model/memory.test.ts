import { describe, expect, it } from 'vitest';
import { cpuState, memoryOfBytes, memoryOfFrames, translate } from '../../../../../lib/arch/s390x/model/index.ts';

/** Bytes of which each says where it is, as far as a byte can. */
const bytes = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i % 251) + (i >> 12));

const word = (data: Uint8Array, at: number): number => Buffer.from(data).readUInt32BE(at);

describe.each([
  ['one array', (data: Uint8Array) => memoryOfBytes(data)],
  [
    'frames',
    (data: Uint8Array) => memoryOfFrames((pfn) => (pfn < 2 ? data.subarray(4096 * pfn, 4096 * (pfn + 1)) : undefined)),
  ],
])('storage of %s', (_, make) => {
  // Two frames, and a part of one, which is none.
  const data = bytes(2 * 4096 + 100);

  it('is read in big-endian doublewords', () => {
    const memory = make(data);
    for (const [pfn, offset] of [
      [0, 0],
      [0, 8],
      [0, 0xff8],
      [1, 0],
      [1, 0x7f8],
    ] as const) {
      expect(memory.readDoubleword(pfn, offset)).toBe(0);
      const at = 4096 * pfn + offset;
      expect([memory.hi, memory.lo]).toEqual([word(data, at), word(data, at + 4)]);
    }
  });

  it('ends with its last whole frame', () => {
    const memory = make(data);
    expect([0, 1, 2, 3, 2 ** 40].map((pfn) => memory.hasFrame(pfn))).toEqual([true, true, false, false, false]);
    expect(memory.readDoubleword(2, 0)).toBe(5);
    expect(memory.readDoubleword(2 ** 40, 0)).toBe(5);
  });

  it('has unsigned halves', () => {
    const memory = make(new Uint8Array(2 * 4096).fill(0xff));
    expect(memory.readDoubleword(1, 0x10)).toBe(0);
    expect([memory.hi, memory.lo]).toEqual([0xffff_ffff, 0xffff_ffff]);
  });
});

it('a frame whose content nobody knows is there, and cannot be read', () => {
  const memory = memoryOfFrames((pfn) => (pfn === 0 ? null : undefined));
  expect([memory.readDoubleword(0, 0), memory.hasFrame(0)]).toEqual([-14, true]);
  expect([memory.readDoubleword(1, 0), memory.hasFrame(1)]).toEqual([5, false]);
});

it('what a user’s storage gives must be what can be', () => {
  const given = (answer: unknown) => () => memoryOfFrames(() => answer as Uint8Array).readDoubleword(0, 0);
  expect(given('x')).toThrow(/a Uint8Array, undefined or null to be returned from frame/);
  const answers = (readDoubleword: unknown) => () =>
    translate(cpuState({ cr: { 1: 0 } }), { hi: 0, lo: 0, readDoubleword, hasFrame: () => true } as never, 0);
  for (const wrong of [0x1_0000, -4096, 0.5, undefined, '0']) {
    expect(
      answers(() => wrong),
      String(wrong),
    ).toThrow(/0, a program-interruption code or a negative errno to be returned from memory.readDoubleword/);
  }
  for (const right of [0xffff, 5, -4095]) expect(answers(() => right)()).toMatchObject({ code: right });
});
