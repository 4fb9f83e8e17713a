import type { U64 } from '../base/u64.ts';
import type { MemoryRegion } from './region.ts';

/**
 * Someone who follows the regions of an address space, as a VM does with its memslots. Each change is made by all of
 * them, in one order, or it is taken back and made by none.
 */
export interface SpaceUser {
  /** It follows nothing any more. */
  readonly closed: boolean;
  /** It has a say in changes, but does not keep the regions of a space that is closed. */
  readonly onlyChecks?: boolean;
  /** @throws KvmError when it can't: then nothing of it is done */
  add(region: MemoryRegion): void;
  remove(region: MemoryRegion): void;
  move(region: MemoryRegion, from: number, to: number): void;
  setReadOnly(region: MemoryRegion, readOnly: boolean): void;
  /** Handlers are about to go or to move: what guests stored for them before is carried out. */
  settle?(): void;
  /** What was changed is so for good: nothing of it will be taken back. */
  concluded?(): void;
  /** It is bound to the space no more, or closed. */
  release?(): void;
}

/** A change of an address space that all its VMs have made. */
export interface SpaceChange {
  /** How many changes there were with this one; several that were made as one have the same. */
  readonly generation: number;
  readonly kind: 'add' | 'remove' | 'move' | 'readOnly';
  /** The region as it is now. */
  readonly region: MemoryRegion;
  /** Where a region was that has moved. */
  readonly from?: U64;
}

/** Someone who is told of changes, and has no say in them. */
export interface SpaceFollower {
  /** A region is about to go or to move, unless a VM refuses. */
  changing?(region: MemoryRegion): void;
  changed(change: SpaceChange): void;
}
