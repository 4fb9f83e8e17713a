/**
 * The stream of KVM's HTAB file descriptor (KVM_PPC_GET_HTAB_FD), without a file descriptor: chunks of an 8-byte
 * header {u32 index, u16 n_valid, u16 n_invalid} in the host's byte order, then n_valid entries of 16 bytes, two
 * big-endian doublewords each (since Linux 3.17). The n_invalid slots behind them are empty and carry no bytes.
 */

import {
  checkBoolean,
  checkBytes,
  checkInstance,
  checkInteger,
  checkMethods,
  checkOneOf,
  checkOptions,
  type NamesOf,
} from '../../../base/arguments.ts';
import { outOfRange } from '../../../base/errors.ts';
import { counted } from '../../../base/text.ts';
import { entriesOf } from './hash.ts';
import { HPTE_SIZE, HPTE_WORDS, V_HI, V_LO } from './hpte.ts';
import { checkSameOrder, Htab } from './htab.ts';
import {
  HTAB_HEADER_SIZE,
  HTAB_MAX_TURNS,
  HTAB_RUN_MAX,
  type HtabLoops,
  htabLoopsFor,
  LARGE_SIZES,
} from './htab-loops.ts';
import { baseShiftOf } from './page-sizes.ts';
import { bigEndian } from './words.ts';

export { HTAB_HEADER_SIZE, HTAB_MAX_TURNS, HTAB_RUN_MAX, type HtabLoops };

/** What is wrong with a stream. */
export type HtabStreamProblem =
  | 'truncated-header'
  | 'truncated-entries'
  | 'index'
  | 'not-valid'
  | 'segment-size'
  | 'page-size'
  | 'repeats';

/** A stream that breaks its own format, or doesn't fit its table. */
export class HtabStreamError extends RangeError {
  readonly code = 'ERR_HTAB_STREAM';
  /** Byte offset in the stream of what is wrong: a header, or an entry. */
  readonly offset: number;
  readonly problem: HtabStreamProblem;
  readonly #what: string;

  constructor(problem: HtabStreamProblem, offset: number, message: string) {
    super(`${message} (at byte ${offset} of the HTAB stream)`);
    this.name = 'HtabStreamError';
    this.problem = problem;
    this.offset = offset;
    this.#what = message;
  }

  /** The same of a stream of which this part begins at byte `start`. */
  from(start: number): HtabStreamError {
    return new HtabStreamError(this.problem, this.offset + start, this.#what);
  }

  /** The same, with what else is known of it. */
  with(more: string): HtabStreamError {
    return new HtabStreamError(this.problem, this.offset, `${this.#what}; ${more}`);
  }
}

/** One chunk of a stream. Slots `index` to `index + nValid - 1` have entries, the `nInvalid` behind them are empty. */
export interface HtabChunk {
  readonly index: number;
  readonly nValid: number;
  readonly nInvalid: number;
  /** Byte offset of the header. */
  readonly offset: number;
  /** Byte offset of the first entry. */
  readonly entries: number;
  /** Byte offset behind the last entry: where the next header is. */
  readonly end: number;
}

/** How to read a stream. */
export interface HtabStreamFormat {
  /** Byte order of the headers: the host's whose kernel made the stream. `little` unless given. */
  readonly headers?: 'little' | 'big';
  /** Number of entries of the table; a chunk that reaches beyond is an error. Unlimited (2^42) unless given. */
  readonly entryCount?: number;
  /** The loops over whole streams and tables: those in TypeScript unless given. The addon's are `loadNative().htab`. */
  readonly loops?: HtabLoops | undefined;
}

const FORMAT: NamesOf<HtabStreamFormat> = { headers: true, entryCount: true, loops: true };

const MAX_ENTRIES = entriesOf(46);

const HEADERS = ['little', 'big'] as const;

/** Checks how a stream is to be read or written, but for the number of entries. */
function checkFormat<T extends HtabStreamFormat>(format: T, names: NamesOf<T>, name = 'format'): T {
  const { headers, loops } = checkOptions(format, names, name);
  if (headers !== undefined) checkOneOf(headers, `${name}.headers`, HEADERS);
  if (loops !== undefined) checkMethods(loops, `${name}.loops`, ['apply', 'encode']);
  return format;
}

/** Goes through the chunks of a stream, checking each; one object for all of them, since there can be millions. */
class Cursor implements HtabChunk {
  index = 0;
  nValid = 0;
  nInvalid = 0;
  offset = 0;
  entries = 0;
  end: number;
  readonly view: DataView;
  readonly #littleEndian: boolean;
  readonly #entryCount: number;

