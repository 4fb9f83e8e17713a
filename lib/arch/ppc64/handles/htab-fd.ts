import { checkAtLeast, checkBytes, checkInteger, checkOptions, checkSignal } from '../../../base/arguments.ts';
import { partOf } from '../../../base/part-of.ts';
import { callError } from '../../../calls/failure.ts';
import { Handle } from '../../../calls/handle.ts';
import type { KvmCalls } from '../../../calls/kvm-calls.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { entriesOf, HPT_ORDER } from '../model/hash.ts';
import { chunksRead, type HtabChunkBytes, type HtabSlot } from '../model/htab-chunk.ts';
import {
  checkHtabStream,
  type HtabChunk,
  type HtabStreamFormat,
  type HtabStreamSummary,
  htabChunks,
} from '../model/htab-stream.ts';
import { OwedSlots } from './owed-slots.ts';

/** The smallest read(2) that gives anything: KVM wants room for a header and an entry, and one byte more. */
const MIN_READ = 25;
/** A read that leaves this much room or less may have ended because of it. */
const READ_SLACK = 24;
const READ_BYTES = 256 * 1024;

const STALE =
  'the table was allocated, resized or freed since the reader was opened, and what it read is of the table before: open another';

/** How much of a pass to read. */
export interface HtabReadBudget {
  /** Bytes of stream; as many as there are unless given. At least 25 are read. */
  readonly maxBytes?: number;
  /** Milliseconds, after which no further read(2) is made. */
  readonly maxMs?: number;
  readonly signal?: AbortSignal | undefined;
}

/** What the readers of one VM share. */
export interface HtabReaders {
  readonly format: HtabStreamFormat;
  /** Another number than before: another table, or all of it was emptied. */
  generation(): number;
  /** A reader was told of changes, which no other will be told of by the kernel. */
  tellOthers(reader: HtabReader | undefined, bytes: Uint8Array): void;
  closed(reader: HtabReader): void;
}

/**
 * An open reader of a VM's hashed page table (KVM_PPC_GET_HTAB_FD), which works in passes: the first is everything,
 * each later one what changed since. From when it is opened until it is closed, KVM notes changes.
 *
 * All readers of one VM that are open see every change, though the kernel tells each only once.
 *
 * @example
 * using reader = vm.hpt.openReader();
 * for await (const { slot, entry } of reader.entries()) console.log(slot, entry);   // the whole table
 * for await (const { slot, entry } of reader.entries()) console.log(slot, entry);   // what changed meanwhile
 */
export class HtabReader extends Handle {
  override readonly noun = 'the reader';
  readonly boltedOnly: boolean;
  readonly #readers: HtabReaders;
  readonly #generation: number;
  #owed: OwedSlots | undefined;
  readonly #buffer = new Uint8Array(READ_BYTES);
  /** Read, and not given out yet; the next one last. */
  #chunks: HtabChunkBytes[] = [];
  /** What the last read began has ended: the pass is over when {@link #chunks} are given out. */
  #passEnds = false;
  /** {@link #chunks} belong to the next pass already. */
  #isNextPass = false;
  /** One behind the last slot of this pass. */
  #end = 0;
  #reads = 0;
  #passes = 0;

  constructor(calls: KvmCalls, fd: number, boltedOnly: boolean, readers: HtabReaders) {
    super(calls, fd);
    this.boltedOnly = boltedOnly;
    this.#readers = readers;
    this.#generation = readers.generation();
  }

  /** Passes that were read to their end. */
  get passes(): number {
    return this.#passes;
  }

  /** Whether the table is another one than when it was opened. */
  get isStale(): boolean {
    return this.#readers.generation() !== this.#generation;
  }

