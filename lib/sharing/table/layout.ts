import { endianness } from 'node:os';

/**
 * The table of an address space in its memfd, version 1: what native/include/kvm_bridge_space.h declares for C. Everything is in
 * the byte order of the machine. A test compares the two.
 */
export const MAGIC = 'KVMBSPC1';
export const VERSION = 1;

/** Offsets in the header. What stands before `GENERATION` never changes. */
export const HEADER = {
  MAGIC: 0,
  VERSION: 8,
  PAGE_SIZE: 12,
  FLAGS: 16,
  OWNER_PID: 20,
  TABLE_BYTES: 24,
  MAX_REGIONS: 32,
  MAX_CONSUMERS: 36,
  REGIONS_OFFSET: 40,
  CONSUMERS_OFFSET: 48,
  LOG_OFFSET: 56,
  LOG_BYTES: 64,
  GENERATION: 128,
  REGION_COUNT: 136,
  CLOSED: 144,
  BYTES: 4096,
} as const;

/** Bits of the header's flags. */
export const LITTLE_ENDIAN_GUEST = 1;

/** Offsets in a region. */
export const REGION = {
  GPA: 0,
  SIZE: 8,
  OFFSET: 16,
  MEMORY: 24,
  MEMORY_BYTES: 32,
  FLAGS: 40,
  OWNER_FD: 44,
  NAME: 48,
  BYTES: 96,
} as const;

/** Bits of a region's flags. */
export const REGION_FLAG = { READ_ONLY: 1, DEVICE: 2 } as const;

/** Offsets in a consumer's record. */
export const CONSUMER = { ACKNOWLEDGED: 0, WRITERS: 8, PID: 12, NAME: 16, BYTES: 64 } as const;

/** What a consumer has acknowledged that has left: the owner hears of it, and the place may be taken. */
export const LEFT = 0xffff_ffff_ffff_ffffn;

/** Bytes of a page of the dirty log, on every machine. */
export const LOG_PAGE = 4096;

/** The byte whose lock says that the owner lives. */
export const OWNER_LOCK = { START: 0, LENGTH: 1 } as const;

export const HOST_IS_LITTLE_ENDIAN = endianness() === 'LE';

/** Where the lower half of a 64-bit number is. */
export const LOW_WORD = HOST_IS_LITTLE_ENDIAN ? 0 : 4;

/** Where things are in a table of some size. */
export interface TableShape {
  readonly maxRegions: number;
  readonly maxConsumers: number;
  readonly regionsOffset: number;
  readonly consumersOffset: number;
  readonly logOffset: number;
  readonly logBytes: number;
  readonly tableBytes: number;
}

export function shapeOf(maxRegions: number, maxConsumers: number, logBytes: number): TableShape {
  const consumersOffset = HEADER.BYTES;
  const regionsOffset = consumersOffset + maxConsumers * CONSUMER.BYTES;
  const logOffset = roundUp(regionsOffset + 2 * maxRegions * REGION.BYTES);
  const whole = roundUp(logBytes);
  const tableBytes = logOffset + whole;
  return { maxRegions, maxConsumers, consumersOffset, regionsOffset, logOffset, logBytes: whole, tableBytes };
}

/** 64 KiB: whole pages on every machine. */
function roundUp(bytes: number): number {
  return Math.ceil(bytes / 0x1_0000) * 0x1_0000;
}

/** Puts text into a field, cut so that a NUL follows. */
export function putText(into: Uint8Array, text: string): void {
  into.fill(0);
  new TextEncoder().encodeInto(text, into.subarray(0, into.length - 1));
}

export function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return Buffer.from(bytes.subarray(0, end < 0 ? bytes.length : end)).toString();
}
