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
  readonly #entries: number;

  /** @param page the ring's page of a vCPU's mapping (CHECK_EXTENSION(COALESCED_MMIO)) */
  constructor(page: ArrayBufferLike, arch: Arch) {
    this.#view = new DataView(page);
    this.#indices = new Int32Array(page, 0, 2);
    this.#little = isLittleEndianHost(arch);
    this.#entries = Math.floor((page.byteLength - KVM_COALESCED_MMIO.entries) / KVM_COALESCED_MMIO.entrySize);
  }

  /** Takes the stores there are, in their order. */
  drain(take: (write: CoalescedWrite) => void): void {
    const { first, entries, entrySize } = KVM_COALESCED_MMIO;
    // Both indices in the ring's own byte order: equal or not is all that counts. The load acquires the entries.
    while (Atomics.load(this.#indices, 1) !== this.#indices[0]) {
      const index = this.#view.getUint32(first, this.#little);
      const write = this.#entry(entries + index * entrySize);
      this.#view.setUint32(first, (index + 1) % this.#entries, this.#little);
      take(write);
    }
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
