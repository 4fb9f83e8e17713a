import { DIRTY_RING_RESERVED } from '../rules/dirty-ring.ts';
import { DIRTY_GFN } from '../uapi/flags.ts';
import { KVM_DIRTY_GFN } from '../uapi/structs.ts';
import { SharedArea } from './backing.ts';

/** One vCPU's dirty ring, in memory that user space maps. */
export class DirtyRing {
  readonly area: SharedArea;
  readonly #entries: number;
  readonly #little: boolean;
  /** Free-running counters: entries the kernel wrote, and entries it took back. */
  #dirty = 0;
  #reset = 0;

  constructor(bytes: number, littleEndian: boolean) {
    this.area = new SharedArea(bytes);
    this.#entries = bytes / KVM_DIRTY_GFN.size;
    this.#little = littleEndian;
  }

  /** KVM_RUN doesn't go on until entries were reset. */
  get softFull(): boolean {
    return this.#dirty - this.#reset >= this.#entries - DIRTY_RING_RESERVED;
  }

  push(slotWord: number, offset: number): void {
    const at = (this.#dirty % this.#entries) * KVM_DIRTY_GFN.size;
    this.area.view.setUint32(at + KVM_DIRTY_GFN.slot, slotWord, this.#little);
    this.area.view.setBigUint64(at + KVM_DIRTY_GFN.offset, BigInt(offset), this.#little);
    this.area.view.setUint32(at + KVM_DIRTY_GFN.flags, DIRTY_GFN.DIRTY, this.#little);
    this.#dirty++;
  }

  /** Takes back the entries that user space marked, in order, and tells which pages they were. */
  takeReset(page: (slotWord: number, offset: number) => void): number {
    let count = 0;
    while (this.#reset < this.#dirty) {
      const at = (this.#reset % this.#entries) * KVM_DIRTY_GFN.size;
      if ((this.area.view.getUint32(at + KVM_DIRTY_GFN.flags, this.#little) & DIRTY_GFN.RESET) === 0) break;
      this.area.view.setUint32(at + KVM_DIRTY_GFN.flags, 0, this.#little);
      page(
        this.area.view.getUint32(at + KVM_DIRTY_GFN.slot, this.#little),
        Number(this.area.view.getBigUint64(at + KVM_DIRTY_GFN.offset, this.#little)),
      );
      this.#reset++;
      count++;
    }
    return count;
  }
}
