import type { Range, RangeTable } from '../base/range-table.ts';
import type { SplitGpa } from './gpa.ts';
import type { MemoryWindow } from './memory-window.ts';

/** Host memory as access needs it. */
export interface HostMemory {
  /** Host virtual address. */
  readonly hva: number;
  /** Descriptor of the file that it is, where it can be given to others. */
  readonly fd?: number;
  /** The window with that index, of VIEW_WINDOW bytes or what is left; undefined where it isn't mapped directly. */
  window(index: number): MemoryWindow | undefined;
  /** The same as an array that may be handed to anybody; the window's own where this is absent. */
  view?(index: number): Uint8Array | undefined;
  /** Copies out: the bytes that could be read from the start on. */
  read(offset: number, into: Uint8Array): number;
  /** Copies in, likewise. */
  write(offset: number, from: Uint8Array): number;
  /** Why a page may be one that cannot be accessed. */
  whyNot(offset: number): string;
}

/** A range of guest physical addresses with memory behind it. It begins at a multiple of 4096. */
export interface MemoryRange extends Range {
  readonly size: number;
  readonly mapping: HostMemory;
  /** Where the range begins in the mapping. */
  readonly offset: number;
  toString(): string;
}

/** The part of a {@link RangeTable} that is for looking up. */
export type RangeLookup<T extends Range> = Pick<
  RangeTable<T>,
  'entries' | 'length' | 'find' | 'indexOf' | 'startAt' | 'endAt'
>;

/**
 * Where guest memory is: all that reading and writing it needs. Who owns the map, and how it changes, is nothing to
 * access; whoever changes it calls `dropViews` of those who look here.
 */
export interface MemoryLookup<R extends MemoryRange = MemoryRange> {
  readonly ranges: RangeLookup<R>;
  /** Says what is at an address that has no memory. @throws KvmError EBADF where the map itself is closed */
  describe(at: SplitGpa): string;
  /** Where somebody else changes the map at any time: what tells so, and takes the changes over. */
  readonly remote?: RemoteChanges;
}

/** Changes that others make. */
export interface RemoteChanges {
  /** Word 0 is another after each change. */
  readonly generation: Int32Array;
  /** Takes over what has changed; whoever looks here is told by `dropViews`. */
  refresh(): void;
}

/** Where an address was found. */
export interface GpaTranslation<R extends MemoryRange = MemoryRange> {
  readonly region: R;
  /** Offset in the region's mapping. */
  readonly offset: number;
  /** Host virtual address. */
  readonly hva: number;
  /** Descriptor of the file that the memory is, for whom `offset` is the offset in it; −1 where there is none. */
  readonly fd: number;
  /** Bytes from there to the end of the region. */
  readonly available: number;
}
