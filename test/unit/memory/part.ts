import type { HostMemory } from '../../../lib/index.ts';

/** A range of addresses that shows a mapping from its start on. */
export type Part = { start: number; end: number; size: number; offset: number; mapping: HostMemory };

export const part = (start: number, size: number, mapping: HostMemory): Part => ({
  start,
  end: start + size,
  size,
  offset: 0,
  mapping,
});
