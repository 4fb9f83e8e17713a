import { partOf } from '../../../base/part-of.ts';
import { HPTE_SIZE } from './hpte.ts';
import { grown, Htab } from './htab.ts';
import {
  applyHtabStream,
  checkHtabStream,
  HTAB_HEADER_SIZE,
  HtabStreamCheck,
  HtabStreamError,
  type HtabStreamFormat,
  type HtabStreamSummary,
  orderFor,
  wholeHtabChunks,
} from './htab-stream.ts';

/** Cuts a stream that comes in pieces of any size at the ends of its chunks. Less than one chunk is held. */
export class HtabPieces {
  readonly #format: HtabStreamFormat;
  /** The beginning of a chunk whose rest is still to come, the bytes in it, and how many it takes to go on. */
  #pieces: Uint8Array[] = [];
  #held = 0;
  #needed = HTAB_HEADER_SIZE;
  /** Bytes of the chunks that were given out. */
  #before = 0;

  constructor(format: HtabStreamFormat) {
    this.#format = format;
  }

  /** Where in the stream the next chunk begins. */
  get offset(): number {
    return this.#before;
  }

  /**
   * Takes a piece, and gives `use` the chunks that are whole by now, if there are any.
   * @throws HtabStreamError with the offset in the whole stream, also for those that `use` throws
   */
  take(piece: Uint8Array, use: (chunks: Uint8Array) => void): void {
    this.#held += piece.length;
    if (this.#held < this.#needed) {
      this.#pieces.push(copyOf(piece));
      return;
    }
    const bytes = this.#held === piece.length ? piece : Buffer.concat([...this.#pieces, piece]);
    const whole = this.#located(() => {
      const length = wholeHtabChunks(bytes, this.#format);
      if (length > 0) use(partOf(bytes, 0, length));
      return length;
    });
    this.#before += whole;
    this.#held -= whole;
    const rest = copyOf(partOf(bytes, whole));
    this.#pieces = [rest];
    this.#needed = HTAB_HEADER_SIZE + (this.#held < HTAB_HEADER_SIZE ? 0 : nValidOf(rest, this.#format) * HPTE_SIZE);
  }

  /** The stream ends here. @throws HtabStreamError when that is within a chunk */
  end(): void {
    if (this.#held > 0) this.#located(() => checkHtabStream(Buffer.concat(this.#pieces), this.#format));
  }

  #located<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw error instanceof HtabStreamError ? error.from(this.#before) : error;
    }
  }
}

/** Who gave a piece may reuse its memory; and a Buffer's own slice() is no copy. */
const copyOf = (bytes: Uint8Array): Uint8Array => new Uint8Array(bytes);

/** How many entries the chunk has whose header is at the beginning. */
function nValidOf(bytes: Uint8Array, { headers }: HtabStreamFormat): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint16(4, headers !== 'big');
}

/** Makes a table from a stream that comes in pieces, of one pass or of several. It holds the table and one chunk. */
export class HtabDecoder {
  readonly #format: HtabStreamFormat;
  readonly #pieces: HtabPieces;
  readonly #check = new HtabStreamCheck();
  #table: Htab;

  /** @param format with `entryCount`, beyond which nothing may be told of */
  constructor(format: HtabStreamFormat & { readonly entryCount: number }) {
    this.#format = format;
    this.#pieces = new HtabPieces(format);
    this.#table = new Htab(orderFor(0));
  }

  /** What was in the chunks so far. */
  get summary(): HtabStreamSummary {
    return this.#check;
  }

  /** @throws HtabStreamError */
  take(piece: Uint8Array): void {
    this.#pieces.take(piece, (chunks) => {
      this.#check.add(chunks, this.#format);
      this.#table = grown(this.#table, orderFor(this.#check.extent));
      applyHtabStream(this.#table, chunks, this.#format);
    });
  }

  /**
   * The stream ends here.
   * @param order of the table; the smallest that holds every slot mentioned unless given
   * @throws HtabStreamError when that is within a chunk
   */
  end(order: number = this.#table.order): Htab {
    this.#pieces.end();
    return grown(this.#table, order);
  }
}
