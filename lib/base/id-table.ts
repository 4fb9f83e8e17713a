/**
 * Things by small numbers that are given again when a thing is gone, as ids of memslots and descriptors are. In a Map each
 * key that was deleted stays in its bucket until all of it is made anew: one that comes and goes is looked for among as many as
 * the Map has.
 */
export class IdTable<T extends object> {
  readonly #things: (T | undefined)[] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(id: number): T | undefined {
    return this.#things[id];
  }

  has(id: number): boolean {
    return this.#things[id] !== undefined;
  }

  set(id: number, thing: T): void {
    if (!this.has(id)) this.#size++;
    while (this.#things.length < id) this.#things.push(undefined);
    this.#things[id] = thing;
  }

  delete(id: number): void {
    if (!this.has(id)) return;
    this.#size--;
    this.#things[id] = undefined;
  }

  /** By ascending number, as they are now. */
  values(): T[] {
    return this.#things.filter((thing) => thing !== undefined);
  }
}
