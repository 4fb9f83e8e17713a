/**
 * The loops of the HTAB stream codec over a whole stream or a whole table: here in TypeScript, and the addon has the same
 * in C++ (native/htab.cc). They know right from wrong, not what is wrong: that the codec finds out when they refuse.
 */
import { HPTE_SIZE, HPTE_WORDS, V_HI, V_LO } from './hpte.ts';
import { baseShiftOf } from './page-sizes.ts';
import { bigEndian, littleEndian, wordsOf } from './words.ts';

export const HTAB_HEADER_SIZE = 8;

/** Longest run of valid, or of invalid, entries that one chunk can have. */
export const HTAB_RUN_MAX = 0xffff;

/** So many times its slots may one stream for a table tell to be empty. */
export const HTAB_MAX_TURNS = 64;

/** Arrays have no bytes in common. `isLittle` is 1 for little-endian headers, 0 for big-endian ones. */
export interface HtabLoops {
  /**
   * Applies a stream to a table, if each of its chunks is right.
   * @param largeSizes not 0 for the page sizes that exist, by LP: the eight bits from bit 12 of an entry with L set
   * @returns 1, or 0 when a chunk isn't right and nothing was done
   */
  apply(table: Uint8Array, stream: Uint8Array, isLittle: number, largeSizes: Uint8Array): number;
  /**
   * Writes the slots `from` to `to - 1` of a table as a stream. Valid is what has all bits of `mask` in V's lowest byte.
   * @returns how many bytes were written; less than 0 when there is no room for all
   */
  encode(table: Uint8Array, from: number, to: number, mask: number, isLittle: number, out: Uint8Array): number;
}

/** What {@link HtabLoops.apply} wants to know of page sizes. */
export const LARGE_SIZES: Uint8Array = Uint8Array.from({ length: 256 }, (_, lp) => baseShiftOf(V_LO.LARGE, lp << 12));

const HEADER_WORDS = HTAB_HEADER_SIZE / 4;

/** Bits of V's halves as the machine loads them. */
const VALID = bigEndian(V_LO.VALID);
const LARGE = bigEndian(V_LO.LARGE);
const B_RESERVED = bigEndian(V_HI.B_RESERVED);
const NOT_OF_KVM = bigEndian(~(V_LO.HVLOCK | V_LO.ABSENT));

/** A word of a header as the machine has it, or the other way round. */
const ofHeader = (word: number, isLittle: number): number => (isLittle ? littleEndian(word) : bigEndian(word));

/** Up to so many words a loop is faster than a call of TypedArray's. */
const SHORT_RUN = 32;

/** In TypeScript. All variables of the loops are local ones, since there can be a chunk for every other slot. */
export const plainHtabLoops: HtabLoops = {
  apply(table, stream, isLittle, largeSizes) {
    if (stream.byteLength % HTAB_HEADER_SIZE !== 0) return 0;
    const words = wordsOf(stream);
    const [validShift, invalidShift] = isLittle ? [0, 16] : [16, 0];
    if (!isRight(words, table.byteLength / HPTE_SIZE, isLittle, largeSizes)) return 0;
    const target = new Int32Array(table.buffer, table.byteOffset, table.byteLength / 4);
    for (let from = 0; from < words.length; ) {
      const counts = ofHeader(words[from + 1]!, isLittle);
      let to = (ofHeader(words[from]!, isLittle) >>> 0) * HPTE_WORDS;
      from += HEADER_WORDS;
      const end = from + ((counts >>> validShift) & 0xffff) * HPTE_WORDS;
      for (; from < end; from += HPTE_WORDS, to += HPTE_WORDS) {
        target[to] = words[from]!;
        target[to + 1] = words[from + 1]! & NOT_OF_KVM;
        target[to + 2] = words[from + 2]!;
        target[to + 3] = words[from + 3]!;
      }
      const clearEnd = to + ((counts >>> invalidShift) & 0xffff) * HPTE_WORDS;
      if (clearEnd - to > SHORT_RUN) target.fill(0, to, clearEnd);
      else for (; to < clearEnd; to++) target[to] = 0;
    }
    return 1;
  },

  encode(table, from, to, mask, isLittle, out) {
    const words = new Int32Array(table.buffer, table.byteOffset, table.byteLength / 4);
    const target = wordsOf(out);
    const [validShift, invalidShift] = isLittle ? [0, 16] : [16, 0];
    const wanted = bigEndian(mask);
    const room = target.length;
    let at = 0;
    for (let slot = from; slot < to; ) {
      const header = at;
      at += HEADER_WORDS;
      if (at > room) return -1;
      const index = slot;
      for (const end = Math.min(to, slot + HTAB_RUN_MAX); slot < end; slot++, at += HPTE_WORDS) {
        const i = slot * HPTE_WORDS;
        if ((words[i + 1]! & wanted) !== wanted) break;
        if (at + HPTE_WORDS > room) return -1;
        target[at] = words[i]!;
        target[at + 1] = words[i + 1]!;
        target[at + 2] = words[i + 2]!;
        target[at + 3] = words[i + 3]!;
      }
      const nValid = slot - index;
      for (const end = Math.min(to, slot + HTAB_RUN_MAX); slot < end; slot++) {
        if ((words[slot * HPTE_WORDS + 1]! & wanted) === wanted) break;
      }
      target[header] = ofHeader(index, isLittle);
      target[header + 1] = ofHeader((nValid << validShift) | ((slot - index - nValid) << invalidShift), isLittle);
    }
    // Bytes that aren't aligned have been copied.
    if (target.buffer !== out.buffer) out.set(new Uint8Array(target.buffer, 0, at * 4));
    return at * 4;
  },
};

/** Whether all chunks are whole, inside the table, and of entries that KVM would take. */
function isRight(words: Int32Array, entryCount: number, isLittle: number, largeSizes: Uint8Array): boolean {
  const { length } = words;
  let cleared = 0;
  for (let at = 0; at < length; ) {
    const index = ofHeader(words[at]!, isLittle) >>> 0;
    const counts = ofHeader(words[at + 1]!, isLittle);
    if (index >= entryCount || index + (counts & 0xffff) + (counts >>> 16) > entryCount) return false;
    at += HEADER_WORDS;
    cleared += (counts >>> (isLittle ? 16 : 0)) & 0xffff;
    const end = at + ((counts >>> (isLittle ? 0 : 16)) & 0xffff) * HPTE_WORDS;
    if (end > length) return false;
    for (; at < end; at += HPTE_WORDS) {
      const vLo = words[at + 1]!;
      if ((vLo & VALID) === 0 || (words[at]! & B_RESERVED) !== 0) return false;
      if ((vLo & LARGE) !== 0 && largeSizes[(bigEndian(words[at + 3]!) >>> 12) & 0xff] === 0) return false;
    }
  }
  return cleared <= HTAB_MAX_TURNS * entryCount;
}

/** Below this a call of the addon's costs more than the bytes. */
const WORTHWHILE_BYTES = 4096;

/** The loops for so many bytes: those that were handed in, where they are worth a call. */
export const htabLoopsFor = (bytes: number, loops: HtabLoops | undefined): HtabLoops =>
  loops === undefined || bytes < WORTHWHILE_BYTES ? plainHtabLoops : loops;
