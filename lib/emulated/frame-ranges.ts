/** A set of guest frames as ranges, since any number of them is put in or taken out at once. */
export class FrameRanges {
  /** [start, end) of each, in ascending order, none next to another. */
  #ranges: (readonly [start: number, end: number])[] = [];

  has(gfn: number): boolean {
    let [low, high] = [0, this.#ranges.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#ranges[middle]![1] <= gfn) low = middle + 1;
      else high = middle;
    }
    return low < this.#ranges.length && this.#ranges[low]![0] <= gfn;
  }

  /** Puts the frames of [first, end) in, or takes them out. */
  set(first: number, end: number, isIn: boolean): void {
    const kept: (readonly [number, number])[] = [];
    let [from, to] = [first, end];
    for (const range of this.#ranges) {
      const [start, stop] = range;
      if (isIn && start <= to && stop >= from) [from, to] = [Math.min(from, start), Math.max(to, stop)];
      else if (isIn || start >= end || stop <= first) kept.push(range);
      else kept.push(...parts(start, first), ...parts(end, stop));
    }
    if (isIn) kept.push([from, to]);
    this.#ranges = kept.sort(([a], [b]) => a - b);
  }
}

const parts = (start: number, end: number): (readonly [number, number])[] => (start < end ? [[start, end]] : []);
