/** A set of whole numbers as sorted, disjoint, half-open ranges: huge ranges cost as little as small ones. */
export class RangeSet {
  #ranges: { start: number; end: number }[] = [];

  has(value: number): boolean {
    return this.#ranges.some(({ start, end }) => value >= start && value < end);
  }

  add(start: number, end: number): void {
    this.delete(start, end);
    this.#ranges.push({ start, end });
    this.#ranges.sort((a, b) => a.start - b.start);
  }

  delete(start: number, end: number): void {
    this.#ranges = this.#ranges.flatMap((range) => [
      ...(range.start < start ? [{ start: range.start, end: Math.min(range.end, start) }] : []),
      ...(range.end > end ? [{ start: Math.max(range.start, end), end: range.end }] : []),
    ]);
  }
}
