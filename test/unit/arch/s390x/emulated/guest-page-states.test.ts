import { describe, expect, it } from 'vitest';
import { GuestPageStates } from '../../../../../lib/arch/s390x/emulated/guest-page-states.ts';
import { EmulatedMemslot } from '../../../../../lib/emulated/memslots.ts';

/** Frames of a page table of KVM's. */
const TABLE = 256;
const [R, RC] = [4, 6];

/** Keys that are on, and a slot of four tables from frame 512 on. */
function states() {
  const made = new GuestPageStates();
  made.enableKeys();
  const slot = new EmulatedMemslot(0, 0, 0n, 4 * TABLE, 2 * TABLE, 0);
  const tables = (): number[] => Array.from({ length: 10 }, (_, i) => i).filter((i) => made.keepsCmma(i * TABLE));
  const keys = (...frames: number[]): number[] => frames.map((gfn) => made.key(slot, gfn));
  const changed = (): number[] => [...made.takeAllChanged(slot)].sort((a, b) => a - b);
  return { made, slot, tables, keys, changed };
}

describe('a page table', () => {
  it('is made for the frame that is accessed or set', () => {
    const { made, slot, tables } = states();
    expect(tables()).toEqual([]);
    made.accessed(slot, 2 * TABLE + 255, false);
    expect(tables()).toEqual([2]);
    made.setKey(slot, 4 * TABLE, 0x10);
    made.setCmma(slot, 6 * TABLE - 1, 1);
    expect(tables()).toEqual([2, 4, 5]);
    // Each frame says it for its table.
    expect([made.keepsCmma(3 * TABLE - 1), made.keepsCmma(3 * TABLE)]).toEqual([true, false]);
  });

  it('is made for whichever is the first, also after others have gone', () => {
    for (const table of [0, 1, 2]) {
      const { made, slot, tables } = states();
      made.setKey(slot, table * TABLE, 0x10);
      expect(tables()).toEqual([table]);
      made.forget(0, 4 * TABLE);
      made.setKey(slot, table * TABLE, 0x10);
      expect(tables()).toEqual([table]);
    }
  });

  it('is made for all frames whose keys are set together', () => {
    for (const [first, length, expected] of [
      [2 * TABLE, 1, [2]],
      [2 * TABLE, TABLE, [2]],
      [2 * TABLE, TABLE + 1, [2, 3]],
      [3 * TABLE - 1, 1, [2]],
      [3 * TABLE - 1, 2, [2, 3]],
      [2 * TABLE + 100, 3 * TABLE, [2, 3, 4, 5]],
    ] as const) {
      const { made, slot, tables } = states();
      made.writeKeys(slot, first, new Uint8Array(length + 5).fill(0x10), 5, length);
      expect(tables()).toEqual(expected);
    }
  });

  it('is not made by who only looks', () => {
    const { made, slot, tables } = states();
    made.key(slot, 2 * TABLE);
    made.cmma(slot, 2 * TABLE);
    made.readKeys(slot, 2 * TABLE, new Uint8Array(8), 0, 8);
    made.walked(slot, 2 * TABLE);
    made.userAccessed(2 * TABLE, 8, true);
    expect(tables()).toEqual([]);
  });

  it('goes where all of its frames do, and is made again', () => {
    const { made, slot, tables } = states();
    for (const [first, count, left] of [
      [3 * TABLE, TABLE, [2, 4, 5]],
      [3 * TABLE + 1, 2 * TABLE - 1, [2, 3, 5]],
      [3 * TABLE, 2 * TABLE - 1, [2, 4, 5]],
      [3 * TABLE + 1, TABLE - 1, [2, 3, 4, 5]],
      [2 * TABLE, 4 * TABLE, []],
    ] as const) {
      for (let table = 2; table < 6; table++) made.link(table * TABLE);
      made.forget(first, count);
      expect(tables()).toEqual(left);
      made.setKey(slot, 5 * TABLE, 0x10);
      expect(tables()).toEqual([...new Set([...left, 5])]);
    }
  });
});

