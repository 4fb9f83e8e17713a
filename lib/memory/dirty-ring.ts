import { endianness } from 'node:os';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { KvmError } from '../errors.ts';
import { isLittleEndianHost } from '../uapi/arch.ts';
import { DIRTY_GFN, DIRTY_LOG_PAGE_OFFSET, MAP, PROT } from '../uapi/flags.ts';
import { KVM_DIRTY_GFN } from '../uapi/structs.ts';

const TWO_32 = 2 ** 32;

/** An entry's page: the slot word (as_id << 16 | id), and the page's offset in the slot. */
export type DirtyEntry = (slot: number, offset: number) => void;

/** The dirty ring of one vCPU: entries are harvested in order, none skipped. */
export class DirtyRing {
  readonly #calls: KvmCalls;
  readonly #hva: number;
  readonly #bytes: number;
  readonly #view: DataView;
  readonly #words: Int32Array;
  readonly #little: boolean;
  /** The flag as it stands in a word of this process's byte order. */
  readonly #flag: (value: number) => number;
  #next = 0;

  /** @throws KvmError EINVAL, ENOMEM */
  constructor(calls: KvmCalls, vcpu: number, bytes: number) {
    const offset = DIRTY_LOG_PAGE_OFFSET * calls.pageSize;
    const hva = calls.mmap(bytes, PROT.READ | PROT.WRITE, MAP.SHARED, vcpu, offset, 0, 0);
    if (hva < 0) throw new KvmError(hva, { syscall: 'mmap', size: bytes, explanation: 'the dirty ring of a vCPU' });
    const buffer = calls.view(hva, bytes);
    if (typeof buffer === 'number') throw new KvmError(buffer, { syscall: 'view', size: bytes });
    this.#calls = calls;
    this.#hva = hva;
    this.#bytes = bytes;
    this.#view = new DataView(buffer);
    this.#words = new Int32Array(buffer);
    this.#little = isLittleEndianHost(calls.arch);
    const swapped = this.#little !== (endianness() === 'LE');
    this.#flag = (value) => (swapped ? value << 24 : value);
  }

  /** Takes every entry that the kernel has filled, marking it for KVM_RESET_DIRTY_RINGS; how many. */
  harvest(entry: DirtyEntry): number {
    const dirty = this.#flag(DIRTY_GFN.DIRTY);
    const reset = this.#flag(DIRTY_GFN.RESET);
    const entries = this.#bytes / KVM_DIRTY_GFN.size;
    let count = 0;
    for (; count < entries; count++) {
      const at = this.#next * KVM_DIRTY_GFN.size;
      // The load acquires what the kernel wrote before it set the flag, the store releases what was read here.
      if (Atomics.load(this.#words, at / 4) !== dirty) break;
      const slot = this.#view.getUint32(at + KVM_DIRTY_GFN.slot, this.#little);
      const low = this.#view.getUint32(at + KVM_DIRTY_GFN.offset + (this.#little ? 0 : 4), this.#little);
      const high = this.#view.getUint32(at + KVM_DIRTY_GFN.offset + (this.#little ? 4 : 0), this.#little);
      Atomics.store(this.#words, at / 4, reset);
      this.#next = (this.#next + 1) % entries;
      entry(slot, high * TWO_32 + low);
    }
    return count;
  }

  close(): void {
    this.#calls.munmap(this.#hva, this.#bytes);
  }
}