  constructor(bytes: Uint8Array, format: HtabStreamFormat, offset = 0) {
    checkBytes(bytes, 'bytes');
    const { headers, entryCount = MAX_ENTRIES } = checkFormat(format, FORMAT);
    checkInteger(offset, 'offset', 0, bytes.byteLength);
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#littleEndian = headers !== 'big';
    this.#entryCount = checkInteger(entryCount, 'format.entryCount', 0, MAX_ENTRIES);
    this.end = offset;
  }

  /** Moves to the chunk behind this one; false at the end of the stream. */
  next(): boolean {
    const { view, end: offset } = this;
    if (offset === view.byteLength) return false;
    if (offset + HTAB_HEADER_SIZE > view.byteLength) {
      throw new HtabStreamError(
        'truncated-header',
        offset,
        `a chunk header has ${HTAB_HEADER_SIZE} bytes, ${view.byteLength - offset} are left`,
      );
    }
    const isLittle = this.#littleEndian;
    const index = view.getUint32(offset, isLittle);
    const nValid = view.getUint16(offset + 4, isLittle);
    const nInvalid = view.getUint16(offset + 6, isLittle);
    // KVM wants the slot itself in the table also where the chunk tells of none.
    if (index >= this.#entryCount || index + nValid + nInvalid > this.#entryCount) {
      throw new HtabStreamError(
        'index',
        offset,
        `slot ${index} and ${nValid} valid and ${nInvalid} empty entries from there, in a table of ${this.#entryCount}`,
      );
    }
    const entries = offset + HTAB_HEADER_SIZE;
    const end = entries + nValid * HPTE_SIZE;
    if (end > view.byteLength) {
      throw new HtabStreamError(
        'truncated-entries',
        offset,
        `${counted(nValid, 'valid entry has', 'valid entries have')} ${nValid * HPTE_SIZE} bytes, ${view.byteLength - entries} are left`,
      );
    }
    this.index = index;
    this.nValid = nValid;
    this.nInvalid = nInvalid;
    this.offset = offset;
    this.entries = entries;
    this.end = end;
    return true;
  }

  /** Checks what KVM demands of each valid entry: V has VALID, B isn't reserved, the page size exists. */
  checkEntries(): void {
    const { view, index, entries, end } = this;
    for (let at = entries; at < end; at += HPTE_SIZE) {
      const vHi = view.getUint32(at);
      const vLo = view.getUint32(at + 4);
      const isRight = (vLo & V_LO.VALID) !== 0 && (vHi & V_HI.B_RESERVED) === 0;
      if (isRight && baseShiftOf(vLo, view.getUint32(at + 12)) !== 0) continue;
      const slot = index + (at - entries) / HPTE_SIZE;
      if ((vLo & V_LO.VALID) === 0) throw new HtabStreamError('not-valid', at, `the entry of slot ${slot} lacks VALID`);
      if (!isRight) {
        throw new HtabStreamError('segment-size', at, `the entry of slot ${slot} has a reserved segment size`);
      }
      throw new HtabStreamError('page-size', at, `the entry of slot ${slot} has a page size that does not exist`);
    }
  }

  /** A copy that stays as it is. */
  chunk(): HtabChunk {
    const { index, nValid, nInvalid, offset, entries, end } = this;
    return { index, nValid, nInvalid, offset, entries, end };
  }
}

/**
 * Reads the chunk at a byte offset: its header, and that its slots and its bytes are there. Entries aren't looked at.
 * @throws HtabStreamError `truncated-header` (also where the stream ends), `index`, `truncated-entries`.
 */
export function readHtabChunk(bytes: Uint8Array, offset: number, format: HtabStreamFormat = {}): HtabChunk {
  const cursor = new Cursor(bytes, format, offset);
  if (!cursor.next()) throw new HtabStreamError('truncated-header', offset, 'the stream ends');
  return cursor.chunk();
}

/**
 * The chunks of a stream, in order, each checked whole (header, slots, bytes, entries) before it is given out. One
 * chunk is also the most that a real kernel takes correctly in one write(2).
 * @throws HtabStreamError
 */
export function htabChunks(bytes: Uint8Array, format: HtabStreamFormat = {}): Generator<HtabChunk, void, undefined> {
  return chunksOf(new Cursor(bytes, format));
}

function* chunksOf(cursor: Cursor): Generator<HtabChunk, void, undefined> {
  while (cursor.next()) {
    cursor.checkEntries();
    yield cursor.chunk();
  }
}

/** What a stream holds altogether. */
export interface HtabStreamSummary {
  readonly chunks: number;
  readonly valid: number;
  readonly invalid: number;
  /** One more than the highest slot that is mentioned. */
  readonly extent: number;
  /** Whether the first chunk begins at slot 0, and each other one where the one before it ends: as in a first pass. */
  readonly gapless: boolean;
}

/** Checks whole chunks of a stream and counts what is in them, some after the other. */
export class HtabStreamCheck implements HtabStreamSummary {
  chunks = 0;
  valid = 0;
  invalid = 0;
  extent = 0;
  gapless = true;
  #next = 0;

