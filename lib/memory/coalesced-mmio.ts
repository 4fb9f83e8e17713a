import { endianness } from 'node:os';
import type { U64 } from '../base/u64.ts';
import { type Arch, isLittleEndianHost } from '../uapi/arch.ts';
import { KVM_COALESCED_MMIO } from '../uapi/structs.ts';

/** A store that the kernel put aside instead of leaving the guest. */
export interface CoalescedWrite {
  readonly pio: boolean;
  /** Address, or port. */
  readonly gpa: U64;
  readonly data: Uint8Array;
}

const TWO_32 = 2 ** 32;

/** The ring page of a VM's coalesced MMIO: the kernel fills it at `last`, we take from `first`. */
export class CoalescedMmioRing {
  readonly #view: DataView;
  readonly #indices: Int32Array;
  readonly #little: boolean;
  readonly #swapped: boolean;
  readonly #entries: number;

  /** @param page the ring's page of a vCPU's mapping (CHECK_EXTENSION(COALESCED_MMIO)) */
  constructor(page: ArrayBufferLike, arch: Arch) {
    this.#view = new DataView(page);
    this.#indices = new Int32Array(page, 0, 2);
    this.#little = isLittleEndianHost(arch);
    this.#swapped = this.#little !== (endianness() === 'LE');
    this.#entries = Math.floor((page.byteLength - KVM_COALESCED_MMIO.entries) / KVM_COALESCED_MMIO.entrySize);
  }

  /**
   * Takes the stores there are, in their order. The page is memory that others may write as well: each index is read once, and no
   * more is taken than a ring holds.
   */
  drain(take: (write: CoalescedWrite) => void): void {
    const { entries, entrySize } = KVM_COALESCED_MMIO;
    for (let taken = 0; taken < this.#entries; taken++) {
      // Whoever took the store before may have closed the VM.
      if (this.#indices.length === 0) return;
      // Acquires the entries.
      const last = this.#order(Atomics.load(this.#indices, 1));
      const first = this.#order(Atomics.load(this.#indices, 0));
      // One that no kernel writes: it puts nothing more into such a ring, and there is nothing to be had.
      if (first === last || first >= this.#entries || last >= this.#entries) return;
      const write = this.#entry(entries + first * entrySize);
      Atomics.store(this.#indices, 0, this.#order((first + 1) % this.#entries));
      take(write);
    }
  }

  /** Between the ring's byte order and this process's. */
  #order(index: number): number {
    if (!this.#swapped) return index >>> 0;
    return ((index << 24) | ((index & 0xff00) << 8) | ((index >>> 8) & 0xff00) | (index >>> 24)) >>> 0;
  }

  #entry(at: number): CoalescedWrite {
    const { phys_addr, len, pio, data } = KVM_COALESCED_MMIO;
    const low = this.#view.getUint32(at + phys_addr + (this.#little ? 0 : 4), this.#little);
    const high = this.#view.getUint32(at + phys_addr + (this.#little ? 4 : 0), this.#little);
    const length = Math.min(8, this.#view.getUint32(at + len, this.#little));
    return {
      pio: this.#view.getUint32(at + pio, this.#little) !== 0,
      gpa: high < 0x20_0000 ? high * TWO_32 + low : this.#view.getBigUint64(at + phys_addr, this.#little),
      data: new Uint8Array(this.#view.buffer.slice(at + data, at + data + length)),
    };
  }
}