  /**
   * The next chunk of this pass; undefined when the pass is over. The call after that begins the next pass.
   * @throws KvmError ESTALE once `hpt` allocated, resized or freed the table: passes would be of two tables, and KVM doesn't
   *   tell of what went; EBADF, EFAULT
   */
  next(maxBytes = READ_BYTES): HtabChunkBytes | undefined {
    checkInteger(maxBytes, 'maxBytes', MIN_READ, Number.MAX_SAFE_INTEGER);
    if (!this.closed && this.isStale) throw this.failure('read', -ERRNO.ESTALE, { explanation: STALE });
    if (this.#chunks.length === 0 && !this.#passEnds) this.#fill(Math.min(maxBytes, READ_BYTES));
    const isOver = this.#isNextPass || this.#chunks.length === 0;
    if (!isOver) return this.#chunks.pop();
    if (this.#isNextPass) {
      this.#isNextPass = false;
    } else {
      this.#passEnds = false;
      this.#end = 0;
    }
    this.#passes++;
    return undefined;
  }

  /**
   * The chunks of this pass, up to a budget: {@link passes} says whether the end was reached, and what is left comes
   * next time. The event loop gets its turn between reads.
   * @throws the signal's reason; KvmError ESTALE, EBADF, EFAULT as {@link next}
   */
  async *chunks(budget: HtabReadBudget = {}): AsyncGenerator<HtabChunkBytes, void, undefined> {
    const { maxBytes = Number.POSITIVE_INFINITY, maxMs = Number.POSITIVE_INFINITY } = checkOptions(
      budget,
      { maxBytes: true, maxMs: true, signal: true },
      'budget',
    );
    checkAtLeast(maxBytes, 'budget.maxBytes', 1);
    checkAtLeast(maxMs, 'budget.maxMs', 0);
    const signal = checkSignal(budget.signal, 'budget.signal');
    const deadline = performance.now() + maxMs;
    let left = maxBytes;
    for (let reads = this.#reads; ; ) {
      signal?.throwIfAborted();
      const chunk = this.next(Math.floor(Math.max(MIN_READ, Math.min(left, READ_BYTES))));
      if (chunk === undefined) return;
      left -= chunk.bytes.length;
      yield chunk;
      if (this.#chunks.length > 0) continue;
      if (left <= 0 || performance.now() >= deadline) return;
      if (this.#reads !== reads) await new Promise<void>((turn) => setImmediate(turn));
      reads = this.#reads;
    }
  }

  /**
   * The entries of this pass: in the first all that are valid, in later ones those that changed, and the slots that
   * became empty (with `entry` undefined). Otherwise as {@link chunks}.
   */
  async *entries(budget: HtabReadBudget = {}): AsyncGenerator<HtabSlot, void, undefined> {
    const isFirst = this.#passes === 0;
    for await (const chunk of this.chunks(budget)) yield* isFirst ? chunk.validEntries() : chunk.entries();
  }

  [Symbol.asyncIterator](): AsyncGenerator<HtabChunkBytes, void, undefined> {
    return this.chunks();
  }

  /** @internal What another reader was told. One that has not begun will hear of it in its first pass. */
  owe(bytes: Uint8Array): void {
    if (this.#reads === 0) return;
    this.#owed ??= new OwedSlots();
    this.#owed.add(bytes, this.#readers.format);
  }

  override close(): void {
    if (this.closed) return;
    super.close();
    this.#readers.closed(this);
  }

  #fill(count: number): void {
    const owed = this.#owed?.take(count, this.#readers.format);
    if (owed !== undefined) {
      this.#chunks = chunksRead(owed, this.#readers.format).reverse();
      return;
    }
    const into = this.#buffer.subarray(0, count);
    const length = this.check('read', this.calls.read(this.fd, into));
    this.#reads++;
    const chunks = chunksRead(into.slice(0, length), this.#readers.format).reverse();
    const first = chunks.at(-1);
    this.#chunks = chunks;
    this.#passEnds = length + READ_SLACK < count;
    if (first === undefined) return;
    this.#readers.tellOthers(this, into.subarray(0, length));
    // The pass before ended just where its buffer did, and nobody said so.
    this.#isNextPass = first.index < this.#end;
    this.#end = chunks[0]!.end;
  }
}

/** What a writer needs to know of its VM. */
export interface HtabTarget {
  readonly format: HtabStreamFormat;
  /** Entries of the table; undefined when there is none. */
  entryCount(): number | undefined;
  /** Why the kernel refused a chunk. */
  explainWrite(errno: number, chunk: HtabChunk, bytes: Uint8Array): string | undefined;
  closed(writer: HtabWriter): void;
}

/** A writer to a VM's hashed page table. No vCPU may be inside KVM_RUN, and the memslots must be there before. */
export class HtabWriter extends Handle {
  override readonly noun = 'the writer';
  readonly #target: HtabTarget;

  constructor(calls: KvmCalls, fd: number, target: HtabTarget) {
    super(calls, fd);
    this.#target = target;
  }

  /**
   * Writes whole chunks: entries replace what was in their slots, and slots that are said to be empty become so. All
   * of it is checked before the kernel sees any, and the kernel gets one chunk per write(2), the only way it takes
   * them right. What was written before the kernel refused a chunk stays.
   * @returns the number of chunks
   * @throws HtabStreamError with the byte offset; KvmError EBUSY while a vCPU runs, EINVAL without a table, EIO for
   *   an entry that the host cannot map
   */
  write(bytes: Uint8Array): number {
    return this.writeIf(bytes, () => {});
  }

  /** @internal The same, after `permit` has seen what is in the chunks, and for how many slots. */
  writeIf(bytes: Uint8Array, permit: (stream: HtabStreamSummary, entryCount: number) => void): number {
    checkBytes(bytes, 'bytes');
    const { format } = this.#target;
    // Without a table the kernel refuses the first chunk.
    const entryCount = this.#target.entryCount() ?? entriesOf(HPT_ORDER.MAX);
    const bounded = { ...format, entryCount };
    const stream = checkHtabStream(bytes, bounded);
    permit(stream, entryCount);
    for (const chunk of htabChunks(bytes, bounded)) this.#writeChunk(chunk, bytes);
    return stream.chunks;
  }

  override close(): void {
    if (this.closed) return;
    super.close();
    this.#target.closed(this);
  }

  #writeChunk(chunk: HtabChunk, bytes: Uint8Array): void {
    const part = partOf(bytes, chunk.offset, chunk.end);
    const taken = this.calls.write(this.fd, part);
    if (taken < 0) {
      const explanation = this.#target.explainWrite(taken, chunk, bytes);
      throw this.failure('write', taken, { size: part.length, explanation });
    }
    if (taken !== part.length) {
      const explanation = `the kernel took ${taken} of a chunk's ${part.length} bytes`;
      throw callError('write', ERRNO.EIO, { size: part.length, explanation });
    }
  }
}
