import { forEachBit } from './bitmap-loops.ts';
import type { DirtyBitmap } from './dirty-bitmap.ts';
import type { Memslot } from './memslots.ts';

/** A memslot, and which of its pages are dirty. */
interface LoggedSlot {
  readonly slot: Pick<Memslot, 'hva' | 'npages'>;
  readonly bitmap: Pick<DirtyBitmap, 'words' | 'set'>;
}

/** So many pages of one slot are the same host memory as those of another. */
export interface SlotAlias<L extends LoggedSlot = LoggedSlot> {
  readonly from: L;
  readonly fromPage: number;
  readonly to: L;
  readonly toPage: number;
  readonly npages: number;
}

/** What slots show of each other's host memory, in both directions. */
export function slotAliases<L extends LoggedSlot>(logs: readonly L[], pageSize: number): SlotAlias<L>[] {
  const ascending = logs
    .map((log) => ({ log, start: Number(log.slot.hva), end: Number(log.slot.hva) + log.slot.npages * pageSize }))
    .sort((a, b) => a.start - b.start);
  const aliases: SlotAlias<L>[] = [];
  let open: typeof ascending = [];
  for (const each of ascending) {
    if (open.length > 0) open = open.filter(({ end }) => end > each.start);
    for (const { log, start, end } of open) {
      const npages = (Math.min(end, each.end) - each.start) / pageSize;
      const page = (each.start - start) / pageSize;
      aliases.push({ from: log, fromPage: page, to: each.log, toPage: 0, npages });
      aliases.push({ from: each.log, fromPage: 0, to: log, toPage: page, npages });
    }
    open.push(each);
  }
  return aliases;
}

/** Marks what is dirty by one slot in those that show the same. */
export function spreadDirt(aliases: readonly SlotAlias[]): void {
  for (const { from, fromPage, to, toPage, npages } of aliases) {
    forEachBit(from.bitmap.words, 0, (page) => {
      if (page >= fromPage && page < fromPage + npages) to.bitmap.set(page - fromPage + toPage);
    });
  }
}