describe('keys and values', () => {
  it('go with the slot: those of its frames, and no others', () => {
    const { made, slot, keys } = states();
    const frames = [2 * TABLE + 9, 2 * TABLE + 10, 2 * TABLE + 19, 2 * TABLE + 20];
    for (const gfn of frames) {
      made.accessed(slot, gfn, true);
      made.setKey(slot, gfn, 0x30);
      made.setCmma(slot, gfn, 3);
    }
    made.forget(2 * TABLE + 10, 10);
    expect(keys(...frames)).toEqual([0x30, 0, 0, 0x30]);
    expect(frames.map((gfn) => made.cmma(slot, gfn))).toEqual([3, 0, 0, 3]);
    // Nor are the frames present: who accesses their pages leaves no mark.
    made.userAccessed(2 * TABLE, 100, true);
    expect(keys(...frames)).toEqual([0x36, 0, 0, 0x36]);
  });

  it('stay where pages of user space go, which marks no longer', () => {
    const { made, slot, keys } = states();
    const frames = [609, 610, 619, 620];
    for (const gfn of frames) {
      made.link(gfn);
      made.setKey(slot, gfn, 0x30);
    }
    made.userAccessed(610, 10, false);
    expect(keys(...frames)).toEqual([0x30, 0x30 | R, 0x30 | R, 0x30]);
    made.absent(610, 620);
    made.userAccessed(600, 100, true);
    expect(keys(...frames)).toEqual([0x30 | RC, 0x30 | R, 0x30 | R, 0x30 | RC]);
    made.accessed(slot, 610, false);
    made.userAccessed(600, 100, true);
    expect(keys(...frames)).toEqual([0x30 | RC, 0x30 | RC, 0x30 | R, 0x30 | RC]);
  });

  it('that were cleared, or whose pages went, are as if they had never been set', () => {
    const { slot, made: on } = states();
    // KEYOP sets them before they are on.
    const made = new GuestPageStates();
    const changed = () => [...made.takeAllChanged(slot)];
    made.link(600);
    made.setKey(slot, 600, 0x50);
    expect(changed()).toEqual([600]);
    made.enableKeys();
    made.setKey(slot, 600, 0x50);
    expect(changed()).toEqual([600]);
    on.setKey(slot, 601, 0x50);
    on.absent(601, 602);
    on.link(601);
    expect([...on.takeAllChanged(slot)]).toEqual([]);
  });

  it('are kept wherever in the guest the first of them is', () => {
    for (const first of [0, 0x7fff, 0x8000, 0x1_0000]) {
      const { made, slot, keys } = states();
      made.setKey(slot, first, 0x40);
      expect(keys(first, first + 0x8000)).toEqual([0x40, 0]);
      // Far away, and where the first ones are.
      for (const gfn of [first + 0x8000, first + 1]) made.setKey(slot, gfn, 0x50);
      expect(keys(first, first + 1, first + 0x8000)).toEqual([0x40, 0x50, 0x50]);
    }
  });

  it('that KEYOP set are cleared when they are turned on, and not again', () => {
    const made = new GuestPageStates();
    const slot = new EmulatedMemslot(0, 0, 0n, 8, 0, 0);
    made.setKey(slot, 1, 0x50);
    made.enableKeys();
    expect(made.key(slot, 1)).toBe(0);
    made.setKey(slot, 1, 0x60);
    made.enableKeys();
    expect(made.key(slot, 1)).toBe(0x60);
  });
});

describe('what is changed', () => {
  it('is what was stored to or has another key, of the slot that is asked for, once', () => {
    const { made, slot, changed } = states();
    const other = new EmulatedMemslot(1, 0, 0n, TABLE, 6 * TABLE, 0);
    const end = 6 * TABLE;
    for (const gfn of [2 * TABLE - 1, 2 * TABLE, 700, end - 1, end]) made.accessed(slot, gfn, true);
    made.accessed(slot, 800, false);
    made.accessed(slot, 900, false);
    made.setKey(slot, 900, 0x10);
    expect(changed()).toEqual([2 * TABLE, 700, 900, end - 1]);
    expect(changed()).toEqual([]);
    expect([...made.takeAllChanged(other)]).toEqual([end]);
    made.setKey(slot, 900, 0x10);
    expect(changed()).toEqual([]);
    // A frame that isn't present is not told of.
    made.setKey(slot, 901, 0x10);
    expect(changed()).toEqual([]);
  });

  it('is forgotten with the page, but not that of its neighbours', () => {
    const { made, slot, changed } = states();
    for (const gfn of [609, 610, 619, 620]) made.accessed(slot, gfn, true);
    made.absent(610, 620);
    for (const gfn of [610, 619]) made.accessed(slot, gfn, false);
    expect(changed()).toEqual([609, 620]);
    // The key that the page went with is the one that the next is compared with: R and C in it.
    for (const gfn of [610, 619]) made.setKey(slot, gfn, RC);
    expect(changed()).toEqual([]);
  });
});
