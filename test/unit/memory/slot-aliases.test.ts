import { describe, expect, it } from 'vitest';
import { type SlotAlias, slotAliases, spreadDirt } from '../../../lib/memory/slot-aliases.ts';

const PAGE = 4096;
const BASE = 0x7000_0000_0000;

/** A slot over pages of the host's, and its dirty pages. */
function slot(first: number, npages: number, dirty: readonly number[] = []) {
  const words = new Uint32Array(Math.ceil(npages / 32));
  const bitmap = {
    words,
    set(page: number): void {
      expect(page).toBeLessThan(npages);
      words[page >>> 5]! |= 1 << (page & 31);
    },
  };
  for (const page of dirty) bitmap.set(page);
  const pages = (): number[] =>
    Array.from({ length: npages }, (_, i) => i).filter((i) => ((words[i >>> 5]! >>> (i & 31)) & 1) === 1);
  return { slot: { hva: BASE + first * PAGE, npages }, bitmap, pages };
}

describe('slots that show the same memory', () => {
  it('are found whatever part of each it is, and neighbours are none', () => {
    const slots = [slot(100, 10), slot(0, 50), slot(50, 50), slot(40, 20)];
    const [ten, low, high, across] = slots;
    const text = ({ from, fromPage, to, toPage, npages }: SlotAlias): string =>
      `${slots.indexOf(from as never)}:${fromPage} ${slots.indexOf(to as never)}:${toPage} ${npages}`;
    expect(ten?.pages()).toEqual([]);
    expect(slotAliases(slots, PAGE).map(text).sort()).toEqual([
      '1:40 3:0 10',
      '2:0 3:10 10',
      '3:0 1:40 10',
      '3:10 2:0 10',
    ]);
    expect(slotAliases([low!, high!], PAGE)).toEqual([]);
    expect(slotAliases([across!, { ...across! }], PAGE)).toHaveLength(2);
  });

  it('get what is dirty in one, all of them, and nothing beside it', () => {
    const [low, high, across, same] = [
      slot(0, 50, [3, 39, 40]),
      slot(50, 50, [9, 10]),
      slot(40, 20, [5]),
      slot(40, 20),
    ];
    spreadDirt(slotAliases([low, high, across, same], PAGE));
    expect(low.pages()).toEqual([3, 39, 40, 45]);
    expect(across.pages()).toEqual([0, 5, 19]);
    expect(high.pages()).toEqual([9, 10]);
    expect(same.pages()).toEqual([0, 5, 19]);
  });
});
