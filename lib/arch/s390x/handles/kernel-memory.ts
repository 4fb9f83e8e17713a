import { checkInteger } from '../../../base/arguments.ts';
import type { S390xCalls } from '../../../calls/kvm-calls.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { MEMOP, MEMOP_FLAG } from '../../../uapi/flags.ts';
import type { AbsoluteMemory } from '../model/memory.ts';
import { PGM_ADDRESSING } from '../model/program-interruption.ts';
import { addressOf, PFN_LIMIT } from '../model/u64.ts';

const PAGE = 4096;

const checkPfn = (pfn: number): number => checkInteger(pfn, 'pfn', 0, Number.MAX_SAFE_INTEGER);

/**
 * A VM's absolute storage as the kernel shows it through KVM_S390_MEM_OP (5.18 and later): whatever memslots there are.
 * Pages are read once and kept, so that a walk over thousands of entries costs a call per table. What it says is of
 * the moment when a page was first read.
 */
export class KernelMemory implements AbsoluteMemory {
  hi = 0;
  lo = 0;
  readonly #s390x: S390xCalls;
  readonly #vm: number;
  readonly #pages = new Map<number, DataView | number>();

  constructor(s390x: S390xCalls, vm: number) {
    this.#s390x = s390x;
    this.#vm = vm;
  }

  readDoubleword(pfn: number, offset: number): number {
    checkInteger(offset, 'offset', 0, PAGE - 8);
    const page = this.#page(pfn);
    if (typeof page === 'number') return page;
    this.hi = page.getUint32(offset);
    this.lo = page.getUint32(offset + 4);
    return 0;
  }

  hasFrame(pfn: number): boolean {
    const found = this.#pages.get(pfn);
    if (found !== undefined) return found !== PGM_ADDRESSING;
    if (checkPfn(pfn) >= PFN_LIMIT) return false;
    return this.#memOp(pfn, MEMOP_FLAG.CHECK_ONLY, null) !== PGM_ADDRESSING;
  }

  #page(pfn: number): DataView | number {
    let page = this.#pages.get(pfn);
    if (page === undefined) {
      const bytes = new Uint8Array(PAGE);
      const result = checkPfn(pfn) >= PFN_LIMIT ? PGM_ADDRESSING : this.#memOp(pfn, 0, bytes);
      // Memory that the host lacks looks protected, up to 6.19.
      page = result === 0 ? new DataView(bytes.buffer) : result === PGM_ADDRESSING ? result : -ERRNO.EFAULT;
      this.#pages.set(pfn, page);
    }
    return page;
  }

  #memOp(pfn: number, flags: number, bytes: Uint8Array | null): number {
    return this.#s390x.memOp(this.#vm, MEMOP.ABSOLUTE_READ, addressOf(pfn), PAGE, flags, bytes, 0, 0, null, 0);
  }
}
