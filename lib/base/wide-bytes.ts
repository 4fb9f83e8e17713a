/** What is done to each byte of a long array, four bytes at a time. Either byte order will do: no byte's result depends on another. */

/** Where whole aligned words begin and end in a range of bytes; nowhere in a short one. */
export interface WordRange {
  readonly first: number;
  readonly end: number;
  /** With a sign: V8 keeps what is above 2^31 as a double. */
  readonly words: Int32Array;
}

const NO_WORDS = new Int32Array(0);

export function wordRange(bytes: Uint8Array, start: number, end: number): WordRange {
  if (end - start < 8) return { first: end, end, words: NO_WORDS };
  const first = start + (-(bytes.byteOffset + start) & 3);
  const count = (end - first) >>> 2;
  return { first, end: first + 4 * count, words: new Int32Array(bytes.buffer, bytes.byteOffset + first, count) };
}

/** The same byte in each place of a word. */
const each = (byte: number): number => Math.imul(byte, 0x0101_0101);

/** Keeps only the given bits of the bytes in [start, end). */
export function keepBits(bytes: Uint8Array, start: number, end: number, bits: number): void {
  const middle = wordRange(bytes, start, end);
  const mask = each(bits);
  for (let i = start; i < middle.first; i++) bytes[i]! &= bits;
  for (let i = 0; i < middle.words.length; i++) middle.words[i]! &= mask;
  for (let i = middle.end; i < end; i++) bytes[i]! &= bits;
}

/** Index of the first byte in [start, end) that has one of the bits; `end` if there is none. */
export function indexOfBits(bytes: Uint8Array, start: number, end: number, bits: number): number {
  const { first, words } = wordRange(bytes, start, end);
  const mask = each(bits);
  let i = start;
  while (i < first && (bytes[i]! & bits) === 0) i++;
  if (i < first) return i;
  let word = 0;
  const four = words.length - 3;
  while (word < four && ((words[word]! | words[word + 1]! | words[word + 2]! | words[word + 3]!) & mask) === 0)
    word += 4;
  while (word < words.length && (words[word]! & mask) === 0) word++;
  i = first + 4 * word;
  while (i < end && (bytes[i]! & bits) === 0) i++;
  return i;
}
