import { describe, expect, it } from 'vitest';
import { EmulatedDirtyRing } from '../../../lib/emulated/dirty-ring.ts';

// struct kvm_dirty_gfn: flags, slot, offset (u32, u32, u64); 16 bytes. Bit 0 of the flags: dirty; bit 1: to be reset.
const ENTRY = 16;
/** KVM_DIRTY_RING_RSVD_ENTRIES. */
const RESERVED = 64;

const entryAt = (ring: EmulatedDirtyRing, index: number, little: boolean) => ({
  flags: ring.area.view.getUint32(ENTRY * index, little),
  slot: ring.area.view.getUint32(ENTRY * index + 4, little),
  offset: ring.area.view.getBigUint64(ENTRY * index + 8, little),
});

describe.each([true, false])('a dirty ring (little-endian: %s)', (little) => {
  const reset = (ring: EmulatedDirtyRing, ...indexes: number[]): void => {
    for (const index of indexes) ring.area.view.setUint32(ENTRY * index, 2, little);
  };
  const taken = (ring: EmulatedDirtyRing): [count: number, pages: string[]] => {
    const pages: string[] = [];
    return [ring.takeReset((slot, offset) => void pages.push(`${slot}:${offset}`)), pages];
  };

  it('has an entry for each page, in order, at its beginning again after its end', () => {
    const ring = new EmulatedDirtyRing(4 * ENTRY, little);
    for (let i = 0; i < 4; i++) ring.push(0x1_0002, 2 ** 33 + i);
    expect(entryAt(ring, 0, little)).toEqual({ flags: 1, slot: 0x1_0002, offset: 2n ** 33n });
    expect(entryAt(ring, 3, little)).toEqual({ flags: 1, slot: 0x1_0002, offset: 2n ** 33n + 3n });
    reset(ring, 0);
    expect(taken(ring)).toEqual([1, [`${0x1_0002}:${2 ** 33}`]]);
    ring.push(7, 9);
    expect(entryAt(ring, 0, little)).toEqual({ flags: 1, slot: 7, offset: 9n });
    expect(entryAt(ring, 1, little).slot).toBe(0x1_0002);
  });

  it('takes back what is marked, up to the first that is not, and once', () => {
    const ring = new EmulatedDirtyRing(4 * ENTRY, little);
    for (let i = 0; i < 4; i++) ring.push(1, i);
    reset(ring, 0, 1, 3);
    expect(taken(ring)).toEqual([2, ['1:0', '1:1']]);
    expect([0, 1, 2, 3].map((index) => entryAt(ring, index, little).flags)).toEqual([0, 0, 1, 2]);
    expect(taken(ring)).toEqual([0, []]);
    reset(ring, 2);
    expect(taken(ring)).toEqual([2, ['1:2', '1:3']]);
  });

  it('asks for no reset before it has written an entry, whatever is marked', () => {
    const ring = new EmulatedDirtyRing(256 * ENTRY, little);
    reset(ring, 0);
    expect([taken(ring)[0], ring.checkRequest()]).toEqual([1, false]);
  });

  it('asks for a reset once it has as few free entries as are kept back, until some were taken', () => {
    const entries = 256;
    const ring = new EmulatedDirtyRing(entries * ENTRY, little);
    for (let i = 0; i < entries - RESERVED - 1; i++) ring.push(1, i);
    expect(ring.checkRequest()).toBe(false);
    ring.push(1, 0);
    expect(ring.checkRequest()).toBe(true);
    expect(ring.checkRequest()).toBe(true);
    reset(ring, 0);
    taken(ring);
    expect(ring.checkRequest()).toBe(false);
    ring.push(1, 0);
    expect(ring.checkRequest()).toBe(true);
  });
});
