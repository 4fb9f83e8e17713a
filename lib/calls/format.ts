import { lazyModules } from '../base/lazy-modules.ts';

/** Tokens shown in full; longer data that doesn't compress is shown by its beginning and a digest. */
const MAX_TOKENS = 48;
/** Equal bytes in a row that are worth writing as `00*64`. */
const MIN_RUN = 4;
/** Bytes of a token that has no run. */
const TOKEN_BYTES = 16;

/** Bytes as text: hexadecimal, runs of one byte as `00*64`; nothing that matters is left out (a digest stands for the rest). */
export function formatBytes(bytes: Uint8Array): string {
  const tokens: string[] = [];
  for (const token of byteTokens(bytes)) {
    tokens.push(token);
    if (tokens.length > MAX_TOKENS) {
      const digest = lazyModules.crypto.createHash('sha256').update(bytes).digest('hex').slice(0, 16);
      return `[${tokens.slice(0, MAX_TOKENS).join(' ')} ... ${bytes.length} bytes, sha256 ${digest}]`;
    }
  }
  return `[${tokens.join(' ')}]`;
}

/** All of the bytes likewise, to be read again by {@link bytesOfText}. */
export const textOfBytes = (bytes: Uint8Array): string => [...byteTokens(bytes)].join(' ');

/** A piece of bytes as text: a run of one byte, or plain digits. */
interface BytePiece {
  readonly start: number;
  readonly end: number;
  readonly run: string | undefined;
  readonly plain: string | undefined;
}

/** @throws SyntaxError for text that is none, or of more than `most` bytes */
function piecesOfText(text: string, most: number): readonly BytePiece[] {
  const pieces: BytePiece[] = [];
  let end = 0;
  for (const token of text === '' ? [] : text.split(' ')) {
    const [, run, count, plain] = /^(?:([0-9a-f]{2})\*(\d{1,15})|((?:[0-9a-f]{2})+))$/.exec(token) ?? [];
    if (run === undefined && plain === undefined) throw new SyntaxError(`${JSON.stringify(token)} is no bytes`);
    const start = end;
    end += plain === undefined ? Number(count) : plain.length / 2;
    if (end > most) throw new SyntaxError(`there are more than ${most} bytes`);
    pieces.push({ start, end, run, plain });
  }
  return pieces;
}

/** How many bytes that is, without making them. @throws SyntaxError as {@link bytesOfText} */
export const lengthOfText = (text: string, most: number): number => piecesOfText(text, most).at(-1)?.end ?? 0;

/**
 * The bytes that {@link textOfBytes} wrote.
 * @throws SyntaxError for other text, and for more than `most` bytes
 */
export function bytesOfText(text: string, most: number): Uint8Array {
  const pieces = piecesOfText(text, most);
  const bytes = new Uint8Array(pieces.at(-1)?.end ?? 0);
  for (const { start, end, run, plain } of pieces) {
    if (plain === undefined) bytes.fill(Number.parseInt(run!, 16), start, end);
    else bytes.set(Buffer.from(plain, 'hex'), start);
  }
  return bytes;
}

function* byteTokens(bytes: Uint8Array): Generator<string, void, undefined> {
  let plain = '';
  for (let i = 0; i < bytes.length; ) {
    const byte = bytes[i]!;
    let end = i + 1;
    while (end < bytes.length && bytes[end] === byte) end++;
    const text = byte.toString(16).padStart(2, '0');
    const isRun = end - i >= MIN_RUN;
    if (!isRun) plain += text.repeat(end - i);
    if (plain !== '' && (isRun || plain.length >= 2 * TOKEN_BYTES)) {
      yield plain;
      plain = '';
    }
    if (isRun) yield `${text}*${end - i}`;
    i = end;
  }
  if (plain !== '') yield plain;
}
