/** Pages of a block; blocks exist where a page was ever mapped, so that a large slot costs nothing by itself. */
const BLOCK_PAGES = 4096;

/** In `heads`: no entry of the table maps the page. */
const NONE = -1;

interface Block {
  readonly heads: Int32Array;
  readonly rc: Uint8Array;
}

/**
 * What KVM knows of each page of a memslot: which entries of the table map it (the head of a ring; the links are
 * the table's), and the R and C bits that entries had which are gone. A large page hangs on its first page.
 */
export class ReverseMap {
  readonly #blocks = new Map<number, Block>();
  /** The block that was looked for last. */
  #number = -1;
  #last: Block | undefined;

  /** Slot of an entry that maps the page, or −1. */
  head(page: number): number {
    return this.#find(page)?.heads[page % BLOCK_PAGES] ?? NONE;
  }

  setHead(page: number, slot: number): void {
    this.#block(page).heads[page % BLOCK_PAGES] = slot;
  }

  /** The page's accumulated R (2) and C (1). */
  rc(page: number): number {
    return this.#find(page)?.rc[page % BLOCK_PAGES] ?? 0;
  }

  addRc(page: number, rc: number): void {
    this.#block(page).rc[page % BLOCK_PAGES]! |= rc;
  }

  /** The pages that entries map, each with its head. Rings may be changed meanwhile. */
  *mapped(): Generator<[page: number, head: number], void, undefined> {
    for (const [number, { heads }] of this.#blocks) {
      for (let i = 0; i < BLOCK_PAGES; i++) if (heads[i] !== NONE) yield [number * BLOCK_PAGES + i, heads[i]!];
    }
  }

  #find(page: number): Block | undefined {
    const number = Math.floor(page / BLOCK_PAGES);
    if (number !== this.#number) {
      this.#number = number;
      this.#last = this.#blocks.get(number);
    }
    return this.#last;
  }

  #block(page: number): Block {
    let block = this.#find(page);
    if (block === undefined) {
      block = { heads: new Int32Array(BLOCK_PAGES).fill(NONE), rc: new Uint8Array(BLOCK_PAGES) };
      this.#blocks.set(this.#number, block);
      this.#last = block;
    }
    return block;
  }
}
