import { checkBytes, checkInstance, checkInteger, checkSize } from '../../base/arguments.ts';
import { hex } from '../../base/errors.ts';
import { partOf } from '../../base/part-of.ts';
import { counted } from '../../base/text.ts';
import { GuestMemory } from '../../memory/guest-memory.ts';
import {
  type ChainSegment,
  checkSegments,
  DESC_FLAG,
  DESC_SIZE,
  descBytes,
  type QueueLayout,
  queueError,
} from './layout.ts';

/** The most descriptors of a chain with an indirect table: what Linux and QEMU take. */
export const MAX_CHAIN = 1024;
const MAX_BYTES = 2 ** 32;

/** A buffer that a driver has made available: what the device may read, and then what it may write. */
export class Chain {
  readonly memory: GuestMemory;
  /** Index of its first descriptor. */
  readonly head: number;
  /** Descriptors of the queue's own table that it takes. */
  readonly direct: number;
  readonly readable: readonly ChainSegment[];
  readonly writable: readonly ChainSegment[];
  readonly readableLength: number;
  readonly writableLength: number;

  constructor(
    memory: GuestMemory,
    head: number,
    direct: number,
    readable: readonly ChainSegment[],
    writable: readonly ChainSegment[],
  ) {
    checkSegments(readable, 'readable');
    checkSegments(writable, 'writable');
    this.memory = checkInstance(memory, 'memory', GuestMemory);
    this.head = checkInteger(head, 'head', 0, 0xffff);
    this.direct = checkInteger(direct, 'direct', 0, 0xffff);
    this.readable = readable;
    this.writable = writable;
    this.readableLength = total(readable);
    this.writableLength = total(writable);
  }

  /** Copies out of the readable part, from an offset on: how many bytes there were. @throws KvmError EFAULT */
  read(offset: number, into: Uint8Array): number {
    checkSize(offset, 'offset');
    checkBytes(into, 'into');
    let done = 0;
    for (const { gpa, length } of pieces(this.readable, offset, into.length)) {
      this.memory.readExact(gpa, partOf(into, done, done + length));
      done += length;
    }
    return done;
  }

  /** Copies into the writable part, from an offset on: how many bytes there was room for. @throws KvmError EFAULT */
  write(offset: number, from: Uint8Array): number {
    checkSize(offset, 'offset');
    checkBytes(from, 'from');
    let done = 0;
    for (const { gpa, length } of pieces(this.writable, offset, from.length)) {
      this.memory.writeExact(gpa, partOf(from, done, done + length));
      done += length;
    }
    return done;
  }

  /** The pieces of guest memory of a part of what is writable. */
  writablePieces(offset: number, length: number): ChainSegment[] {
    checkSize(offset, 'offset');
    checkSize(length, 'length');
    return [...pieces(this.writable, offset, length)];
  }
}

function* pieces(segments: readonly ChainSegment[], offset: number, length: number): Generator<ChainSegment> {
  let skip = offset;
  let left = length;
  for (const segment of segments) {
    if (left === 0) return;
    if (skip >= segment.length) {
      skip -= segment.length;
      continue;
    }
    const count = Math.min(left, segment.length - skip);
    yield { gpa: segment.gpa + skip, length: count };
    skip = 0;
    left -= count;
  }
}

const total = (segments: readonly ChainSegment[]): number => segments.reduce((sum, { length }) => sum + length, 0);

/**
 * Follows the descriptors from a head on. Whatever the driver wrote there, this ends.
 * @throws KvmError EPROTO for what virtio forbids, EFAULT for an indirect table outside memory
 */
export function readChain(memory: GuestMemory, { desc, size }: QueueLayout, head: number, indirect: boolean): Chain {
  if (head >= size) throw queueError(`the head is ${head}, and the queue has ${counted(size, 'descriptor')}`);
  const readable: ChainSegment[] = [];
  const writable: ChainSegment[] = [];
  let [table, entries, index, bytes, count, direct] = [desc, size, head, 0, 0, 0];
  // Its table may be any memory, the queue's own table too.
  let isIndirect = false;
  for (;;) {
    const at = table + DESC_SIZE * index;
    const gpa = exactAddress(memory.readU64(at, true), index);
    const length = memory.readU32(at + 8, true);
    const flags = memory.readU16(at + 12, true);
    if ((flags & DESC_FLAG.INDIRECT) !== 0) {
      if (isIndirect) throw queueError(`descriptor ${index} of an indirect table is indirect itself`);
      entries = indirectEntries(index, length, flags, indirect);
      [table, index, isIndirect] = [gpa, 0, true];
      direct++;
      continue;
    }
    if (++count > (isIndirect ? Math.max(size, MAX_CHAIN) : size)) {
      throw queueError(`the chain from ${head} has more descriptors than the queue: it is a loop`);
    }
    if (!isIndirect) direct++;
    bytes += length;
    checkSegment(index, length, bytes);
    const isWritable = (flags & DESC_FLAG.WRITE) !== 0;
    if (!isWritable && writable.length > 0) {
      throw queueError(`descriptor ${index} is for reading, and comes behind one for writing`);
    }
    (isWritable ? writable : readable).push({ gpa, length });
    if ((flags & DESC_FLAG.NEXT) === 0) return new Chain(memory, head, direct, readable, writable);
    index = memory.readU16(at + 14, true);
    if (index >= entries) throw queueError(`the next descriptor is ${index}, of ${entries}`);
  }
}

function exactAddress(gpa: bigint, index: number): number {
  if (gpa > Number.MAX_SAFE_INTEGER) throw queueError(`descriptor ${index} has address ${hex(gpa)}, 2^53 or more`);
  return Number(gpa);
}

function indirectEntries(index: number, length: number, flags: number, allowed: boolean): number {
  if (!allowed) throw queueError(`descriptor ${index} is indirect, which was not negotiated`);
  if ((flags & DESC_FLAG.NEXT) !== 0) throw queueError(`descriptor ${index} is indirect and has a next`);
  if (length === 0 || length % DESC_SIZE !== 0 || length > descBytes(MAX_CHAIN)) {
    throw queueError(
      `descriptor ${index} is an indirect table of ${counted(length, 'byte')}, which is not 1 to ${MAX_CHAIN} descriptors`,
    );
  }
  return length / DESC_SIZE;
}

function checkSegment(index: number, length: number, bytes: number): void {
  if (length === 0) throw queueError(`descriptor ${index} has no bytes`);
  if (bytes > MAX_BYTES) throw queueError(`with descriptor ${index} the chain has ${bytes} bytes, more than 2^32`);
}
