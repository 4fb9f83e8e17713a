import { totalmem } from 'node:os';
import { entriesOf } from '../../arch/ppc64/model/hash.ts';
import { HPTE_SIZE } from '../../arch/ppc64/model/hpte.ts';
import type { Htab } from '../../arch/ppc64/model/htab.ts';
import { HtabDecoder, HtabPieces } from '../../arch/ppc64/model/htab-pieces.ts';
import {
  FOUND_ORDER_MAX,
  HtabStreamCheck,
  HtabStreamError,
  type HtabStreamSummary,
  orderFor,
} from '../../arch/ppc64/model/htab-stream.ts';
import { humanSize } from '../../base/text.ts';
import { inputProblem } from '../file-problem.ts';
import { unpacked } from '../input.ts';

export type Headers = 'little' | 'big';

/** How to read a file. */
export interface ReadOptions {
  readonly headers: Headers;
  /** Of the table; found out, up to {@link FOUND_ORDER_MAX}, unless given. */
  readonly order: number | undefined;
}

/** What a file held. */
export interface TableFile {
  readonly file: string;
  readonly table: Htab;
  readonly stream: HtabStreamSummary;
  /** The stream is one first pass and no more. */
  readonly isFirstPass: boolean;
}

/** A file that is no stream, or not one that can be read here. */
export class TableFileError extends Error {
  constructor(file: string, why: string) {
    super(`${file}: ${why}`);
  }
}

/** Passes can follow one another in a file, but not for ever: so many times the table's bytes are read. */
const MAX_TABLES = 2;
/** And so many times its slots may be told of, since eight bytes can tell that 65535 are empty. */
const MAX_TURNS = 16;

/**
 * Reads an HTAB stream, gzipped or not, into a table. What it takes of memory and time is bounded by the table's order, whatever the bytes say.
 * @param file its name, for what is said of it
 * @throws TableFileError
 */
export async function readTable(
  file: string,
  source: AsyncIterable<Uint8Array>,
  options: ReadOptions,
): Promise<TableFile> {
  const { order } = options;
  if (order !== undefined && 2 ** order > totalmem()) {
    const [wanted, there] = [humanSize(2 ** order), humanSize(totalmem())];
    throw new TableFileError(file, `a table of order ${order} has ${wanted}, and this machine ${there} of memory`);
  }
  const reading = new Reading(file, options);
  try {
    for await (const piece of unpacked(source)) reading.take(piece);
  } catch (error) {
    const reason = inputProblem(error, file);
    throw reason === undefined ? error : new TableFileError(file, reason);
  }
  return reading.end();
}

/** Reads a stream into a table, and beside it as if its headers had the other byte order. */
class Reading {
  readonly #file: string;
  readonly #order: number | undefined;
  readonly #entryCount: number;
  readonly #decoder: HtabDecoder;
  readonly #other: OtherHeaders;
  #head: Uint8Array = new Uint8Array();
  #length = 0;
  #failure: HtabStreamError | undefined;

  constructor(file: string, { headers, order }: ReadOptions) {
    this.#file = file;
    this.#order = order;
    this.#entryCount = entriesOf(order ?? FOUND_ORDER_MAX);
    this.#decoder = new HtabDecoder({ headers, entryCount: this.#entryCount });
    this.#other = new OtherHeaders(headers === 'little' ? 'big' : 'little', this.#entryCount);
  }

