/**
 * Bytes as 32-bit words of the machine's own order, which move at the speed of memory; a DataView's do not. Constants of big-endian
 * structures are brought into that order once, and compared as they are.
 */

const IS_LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

/** A word with its bytes in the other order, signed. */
const swapWord = (word: number): number =>
  (word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24);

/** A big-endian word as the machine loads it, or the other way round; signed. */
export const bigEndian = (word: number): number => (IS_LITTLE_ENDIAN ? swapWord(word) : word | 0);

/** A little-endian word likewise. */
export const littleEndian = (word: number): number => (IS_LITTLE_ENDIAN ? word | 0 : swapWord(word));

/** The whole words of some bytes: the same memory where it is aligned, else a copy. */
export function wordsOf(bytes: Uint8Array): Int32Array {
  // Not slice(): a Buffer's is no copy.
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : new Uint8Array(bytes);
  return new Int32Array(aligned.buffer, aligned.byteOffset, Math.floor(aligned.byteLength / 4));
}
