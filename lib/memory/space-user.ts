import type { MemoryRegion } from './region.ts';

/**
 * Someone who follows the regions of an address space, as a VM does with its memslots. Each change is made by all of
 * them, in one order, or it is taken back and made by none.
 */
export interface SpaceUser {
  /** It follows nothing any more. */
  readonly closed: boolean;
  /** @throws KvmError when it can't: then nothing of it is done */
  add(region: MemoryRegion): void;
  remove(region: MemoryRegion): void;
  move(region: MemoryRegion, from: number, to: number): void;
  setReadOnly(region: MemoryRegion, readOnly: boolean): void;
}
