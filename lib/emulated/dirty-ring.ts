import { DIRTY_RING_RESERVED } from '../rules/dirty-ring.ts';
import { DIRTY_GFN } from '../uapi/flags.ts';
import { KVM_DIRTY_GFN } from '../uapi/structs.ts';
import { SharedArea } from './backing.ts';

/** One vCPU's dirty ring, in memory that user space maps. */
export class EmulatedDirtyRing {
  readonly area: SharedArea;
  readonly #entries: number;
  readonly #little: boolean;
  /** Free-running counters: entries the kernel wrote, and entries it took back. */
  #dirty = 0;
  #reset = 0;
  /** An entry was written that left too few (KVM_REQ_DIRTY_RING_SOFT_FULL). */
  #request = false;

  constructor(bytes: number, littleEndian: boolean) {
    this.area = new SharedArea(bytes);
    this.#entries = bytes / KVM_DIRTY_GFN.size;
    this.#little = littleEndian;
  }

  /** Whether KVM_RUN has to come out until entries were reset: looked at since the entry that left too few was written. */
  checkRequest(): boolean {
    this.#request &&= this.#isSoftFull;
    return this.#request;
  }

  /** The counters are u32 in the kernel: one that was reset beyond what was written counts as full. */
  get #isSoftFull(): boolean {
    return (this.#dirty - this.#reset) >>> 0 >= this.#entries - DIRTY_RING_RESERVED;
  }

  push(slotWord: number, offset: number): void {
    const at = (this.#dirty % this.#entries) * KVM_DIRTY_GFN.size;
    this.area.view.setUint32(at + KVM_DIRTY_GFN.slot, slotWord, this.#little);
    this.area.view.setBigUint64(at + KVM_DIRTY_GFN.offset, BigInt(offset), this.#little);
    this.area.view.setUint32(at + KVM_DIRTY_GFN.flags, DIRTY_GFN.DIRTY, this.#little);
    this.#dirty++;
    this.#request ||= this.#isSoftFull;
  }

  /**
   * Takes back the entries that user space marked, in order, and tells which pages they were. The kernel looks at the mark
   * alone, not at whether it has written the entry.
   */
  takeReset(page: (slotWord: number, offset: number) => void): number {
    let count = 0;
    for (;;) {
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