  /** @throws HtabStreamError; what is before that counts */
  add(bytes: Uint8Array, format: HtabStreamFormat): void {
    const cursor = new Cursor(bytes, format);
    while (cursor.next()) {
      cursor.checkEntries();
      this.chunks++;
      this.valid += cursor.nValid;
      this.invalid += cursor.nInvalid;
      this.gapless &&= cursor.index === this.#next;
      this.#next = cursor.index + cursor.nValid + cursor.nInvalid;
      this.extent = Math.max(this.extent, this.#next);
    }
  }
}

/**
 * Checks a whole stream and counts what is in it.
 * @throws HtabStreamError; with `entryCount` also `repeats`, for one that tells of empty slots more than {@link HTAB_MAX_TURNS}
 *   times as often as there are slots: eight bytes can clear a MiB, and no stream that a kernel makes comes near
 */
export function checkHtabStream(bytes: Uint8Array, format: HtabStreamFormat = {}): HtabStreamSummary {
  const sum = new HtabStreamCheck();
  sum.add(bytes, format);
  const { chunks, valid, invalid, extent, gapless } = sum;
  const { entryCount = MAX_ENTRIES } = format;
  if (invalid > HTAB_MAX_TURNS * entryCount) {
    const what = `${invalid} slots are told to be empty, more than ${HTAB_MAX_TURNS} times the ${entryCount} of the table`;
    throw new HtabStreamError('repeats', 0, what);
  }
  return { chunks, valid, invalid, extent, gapless };
}

/**
 * How many bytes at the beginning are whole chunks. What follows is the beginning of a chunk whose rest is still to
 * come, which is how a stream that arrives in pieces is cut.
 * @throws HtabStreamError `index`: that chunk will never be right.
 */
export function wholeHtabChunks(bytes: Uint8Array, format: HtabStreamFormat = {}): number {
  const cursor = new Cursor(bytes, format);
  try {
    while (cursor.next());
  } catch (error) {
    const cut = error instanceof HtabStreamError && error.problem.startsWith('truncated');
    if (!cut) throw error;
  }
  return cursor.end;
}

/**
 * Applies a stream (a first pass, or a later one with changes only) to a table. The whole stream is checked first:
 * when it throws, the table is as it was. Entries are stored without KVM's own bits of V (HVLOCK, which a real
 * kernel sets in everything it reports, and ABSENT).
 * @throws HtabStreamError
 */
export function applyHtabStream(
  table: Htab,
  bytes: Uint8Array,
  format: Omit<HtabStreamFormat, 'entryCount'> = {},
): void {
  checkInstance(table, 'table', Htab);
  checkBytes(bytes, 'bytes');
  const isLittle = Number(checkFormat(format, FORMAT).headers !== 'big');
  if (htabLoopsFor(bytes.byteLength, format.loops).apply(table.bytes, bytes, isLittle, LARGE_SIZES) === 1) return;
  checkHtabStream(bytes, { ...format, entryCount: table.entryCount });
  throw new Error('The stream overlaps the table, or was changed while it was applied');
}

/** Of larger tables (more than 256 MiB) a decoder must be told the order: eight bytes can speak of 64 GiB. */
export const FOUND_ORDER_MAX = 28;

const DECODE_OPTIONS: NamesOf<HtabStreamFormat & { readonly order?: number }> = { ...FORMAT, order: true };

/**
 * The table that a first-pass stream describes.
 * @param options `order` is the table's; the smallest that holds every slot mentioned, up to {@link FOUND_ORDER_MAX}, unless given.
 * @throws HtabStreamError
 */
export function decodeHtabStream(
  bytes: Uint8Array,
  options: Omit<HtabStreamFormat, 'entryCount'> & { readonly order?: number } = {},
): Htab {
  const { order, ...format } = checkFormat(options, DECODE_OPTIONS, 'options');
  const table = new Htab(order ?? findOrder(bytes, format));
  applyHtabStream(table, bytes, format);
  return table;
}

function findOrder(bytes: Uint8Array, format: HtabStreamFormat): number {
  try {
    return orderFor(checkHtabStream(bytes, { ...format, entryCount: entriesOf(FOUND_ORDER_MAX) }).extent);
  } catch (error) {
    const isFar = error instanceof HtabStreamError && error.problem === 'index';
    throw isFar ? error.with(`a table of an order above ${FOUND_ORDER_MAX} must be told of`) : error;
  }
}

/** The smallest order (18 at least) of a table with so many entries. */
export function orderFor(entries: number): number {
  checkInteger(entries, 'entries', 0, MAX_ENTRIES);
  return Math.max(18, Math.ceil(Math.log2(Math.max(entries, 1))) + 4);
}

/** How to write a stream. */
export interface HtabEncodeOptions extends Omit<HtabStreamFormat, 'entryCount'> {
  /** First slot; 0 unless given. */
  readonly from?: number;
  /** One behind the last slot; the table's end unless given. */
  readonly to?: number;
  /** Report valid entries that aren't bolted as empty, as KVM does with BOLTED_ONLY. */
  readonly boltedOnly?: boolean;
  /**
   * Bytes to write into, not the table's; new ones unless given, which for a large table takes longer than the rest. A
   * stream of n slots never has more than 16 n bytes and 8 for each {@link HTAB_RUN_MAX} slots or part of them.
   */
  readonly into?: Uint8Array;
}

/** The whole format may be given, of which the number of entries is the table's. */
const ENCODE_OPTIONS: NamesOf<HtabEncodeOptions & HtabStreamFormat> = {
  ...FORMAT,
  from: true,
  to: true,
  boltedOnly: true,
  into: true,
};

/**
 * The table as one first pass of the HTAB fd gives it to a reader with a large enough buffer: runs of valid and of
 * empty entries in turn, cut at {@link HTAB_RUN_MAX}.
 * @returns the stream: with `into` that part of it.
 * @throws RangeError when `from` and `to` aren't slots of the table, or `into` is too short.
 */
export function encodeHtabStream(table: Htab, options: HtabEncodeOptions = {}): Uint8Array {
  checkInstance(table, 'table', Htab);
  const {
    from = 0,
    to = table.entryCount,
    boltedOnly = false,
    into,
  } = checkFormat<HtabEncodeOptions>(options, ENCODE_OPTIONS, 'options');
  checkBoolean(boltedOnly, 'options.boltedOnly');
  if (into !== undefined) checkBytes(into, 'options.into');
  checkInteger(to, 'options.to', 0, table.entryCount);
  checkInteger(from, 'options.from', 0, to);
  const isLittle = Number(options.headers !== 'big');
  const mask = boltedOnly ? V_LO.VALID | V_LO.BOLTED : V_LO.VALID;
  const loops = htabLoopsFor((to - from) * HPTE_SIZE, options.loops);
  const encode = (out: Uint8Array): number => loops.encode(table.bytes, from, to, mask, isLittle, out);
  let out = into ?? uninitialized(likelySize(table.words, bigEndian(mask), from, to));
  let length = encode(out);
  if (length < 0 && into === undefined) {
    out = uninitialized(sizeBound(table.words, bigEndian(mask), from, to));
    length = encode(out);
  }
  if (length < 0) throw outOfRange('options.into.byteLength', 'enough for the stream', out.byteLength);
  // Nobody shall see there what was in memory before.
  if (into === undefined) out.fill(0, length);
  return out.subarray(0, length);
}

/** Bytes that are all going to be written. A whole ArrayBuffer, for a pool's would keep others' bytes alive. */
function uninitialized(size: number): Uint8Array {
  return new Uint8Array(Buffer.allocUnsafeSlow(size).buffer);
}

/**
 * The stream of a later pass that turns `before` into `after`: only the slots that differ. Empty slots are equal
 * whatever is left in their bytes.
 * @throws RangeError for tables of different sizes.
 */
export function encodeHtabChanges(
  before: Htab,
  after: Htab,
  options: Pick<HtabStreamFormat, 'headers'> = {},
): Uint8Array {
  checkSameOrder(before, after);
  checkFormat(options, FORMAT, 'options');
  const end = after.entryCount;
  const changes = (emit: (index: number, nValid: number, nInvalid: number) => void): void => {
    let slot = 0;
    for (;;) {
      while (slot < end && isSameSlot(before, after, slot)) slot++;
      if (slot === end) return;
      const index = slot;
      const validEnd = Math.min(end, index + HTAB_RUN_MAX);
      while (slot < validEnd && after.isValid(slot) && !isSameSlot(before, after, slot)) slot++;
      const nValid = slot - index;
      const invalidEnd = Math.min(end, slot + HTAB_RUN_MAX);
      while (slot < invalidEnd && !after.isValid(slot) && !isSameSlot(before, after, slot)) slot++;
      emit(index, nValid, slot - index - nValid);
    }
  };
  let size = 0;
  changes((_index, nValid) => {
    size += HTAB_HEADER_SIZE + nValid * HPTE_SIZE;
  });
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  const isLittle = options.headers !== 'big';
  let at = 0;
  changes((index, nValid, nInvalid) => {
    view.setUint32(at, index, isLittle);
    view.setUint16(at + 4, nValid, isLittle);
    view.setUint16(at + 6, nInvalid, isLittle);
    at += HTAB_HEADER_SIZE;
    for (let slot = index; slot < index + nValid; slot++, at += HPTE_SIZE) {
      view.setUint32(at, after.vHi(slot));
      view.setUint32(at + 4, after.vLo(slot));
      view.setUint32(at + 8, after.rHi(slot));
      view.setUint32(at + 12, after.rLo(slot));
    }
  });
  return bytes;
}

/** Whether a slot says the same in both tables. */
export function sameSlot(a: Htab, b: Htab, slot: number): boolean {
  checkInstance(a, 'a', Htab);
  checkInstance(b, 'b', Htab);
  checkInteger(slot, 'slot', 0, Math.min(a.entryCount, b.entryCount) - 1);
  return isSameSlot(a, b, slot);
}

/** The same, of arguments that are known to be right. */
export function isSameSlot(a: Htab, b: Htab, slot: number): boolean {
  if (!a.isValid(slot)) return !b.isValid(slot);
  const i = slot * HPTE_WORDS;
  const [x, y] = [a.words, b.words];
  return x[i] === y[i] && x[i + 1] === y[i + 1] && x[i + 2] === y[i + 2] && x[i + 3] === y[i + 3];
}

/** Slots that are looked at together, and how often. */
const SAMPLE = 64;
const SAMPLES = 512;
/** Samples lie so far apart, of the whole: the golden ratio, so that no pattern of the table has the same distance. */
const SAMPLE_DISTANCE = 0.618_033_988_749_894_9;
/** Standard deviations of the samples' mean: once in 30,000 times a stream is longer. */
const DEVIATIONS = 4;

/**
 * Bytes that a first pass probably has at most, of a large table: {@link sizeBound} looks at all of it, which takes nearly
 * as long as the stream.
 */
function likelySize(words: Int32Array, mask: number, from: number, to: number): number {
  const slots = to - from;
  if (slots < 4 * SAMPLES * SAMPLE) return sizeBound(words, mask, from, to);
  const emptySample = boundOf(0, 1, SAMPLE);
  let sum = 0;
  let squares = 0;
  for (let i = 0; i < SAMPLES; i++) {
    const start = from + Math.floor(((i * SAMPLE_DISTANCE) % 1) * (slots - SAMPLE));
    const size = sizeBound(words, mask, start, start + SAMPLE) - emptySample;
    sum += size;
    squares += size * size;
  }
  const mean = sum / SAMPLES;
  const deviation = Math.sqrt(Math.max(0, squares / SAMPLES - mean * mean) / SAMPLES);
  const likely = (mean + DEVIATIONS * deviation) * (slots / SAMPLE) + boundOf(0, 1, slots);
  return Math.ceil(likely / HTAB_HEADER_SIZE) * HTAB_HEADER_SIZE;
}

/**
 * Bytes that a first pass has at most: exact but for the cuts of long runs. Counted without a branch per entry, since in a
 * half full table nothing predicts one.
 */
function sizeBound(words: Int32Array, mask: number, from: number, to: number): number {
  let valid = 0;
  let runs = 1;
  let before = 0;
  for (let i = from * HPTE_WORDS + 1; i < to * HPTE_WORDS; i += HPTE_WORDS) {
    const now = Number((words[i]! & mask) === mask);
    valid += now;
    runs += now & ~before;
    before = now;
  }
  return boundOf(valid, runs, to - from);
}

/** Bytes of so many entries in so many runs. */
const boundOf = (valid: number, runs: number, slots: number): number =>
  valid * HPTE_SIZE + (runs + 2 * Math.ceil(slots / HTAB_RUN_MAX)) * HTAB_HEADER_SIZE;
