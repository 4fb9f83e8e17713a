import { KVM_COALESCED_MMIO } from '../uapi/structs.ts';
import { SharedArea } from './backing.ts';
import type { Machine } from './machine.ts';

/** A page that shows the ring. */
interface Shown {
  readonly area: SharedArea;
  readonly offset: number;
}

const { first: FIRST, last: LAST, entries: ENTRIES, entrySize, phys_addr, len, pio, data } = KVM_COALESCED_MMIO;

/**
 * The page of coalesced stores that all vCPUs of a VM share. It can be mapped by itself, and lies behind each vCPU's kvm_run: in bytes of
 * its own there, which are kept the same.
 */
export class CoalescedRing {
  /** What a mapping of the page by itself shows. */
  readonly area: SharedArea;
  readonly #shown: Shown[];
  readonly #little: boolean;
  readonly #capacity: number;
  readonly #hasRoom: (first: number, last: number, capacity: number) => boolean;
  /** The indexes as they are everywhere, but where its reader has set them since. */
  #first = 0;
  #last = 0;

  constructor({ pageSize, littleEndian, release }: Pick<Machine, 'pageSize' | 'littleEndian' | 'release'>) {
    this.area = new SharedArea(pageSize);
    this.#shown = [{ area: this.area, offset: 0 }];
    this.#little = littleEndian;
    this.#capacity = Math.floor((pageSize - ENTRIES) / entrySize);
    this.#hasRoom = release.since(6, 12) ? hasRoom : hasRoomBefore612;
  }

  /** A vCPU's kvm_run has come, with the ring at an offset behind it. */
  showIn(area: SharedArea, offset: number): void {
    this.#agree();
    new Uint8Array(area.view.buffer).set(new Uint8Array(this.area.view.buffer), offset);
    this.#shown.push({ area, offset });
  }

  /** Puts a store into the ring, if there is room. */
  put(addr: bigint, bytes: Uint8Array, isPort: boolean): boolean {
    this.#agree();
    const [little, last, capacity] = [this.#little, this.#last, this.#capacity];
    if (last >= capacity || !this.#hasRoom(this.#first, last, capacity)) return false;
    for (const { area, offset } of this.#shown) {
      const { view } = area;
      const entry = offset + ENTRIES + last * entrySize;
      view.setBigUint64(entry + phys_addr, addr, little);
      view.setUint32(entry + len, bytes.length, little);
      view.setUint32(entry + pio, isPort ? 1 : 0, little);
      new Uint8Array(view.buffer).set(bytes, entry + data);
    }
    this.#setIndexes(this.#first, (last + 1) % capacity);
    return true;
  }

  /** What the reader has set of the indexes in one place is so everywhere. */
  #agree(): void {
    for (const { area, offset } of this.#shown) {
      const { view } = area;
      const first = view.getUint32(offset + FIRST, this.#little);
      const last = view.getUint32(offset + LAST, this.#little);
      if (first !== this.#first || last !== this.#last) this.#setIndexes(first, last);
    }
  }

  #setIndexes(first: number, last: number): void {
    this.#first = first;
    this.#last = last;
    for (const { area, offset } of this.#shown) {
      area.view.setUint32(offset + FIRST, first, this.#little);
      area.view.setUint32(offset + LAST, last, this.#little);
    }
  }
}

/** One entry of the ring stays empty. */
function hasRoom(first: number, last: number, capacity: number): boolean {
  return (last + 1) % capacity !== first;
}

/**
 * Before 6.12 the free entries were counted in u32, whose range is no multiple of the capacity: where `last` is not below `first`
 * the count is off, and an empty ring of 170 entries whose indexes are 0 takes 85.
 */
function hasRoomBefore612(first: number, last: number, capacity: number): boolean {
  return ((first - last - 1) >>> 0) % capacity !== 0;
}
