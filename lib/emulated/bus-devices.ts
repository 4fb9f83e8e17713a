/** Addresses that somebody answers on a bus; of size 0 where only the first one is named. */
export interface BusRange {
  readonly addr: bigint;
  readonly size: bigint;
}

/**
 * The devices of a bus in the order in which the kernel keeps them and asks them (`struct kvm_io_bus`): by address, and
 * those that compare as equal in the order in which they came.
 */
export class BusDevices<Device extends BusRange> {
  readonly #sorted: Device[] = [];

  [Symbol.iterator](): IterableIterator<Device> {
    return this.#sorted[Symbol.iterator]();
  }

  add(device: Device): void {
    const after = this.#sorted.findIndex((other) => compare(other, device) > 0);
    this.#sorted.splice(after < 0 ? this.#sorted.length : after, 0, device);
  }

  delete(device: Device): void {
    this.#sorted.splice(this.#sorted.indexOf(device), 1);
  }

  /** Those that are asked about an access, until one takes it. */
  *asked(access: BusRange): Generator<Device, void, undefined> {
    let index = this.#search(access);
    if (index === undefined) return;
    while (index > 0 && compare(access, this.#sorted[index - 1]!) === 0) index--;
    for (; index < this.#sorted.length && compare(access, this.#sorted[index]!) === 0; index++) {
      yield this.#sorted[index]!;
    }
  }

  /** The kernel's bsearch, step for step: ranges that overlap are in no total order, and the steps decide which is found. */
  #search(access: BusRange): number | undefined {
    let base = 0;
    for (let count = this.#sorted.length; count > 0; count >>= 1) {
      const pivot = base + (count >> 1);
      const result = compare(access, this.#sorted[pivot]!);
      if (result === 0) return pivot;
      if (result > 0) {
        base = pivot + 1;
        count--;
      }
    }
    return undefined;
  }
}

/** Equal where `a` lies inside `b`, or begins where `b` does if that has no size. */
function compare(a: BusRange, b: BusRange): number {
  if (a.addr < b.addr) return -1;
  const [endA, endB] = b.size === 0n ? [a.addr, b.addr] : [a.addr + a.size, b.addr + b.size];
  return endA > endB ? 1 : 0;
}