  /** @throws TableFileError when it is too much by now */
  take(piece: Uint8Array): void {
    if (this.#length === 0) this.#head = piece.slice(0, HEAD_BYTES);
    this.#length += piece.length;
    this.#other.take(piece);
    this.#attempt(() => this.#decoder.take(piece));
    const excess = this.#excess();
    if (excess !== undefined) throw this.#error(excess);
  }

  /** @throws TableFileError for what is no stream */
  end(): TableFile {
    if (this.#length === 0) throw this.#error('it is empty: of an empty table, too, there is a chunk in a stream');
    this.#other.end();
    const table = this.#attempt(() => this.#decoder.end(this.#order));
    if (table === undefined) throw this.#error(this.#explain(this.#failure!));
    const stream = this.#decoder.summary;
    const isFirstPass = stream.gapless && stream.extent === table.entryCount;
    if (!isFirstPass && this.#other.isFirstPass) throw this.#error(this.#other.hint);
    return { file: this.#file, table, stream, isFirstPass };
  }

  #error(reason: string): TableFileError {
    return new TableFileError(this.#file, reason);
  }

  /** Of failures the first counts. What comes after it is looked at with other headers alone. */
  #attempt<T>(work: () => T): T | undefined {
    if (this.#failure !== undefined) return undefined;
    try {
      return work();
    } catch (error) {
      if (!(error instanceof HtabStreamError)) throw error;
      this.#failure = error;
      return undefined;
    }
  }

  /** What there is more of than any passes over the table have. */
  #excess(): string | undefined {
    // A small table may have many passes.
    const slots = Math.max(this.#entryCount, entriesOf(FOUND_ORDER_MAX));
    const bytes = MAX_TABLES * slots * HPTE_SIZE;
    const { valid, invalid } = this.#decoder.summary;
    if (this.#length > bytes) return `a stream of more than ${humanSize(bytes)} is not read${this.#larger}`;
    if (valid + invalid <= MAX_TURNS * slots) return undefined;
    return `a stream that tells of more than ${MAX_TURNS * slots} slots is not read${this.#larger}`;
  }

  #explain(failure: HtabStreamError): string {
    if (isText(this.#head)) return 'this is text, and no HTAB stream';
    if (this.#other.isLikelier(failure)) return failure.with(this.#other.hint).message;
    return failure.message + (failure.problem === 'index' ? this.#larger : '');
  }

  get #larger(): string {
    if (this.#order !== undefined) return '';
    return `; if the table is larger than order ${FOUND_ORDER_MAX} (${humanSize(2 ** FOUND_ORDER_MAX)}), say --order`;
  }
}

/** So many bytes more must make sense than without. */
const LIKELIER_BY = 64;

/** The same stream read as if its headers had the other byte order, to tell whether it makes more sense so. */
class OtherHeaders {
  readonly hint: string;
  readonly #format: { readonly headers: Headers; readonly entryCount: number };
  readonly #pieces: HtabPieces;
  readonly #check = new HtabStreamCheck();
  #failure: HtabStreamError | undefined;

  constructor(headers: Headers, entryCount: number) {
    this.hint = `it makes more sense with ${headers}-endian headers: say --headers ${headers}`;
    this.#format = { headers, entryCount };
    this.#pieces = new HtabPieces(this.#format);
  }

  get isFirstPass(): boolean {
    const { gapless, extent } = this.#check;
    return this.#failure === undefined && gapless && extent === entriesOf(orderFor(extent));
  }

  take(piece: Uint8Array): void {
    this.#attempt(() => this.#pieces.take(piece, (chunks) => this.#check.add(chunks, this.#format)));
  }

  end(): void {
    this.#attempt(() => this.#pieces.end());
  }

  isLikelier(failure: HtabStreamError): boolean {
    return this.#failure === undefined || this.#failure.offset >= failure.offset + LIKELIER_BY;
  }

  #attempt(work: () => void): void {
    if (this.#failure !== undefined) return;
    try {
      work();
    } catch (error) {
      if (!(error instanceof HtabStreamError)) throw error;
      this.#failure = error;
    }
  }
}

/** So much of a file is looked at to tell whether it is text. */
const HEAD_BYTES = 1024;

/** UTF-8 without control characters: of a stream that is right so much can't be. */
function isText(head: Uint8Array): boolean {
  try {
    return /^[\t\n\f\r\P{Cc}]*$/u.test(new TextDecoder('utf-8', { fatal: true }).decode(head, { stream: true }));
  } catch {
    return false;
  }
}
