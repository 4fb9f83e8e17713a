import type { OpenFile } from '../../../emulated/open-file.ts';
import { refusal } from '../../../rules/rule.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { HTAB } from '../../../uapi/flags.ts';
import { HPTE_SIZE, V_HI, V_LO } from '../model/hpte.ts';
import { HTAB_HEADER_SIZE, HTAB_RUN_MAX } from '../model/htab-stream.ts';
import { basePageShift } from '../model/page-sizes.ts';
import { VRMA_VSID } from '../model/slb.ts';
import { HTAB_CHUNK_RULES, HTAB_WRITE_RULES } from '../rules.ts';
import type { HashMmu } from './hash-mmu.ts';

/** Upper half of V of an entry of the virtual real mode area, and what is above the AVPN in the lower half. */
const VRMA_HI = V_HI.B_1T | (VRMA_VSID >>> 8);
const VRMA_LO = (VRMA_VSID << 24) >>> 0;

/** The file descriptor of GET_HTAB_FD, for reading or for writing. */
export class HtabFile implements OpenFile {
  readonly kind = 'htab';
  readonly #mmu: HashMmu;
  readonly #boltedOnly: boolean;
  readonly #writes: boolean;
  #index: number;
  #firstPass = true;

  constructor(mmu: HashMmu, flags: number, startIndex: number) {
    this.#mmu = mmu;
    this.#boltedOnly = (flags & HTAB.BOLTED_ONLY) !== 0;
    this.#writes = (flags & HTAB.WRITE) !== 0;
    this.#index = startIndex;
    if (!this.#writes) mmu.context.readers++;
    mmu.hold();
  }

  released(): void {
    if (!this.#writes) this.#mmu.context.readers--;
    this.#mmu.letGo();
  }

  /** read(2): chunks while one with an entry still fits strictly, up to the end of the table. */
  read(into: Uint8Array): number {
    if (this.#writes) return -ERRNO.EBADF;
    if (this.#mmu.radix) return 0;
    const hpt = this.#mmu.hpt;
    const entryCount = hpt?.entryCount ?? 0;
    const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
    const count = into.byteLength;
    let index = this.#index;
    let at = 0;
    while (at + HTAB_HEADER_SIZE + HPTE_SIZE < count) {
      const header = at;
      at += HTAB_HEADER_SIZE;
      if (!this.#firstPass && hpt !== undefined && index < entryCount) index = hpt.nextDirty(index);
      const start = index;
      while (
        hpt !== undefined &&
        index < entryCount &&
        index - start < HTAB_RUN_MAX &&
        at + HPTE_SIZE < count &&
        hpt.record(index, true, this.#firstPass, this.#boltedOnly)
      ) {
        view.setUint32(at, hpt.vHi);
        view.setUint32(at + 4, hpt.vLo);
        view.setUint32(at + 8, hpt.rHi);
        view.setUint32(at + 12, hpt.rLo);
        at += HPTE_SIZE;
        index++;
      }
      const valid = index - start;
      while (
        hpt !== undefined &&
        index < entryCount &&
        index - start - valid < HTAB_RUN_MAX &&
        hpt.record(index, false, this.#firstPass, this.#boltedOnly)
      ) {
        index++;
      }
      if (index === start) at = header;
      else {
        view.setUint32(header, start, true);
        view.setUint16(header + 4, valid, true);
        view.setUint16(header + 6, index - start - valid, true);
      }
      if (index >= entryCount) {
        index = 0;
        this.#firstPass = false;
        break;
      }
    }
    this.#index = index;
    return at;
  }

  /**
   * write(2): chunks, one after the other, without undoing what was done when one fails. KVM counts the entries of a
   * chunk as consumed but takes the next header from where the entries began; so does this.
   */
  write(from: Uint8Array): number {
    if (!this.#writes) return -ERRNO.EBADF;
    const refused = refusal(HTAB_WRITE_RULES, this.#mmu);
    if (refused !== 0) return refused;
    const write = (): number => this.#writeChunks(new DataView(from.buffer, from.byteOffset, from.byteLength));
    return this.#mmu.hpt?.hostPtes.during(write) ?? write();
  }

  #writeChunks(view: DataView): number {
    const count = view.byteLength;
    let done = 0;
    let at = 0;
    while (done + HTAB_HEADER_SIZE <= count) {
      const index = view.getUint32(at, true);
      const valid = view.getUint16(at + 4, true);
      const invalid = view.getUint16(at + 6, true);
      if (done + valid * HPTE_SIZE > count) break;
      done += HTAB_HEADER_SIZE + valid * HPTE_SIZE;
      at += HTAB_HEADER_SIZE;
      const failed = this.#writeChunk(view, at, index, valid, invalid);
      if (failed !== 0) return failed;
    }
    return done;
  }

  #writeChunk(view: DataView, entries: number, index: number, valid: number, invalid: number): number {
    const { hpt } = this.#mmu;
    const chunk = { index, nValid: valid, nInvalid: invalid, entryCount: hpt?.entryCount ?? 0 };
    const refused = refusal(HTAB_CHUNK_RULES, chunk);
    if (refused !== 0 || hpt === undefined) return refused;
    for (let i = 0; i < valid; i++) {
      const at = entries + i * HPTE_SIZE;
      if (at + HPTE_SIZE > view.byteLength) return -ERRNO.EFAULT;
      const vHi = view.getUint32(at);
      const vLo = view.getUint32(at + 4);
      const rHi = view.getUint32(at + 8);
      const rLo = view.getUint32(at + 12);
      const slot = index + i;
      const baseShift = basePageShift(vLo, rLo);
      if ((vLo & V_LO.VALID) === 0 || baseShift === 0) return -ERRNO.EINVAL;
      if (hpt.isPresent(slot)) hpt.remove(slot);
      if (hpt.enter(true, slot, vHi, vLo, rHi, rLo) !== slot) return -ERRNO.EIO;
      if (!this.#mmu.ready && vHi === VRMA_HI && (vLo & 0xff00_0000) >>> 0 === VRMA_LO) this.#mmu.useVrma(baseShift);
    }
    hpt.removeAll(index + valid, index + valid + invalid);
    return 0;
  }
}
