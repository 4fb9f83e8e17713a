import type { AbsoluteMemory } from '../../../../../lib/arch/s390x/model/index.ts';

/** Sparse absolute storage for tests: doublewords by address, zero where nothing was put, none beyond its size. */
export class Storage implements AbsoluteMemory {
  hi = 0;
  lo = 0;
  /** Addresses of frames, and of doublewords, that the host cannot read. */
  readonly unreadable = new Set<bigint>();
  readonly unreadableDoublewords = new Set<bigint>();
  readonly #words = new Map<bigint, bigint>();
  readonly #size: bigint;

  constructor(size: bigint) {
    this.#size = size;
  }

  put(address: bigint, value: bigint): void {
    if (address % 8n !== 0n) throw new Error(`not a doubleword: ${address}`);
    this.#words.set(address, BigInt.asUintN(64, value));
  }

  get(address: bigint): bigint {
    return this.#words.get(address) ?? 0n;
  }

  entries(): Iterable<[bigint, bigint]> {
    return this.#words.entries();
  }

  readDoubleword(pfn: number, offset: number): number {
    const frame = BigInt(pfn) << 12n;
    if (!this.hasFrame(pfn)) return 5;
    const address = frame + BigInt(offset);
    if (this.unreadable.has(frame) || this.unreadableDoublewords.has(address)) return -14;
    const value = this.get(address);
    this.hi = Number(value >> 32n);
    this.lo = Number(value & 0xffff_ffffn);
    return 0;
  }

  hasFrame(pfn: number): boolean {
    return BigInt(pfn) << 12n < this.#size;
  }
}
