/** The dirty bits of one memslot. Only its VM's DirtyLog has to do with them. */
export class SlotDirty {
  readonly #npages: number;
  /** One bit per page in whole 8-byte words, little-endian; absent while there is no bitmap. */
  #bitmap: Uint8Array | undefined;
  /** With a ring: one bit per page whose stores aren't noticed, because its ring entry wasn't reset yet. */
  #unprotected: Uint8Array | undefined;

  constructor(npages: number) {
    this.#npages = npages;
  }

  /** Logging ends: nothing of it stays. */
  drop(): void {
    this.#bitmap = undefined;
    this.#unprotected = undefined;
  }

  /** There is a bitmap from now on: one that exists stays as it is, a new one is clear, or all set. */
  keepBitmap(initiallySet: boolean): void {
    if (this.#bitmap !== undefined) return;
    const bitmap = this.#newBits();
    const npages = this.#npages;
    if (initiallySet) {
      bitmap.fill(0xff, 0, npages >> 3);
      // Where there is no such byte nothing is stored.
      bitmap[npages >> 3] = (1 << (npages % 8)) - 1;
    }
    this.#bitmap = bitmap;
  }

  /** Stores are noticed for a ring from now on, each page's until it is claimed. */
  keepRing(): void {
    this.#unprotected ??= this.#newBits();
  }

  #newBits(): Uint8Array {
    return new Uint8Array(Math.ceil(this.#npages / 64) * 8);
  }

  /** Sets the bits of pages, if there is a bitmap. */
  mark(first: number, count: number): void {
    const bitmap = this.#bitmap;
    if (bitmap === undefined) return;
    for (let page = first; page < first + count; page++) bitmap[page >> 3]! |= 1 << (page & 7);
  }

  /** Whether a store to a page is noticed; it isn't again until {@link protect}. */
  claim(page: number): boolean {
    const bits = this.#unprotected!;
    const bit = 1 << (page & 7);
    if ((bits[page >> 3]! & bit) !== 0) return false;
    bits[page >> 3]! |= bit;
    return true;
  }

  /** Stores to pages, [first, end), are noticed again, as far as the slot has them. */
  protect(first: number, end: number): void {
    const bits = this.#unprotected;
    if (bits === undefined) return;
    for (let page = first; page < Math.min(end, this.#npages); page++) bits[page >> 3]! &= ~(1 << (page & 7));
  }

  /** What GET_DIRTY_LOG answers. */
  copy(): Uint8Array {
    return this.#bitmap!.slice();
  }

  clear(): void {
    this.#bitmap!.fill(0);
  }

  /** Clears the bits that are set in the first bytes of `bits`, whose bit 0 is `firstPage`, a multiple of 8. */
  clearBits(firstPage: number, bits: Uint8Array, length: number): void {
    const start = firstPage >> 3;
    for (let i = 0; i < length; i++) this.#bitmap![start + i]! &= ~bits[i]!;
  }
}
