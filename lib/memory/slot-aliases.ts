import type { Memslot } from './memslots.ts';
import { PageSet } from './page-set.ts';

/** Pages of a memslot that are the same host memory as pages of another one. */
export interface SharedPart<L> {
  readonly log: L;
  /** The first of them in the slot, and in the host's memory. */
  readonly page: number;
  readonly hostPage: number;
  readonly npages: number;
}

/** What memslots show of each other's host memory: in ascending order of it, and at most three parts for each slot, on average. */
export function sharedParts<L extends { readonly slot: Pick<Memslot, 'hva' | 'npages'> }>(
  logs: Iterable<L>,
  pageSize: number,
): SharedPart<L>[] {
  const ascending = Array.from(logs, (log) => {
    const start = Number(log.slot.hva) / pageSize;
    return { log, start, end: start + log.slot.npages };
  }).sort((a, b) => a.start - b.start);
  const shared = shownTwice(ascending);
  const parts: SharedPart<L>[] = [];
  let first = 0;
  for (const { log, start, end } of ascending) {
    while (first < shared.length && shared[first]!.end <= start) first++;
    for (let each = first; each < shared.length && shared[each]!.start < end; each++) {
      const hostPage = Math.max(start, shared[each]!.start);
      parts.push({ log, page: hostPage - start, hostPage, npages: Math.min(end, shared[each]!.end) - hostPage });
    }
  }
  return parts;
}

/** What more than one of the ranges has, which come in ascending order of their start. */
function shownTwice(ranges: Iterable<{ readonly start: number; readonly end: number }>) {
  const shared: { readonly start: number; end: number }[] = [];
  let reached = 0;
  for (const { start, end } of ranges) {
    const stop = Math.min(reached, end);
    const last = shared.at(-1);
    if (last !== undefined && start <= last.end) last.end = Math.max(last.end, stop);
    else if (start < stop) shared.push({ start, end: stop });
    reached = Math.max(reached, end);
  }
  return shared;
}

/**
 * Marks pages that are dirty in one slot in all that show them.
 * @param forEachDirty calls back with the pages of a slot that are dirty, those of the part at least
 */
export function spreadDirt<L>(
  parts: readonly SharedPart<L>[],
  forEachDirty: (part: SharedPart<L>, see: (page: number) => void) => void,
  mark: (log: L, page: number) => void,
): void {
  if (parts.length === 0) return;
  const dirty = new PageSet();
  for (const part of parts) {
    const { page: first, hostPage, npages } = part;
    forEachDirty(part, (page) => {
      if (page >= first && page < first + npages) dirty.add(page - first + hostPage);
    });
  }
  for (const { log, page, hostPage, npages } of parts) {
    dirty.forEachIn(hostPage, hostPage + npages, (shown) => mark(log, shown - hostPage + page));
  }
}
