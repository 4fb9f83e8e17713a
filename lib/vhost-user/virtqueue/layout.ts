import {
  checkBoolean,
  checkInteger,
  checkObject,
  checkOptions,
  checkSize,
  checkU32,
  isPowerOfTwo,
} from '../../base/arguments.ts';
import { hex, invalidArgType, KvmError, outOfRange } from '../../base/errors.ts';
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { MAX_QUEUE_SIZE } from '../protocol.ts';

/** Where a split virtqueue is; its integers are little-endian, as VERSION_1 has them. */
export interface QueueLayout {
  /** Descriptors: a power of two, at most 32768. */
  readonly size: number;
  /** Guest physical address of the descriptor table, a multiple of 16. */
  readonly desc: number;
  /** The same of the available ring, a multiple of 2. */
  readonly avail: number;
  /** The same of the used ring, a multiple of 4. */
  readonly used: number;
}

export interface QueueOptions {
  /** RING_EVENT_IDX was negotiated: each side says from where on it wants to be told. */
  readonly eventIdx?: boolean;
  /** RING_INDIRECT_DESC was negotiated. */
  readonly indirect?: boolean;
  /** The index at which it goes on; 0 by default. */
  readonly base?: number;
}

/** A piece of guest memory. */
export interface ChainSegment {
  readonly gpa: number;
  readonly length: number;
}

/** Checks the pieces of a chain. */
export function checkSegments(segments: readonly ChainSegment[], name: string): void {
  if (!Array.isArray(segments)) throw invalidArgType(name, 'an array of pieces of guest memory', segments);
  for (const [index, segment] of (segments as readonly ChainSegment[]).entries()) {
    const { gpa, length } = checkObject(segment, `${name}[${index}]`);
    checkSize(gpa, `${name}[${index}].gpa`);
    checkU32(length, `${name}[${index}].length`);
  }
}

export const DESC_SIZE = 16;
export const DESC_FLAG = { NEXT: 1, WRITE: 2, INDIRECT: 4 } as const;
export const AVAIL_NO_INTERRUPT = 1;
export const USED_NO_NOTIFY = 1;

export const descBytes = (size: number): number => DESC_SIZE * size;
export const availBytes = (size: number): number => 6 + 2 * size;
export const usedBytes = (size: number): number => 6 + 8 * size;

/** Lays a queue out from an address on, each part in pages of its own: what the log says then tells them apart. */
export function layOut(gpa: number, size: number): QueueLayout & { readonly end: number } {
  checkSize(gpa, 'gpa');
  checkQueueSize(size, 'size');
  const pages = (bytes: number): number => Math.ceil(bytes / 4096) * 4096;
  const avail = gpa + pages(descBytes(size));
  const used = avail + pages(availBytes(size));
  return { size, desc: gpa, avail, used, end: used + pages(usedBytes(size)) };
}

/** Checks how many descriptors a queue has. */
export function checkQueueSize(size: number, name: string): number {
  checkInteger(size, name, 1, MAX_QUEUE_SIZE);
  if (!isPowerOfTwo(size)) throw outOfRange(name, `a power of two in [1, ${MAX_QUEUE_SIZE}]`, size);
  return size;
}

/** Checks what was negotiated of a queue. */
export function checkQueueOptions(options: QueueOptions): Required<QueueOptions> {
  const {
    eventIdx = false,
    indirect = false,
    base = 0,
  } = checkOptions(options, { eventIdx: true, indirect: true, base: true });
  checkBoolean(eventIdx, 'options.eventIdx');
  checkBoolean(indirect, 'options.indirect');
  return { eventIdx, indirect, base: checkInteger(base, 'options.base', 0, 0xffff) };
}

/** @throws RangeError ERR_OUT_OF_RANGE for a size or an alignment that virtio doesn't allow */
export function checkLayout(layout: QueueLayout): void {
  const { size, desc, avail, used } = checkObject(layout, 'layout');
  checkQueueSize(size, 'size');
  for (const [what, value, unit] of [
    ['desc', desc, 16],
    ['avail', avail, 2],
    ['used', used, 4],
  ] as const) {
    if (checkSize(value, what) % unit !== 0) throw outOfRange(what, `a multiple of ${unit}`, hex(value));
  }
}

/** The other side broke the rules of virtqueues. */
export function queueError(explanation: string): KvmError {
  return new KvmError(ERRNO.EPROTO, { syscall: 'virtqueue', explanation });
}

/** A distance between two indices, which count to 65535 and begin again. */
export const indexDistance = (to: number, from: number): number => (to - from) & 0xffff;

/** Whether the step from `before` to `after` passed the index that the other side wants to be told of. */
export function isEventDue(event: number, after: number, before: number): boolean {
  return indexDistance(after, event + 1) < indexDistance(after, before);
}

/** The fields that both sides use at the same time: each access is one, and in order, where the memory is mapped directly. */
export class SharedFields {
  readonly #memory: GuestMemory;
  readonly #isDirect: boolean;

  /** @throws KvmError EFAULT when there is no memory at `probe` */
  constructor(memory: GuestMemory, probe: number) {
    this.#memory = memory;
    this.#isDirect = isDirect(memory, probe);
  }

  load(gpa: number): number {
    if (!this.#isDirect) return this.#memory.readU16(gpa, true);
    return swap(this.#memory, this.#memory.atomicLoad(gpa, 2));
  }

  store(gpa: number, value: number): void {
    if (this.#isDirect) this.#memory.atomicStore(gpa, 2, swap(this.#memory, value));
    else this.#memory.writeU16(gpa, value, true);
  }
}

function isDirect(memory: GuestMemory, gpa: number): boolean {
  try {
    memory.atomicLoad(gpa, 2);
    return true;
  } catch (error) {
    if (error instanceof KvmError && error.code === 'EACCES') return false;
    throw error;
  }
}

/** Between the byte order of atomic accesses, the guest's, and little-endian. */
function swap({ littleEndian }: GuestMemory, value: number): number {
  return littleEndian ? value : ((value & 0xff) << 8) | (value >>> 8);
}
