/**
 * A set of slot numbers in which the next member is found without looking at those between: a bitmap, and bitmaps
 * over it of which words aren't empty. A later pass of an HTAB reader takes time by what changed, not by the table.
 */
export class SlotSet {
  /** From the bitmap of slots up to a single word. */
  readonly #levels: Uint32Array[] = [];

  constructor(size: number) {
    let words = Math.ceil(size / 32);
    for (;;) {
      this.#levels.push(new Uint32Array(words));
      if (words === 1) break;
      words = Math.ceil(words / 32);
    }
  }

  add(slot: number): void {
    let index = slot;
    for (const level of this.#levels) {
      const word = index >>> 5;
      const before = level[word]!;
      level[word] = before | (1 << (index & 31));
      if (before !== 0) return;
      index = word;
    }
  }

  delete(slot: number): void {
    let index = slot;
    for (const level of this.#levels) {
      const word = index >>> 5;
      const after = level[word]! & ~(1 << (index & 31));
      level[word] = after;
      if (after !== 0) return;
      index = word;
    }
  }

  /** The first member that is `from` or more; −1 when there is none. */
  next(from: number): number {
    const levels = this.#levels;
    let index = from;
    let depth = 0;
    // Up, until a word has a member at or behind the index; then down along the first ones.
    for (; depth < levels.length; depth++) {
      const level = levels[depth]!;
      const word = index >>> 5;
      // Behind the last word there is nothing: 0.
      const rest = level[word]! & (-1 << (index & 31));
      if (rest !== 0) {
        index = (word << 5) + lowestBit(rest);
        break;
      }
      index = word + 1;
    }
    if (depth === levels.length) return -1;
    while (depth-- > 0) index = (index << 5) + lowestBit(levels[depth]![index]!);
    return index;
  }
}

const lowestBit = (word: number): number => 31 - Math.clz32(word & -word);
