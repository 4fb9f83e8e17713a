const CHUNK_PAGES = 0x8000;

/** A sparse set of guest frame numbers: a bitmap in chunks that exist where a page is in the set. */
export class PageSet {
  readonly #chunks = new Map<number, Uint32Array>();
  #lastKey = -1;
  #last: Uint32Array | undefined;

  get empty(): boolean {
    return this.#chunks.size === 0;
  }

  add(gfn: number): void {
    const key = Math.floor(gfn / CHUNK_PAGES);
    const chunk = this.#chunk(key);
    const bit = gfn - key * CHUNK_PAGES;
    chunk[bit >>> 5]! |= 1 << (bit & 31);
  }

  has(gfn: number): boolean {
    const key = Math.floor(gfn / CHUNK_PAGES);
    const chunk = key === this.#lastKey ? this.#last : this.#chunks.get(key);
    const bit = gfn - key * CHUNK_PAGES;
    return chunk !== undefined && (chunk[bit >>> 5]! & (1 << (bit & 31))) !== 0;
  }

  /** Adds the frames of [first, end). */
  addRange(first: number, end: number): void {
    for (let gfn = first; gfn < end; ) {
      const key = Math.floor(gfn / CHUNK_PAGES);
      const stop = Math.min(end, (key + 1) * CHUNK_PAGES);
      setBits(this.#chunk(key), gfn - key * CHUNK_PAGES, stop - key * CHUNK_PAGES);
      gfn = stop;
    }
  }

  /** Calls back for every frame, in no particular order of chunks. */
  forEach(callback: (gfn: number) => void): void {
    for (const [key, chunk] of this.#chunks) {
      for (let word = 0; word < chunk.length; word++) {
        for (let bits = chunk[word]!; bits !== 0; bits &= bits - 1) {
          callback(key * CHUNK_PAGES + word * 32 + (31 - Math.clz32(bits & -bits)));
        }
      }
    }
  }

  /** Calls back for every frame of [first, end), in ascending order. */
  forEachIn(first: number, end: number, callback: (gfn: number) => void): void {
    for (let gfn = first; gfn < end; ) {
      const base = Math.floor(gfn / CHUNK_PAGES) * CHUNK_PAGES;
      const stop = Math.min(end, base + CHUNK_PAGES);
      const chunk = this.#chunks.get(base / CHUNK_PAGES);
      for (let word = (gfn - base) >>> 5; chunk !== undefined && word * 32 < stop - base; word++) {
        for (let bits = chunk[word]!; bits !== 0; bits &= bits - 1) {
          const found = base + word * 32 + (31 - Math.clz32(bits & -bits));
          if (found >= gfn && found < stop) callback(found);
        }
      }
      gfn = stop;
    }
  }

  /** Takes the frames of [first, end) out: a set of those, which are gone through in ascending order. */
  take(first: number, end: number): PageSet {
    const taken = new PageSet();
    for (let gfn = first; gfn < end; ) {
      const key = Math.floor(gfn / CHUNK_PAGES);
      const stop = Math.min(end, (key + 1) * CHUNK_PAGES);
      const chunk = this.#chunks.get(key);
      for (; chunk !== undefined && gfn < stop; gfn++) {
        const bit = gfn - key * CHUNK_PAGES;
        if ((chunk[bit >>> 5]! & (1 << (bit & 31))) === 0) continue;
        chunk[bit >>> 5]! &= ~(1 << (bit & 31));
        taken.add(gfn);
      }
      gfn = stop;
    }
    return taken;
  }

  /** Adds the frames of another set, each so much further on. */
  addAll(other: PageSet, distance = 0): void {
    other.forEach((gfn) => {
      this.add(gfn + distance);
    });
  }

  clear(): void {
    this.#chunks.clear();
    this.#lastKey = -1;
    this.#last = undefined;
  }

  #chunk(key: number): Uint32Array {
    if (key === this.#lastKey) return this.#last!;
    let chunk = this.#chunks.get(key);
    if (chunk === undefined) {
      chunk = new Uint32Array(CHUNK_PAGES / 32);
      this.#chunks.set(key, chunk);
    }
    this.#lastKey = key;
    this.#last = chunk;
    return chunk;
  }
}

function setBits(words: Uint32Array, first: number, end: number): void {
  let bit = first;
  for (; bit < end && (bit & 31) !== 0; bit++) words[bit >>> 5]! |= 1 << (bit & 31);
  const whole = (end - bit) >>> 5;
  words.fill(0xffff_ffff, bit >>> 5, (bit >>> 5) + whole);
  for (bit += whole * 32; bit < end; bit++) words[bit >>> 5]! |= 1 << (bit & 31);
}
