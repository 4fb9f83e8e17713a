import { GuestFault } from '../../../emulated/guest.ts';
import type { EmulatedVcpu } from '../../../emulated/vcpu.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { ONE_REG } from '../../../uapi/flags.ts';
import { KVM_REGS_PPC64 } from '../../../uapi/structs.ts';
import { frameOf, V_LO } from '../model/hpte.ts';
import { shiftOf } from '../model/page-sizes.ts';
import { type AccessKind, denialOf, type ProtectionContext, protectionContext } from '../model/protection.ts';
import { NOT_FOUND, searchHpte } from '../model/search.ts';
import { type Segment, slbOfSregs } from '../model/slb.ts';
import type { HashMmu } from './hash-mmu.ts';
import type { Hpt } from './hpt.ts';
import { DSISR, INTERRUPT } from './interrupts.ts';

const MSR_PR = 0x4000;
const MSR_DR = 0x10;
const MSR_IR = 0x20;

const realMode = protectionContext();

/** Translates a scripted guest's accesses through the hashed page table, as the processor and KVM do together. */
export class GuestAccess {
  readonly #vcpu: EmulatedVcpu;
  readonly #mmu: HashMmu;
  /** The registers last seen, and the SLB in them. */
  #sregs: Buffer = Buffer.alloc(0);
  #segments: readonly Segment[] = [];

  constructor(vcpu: EmulatedVcpu, mmu: HashMmu) {
    this.#vcpu = vcpu;
    this.#mmu = mmu;
    vcpu.oneRegs.set(ONE_REG.PPC_AMR, new Uint8Array(8));
    vcpu.oneRegs.set(ONE_REG.PPC_UAMOR, new Uint8Array(8));
    vcpu.oneRegs.set(ONE_REG.PPC_DAR, new Uint8Array(8));
    vcpu.oneRegs.set(ONE_REG.PPC_DSISR, new Uint8Array(4));
  }

  /** DAR and DSISR: what the last data storage interrupt was about. */
  get dar(): bigint {
    return this.#register(ONE_REG.PPC_DAR).getBigUint64(0, true);
  }

  get dsisr(): bigint {
    return BigInt(this.#register(ONE_REG.PPC_DSISR).getUint32(0, true));
  }

  /** A data storage interrupt, to be thrown. */
  dataStorage(ea: number, why: number, store: boolean, what: string): GuestFault {
    this.#register(ONE_REG.PPC_DAR).setBigUint64(0, BigInt(ea), true);
    this.#register(ONE_REG.PPC_DSISR).setUint32(0, why | (store ? DSISR.STORE : 0), true);
    return new GuestFault(INTERRUPT.DATA_STORAGE, what);
  }

  /** A guest physical address, or −errno for KVM_RUN. What the guest itself sees is a GuestFault, thrown. */
  translate(ea: number, access: AccessKind): number {
    const { hpt } = this.#mmu;
    // A radix VM has none, and no other is entered without.
    if (hpt === undefined) return ea;
    const msr = this.#view(this.#vcpu.regs).getUint32(KVM_REGS_PPC64.msr, true);
    const relocated = (msr & (access === 'fetch' ? MSR_IR : MSR_DR)) !== 0;
    const eaHi = Math.floor(ea / 2 ** 32);
    const eaLo = ea >>> 0;
    const seg = relocated ? this.#readSlb().find((entry) => entry.covers(eaHi, eaLo)) : this.#mmu.vrma;
    if (seg === undefined) throw this.#noSegment(ea, access);
    const context = relocated ? this.#context((msr & MSR_PR) !== 0) : realMode;
    for (;;) {
      const answer = this.#attempt(hpt, seg, context, ea, eaHi, eaLo, access);
      if (answer !== undefined) return answer;
    }
  }

  /** One execution of the instruction: the address, or undefined after a fault that KVM resolved: the guest tries again. */
  #attempt(
    hpt: Hpt,
    seg: Segment,
    context: ProtectionContext,
    ea: number,
    eaHi: number,
    eaLo: number,
    access: AccessKind,
  ): number | undefined {
    const store = access === 'store';
    let slot = searchHpte(hpt.real, seg, eaHi, eaLo);
    if (slot !== NOT_FOUND && denialOf(seg, hpt.real.rHi(slot), hpt.real.rLo(slot), access, context) === undefined) {
      const gpa = guestPhysical(hpt, slot, ea);
      if (this.#hostHas(gpa, store)) {
        hpt.use(slot, store);
        return gpa;
      }
      // The host took the page away, which a real one tells KVM at once.
      hpt.unmap(slot);
    }
    if (slot === NOT_FOUND) slot = searchHpte(hpt.real, seg, eaHi, eaLo, V_LO.VALID | V_LO.ABSENT);
    const where = `0x${ea.toString(16)}`;
    if (slot === NOT_FOUND) throw this.#storage(ea, access, DSISR.NO_HPTE, `no page table entry for ${where}`);
    const denied = denialOf(seg, hpt.shadowHi(slot), hpt.shadowLo(slot), access, context);
    if (denied !== undefined) {
      const why = denied === 'key' ? DSISR.KEY : DSISR.PROTECTION;
      throw this.#storage(ea, access, why, `${access} at ${where} is denied: ${denied}`);
    }
    return this.#hostFault(hpt, slot, guestPhysical(hpt, slot, ea), store);
  }

  #storage(ea: number, access: AccessKind, why: number, what: string): GuestFault {
    if (access === 'fetch') return new GuestFault(INTERRUPT.INSTRUCTION_STORAGE, what);
    return this.dataStorage(ea, why, access === 'store', what);
  }

  #noSegment(ea: number, access: AccessKind): GuestFault {
    const what = `no segment for 0x${ea.toString(16)}`;
    if (access === 'fetch') return new GuestFault(INTERRUPT.INSTRUCTION_SEGMENT, what);
    this.#register(ONE_REG.PPC_DAR).setBigUint64(0, BigInt(ea), true);
    return new GuestFault(INTERRUPT.DATA_SEGMENT, what);
  }

  /** KVM's fault handler: maps the host's page, or finds that there is none and the access is emulated. */
  #hostFault(hpt: Hpt, slot: number, gpa: number, store: boolean): number | undefined {
    const { vm } = this.#vcpu;
    const gfn = this.#gfn(gpa);
    const memslot = vm.usableSlot(gfn);
    if (memslot === undefined) return gpa;
    if (2 ** shiftAt(hpt, slot) > vm.pageSize || !this.#hostHas(gpa, store)) return -ERRNO.EFAULT;
    hpt.map(slot, memslot, this.#hostHas(gpa, true));
    return undefined;
  }

  #gfn(gpa: number): number {
    return Math.floor(gpa / this.#vcpu.vm.pageSize);
  }

  /** Of memory that has a slot, as that of every valid entry does. */
  #hostHas(gpa: number, write: boolean): boolean {
    const { vm } = this.#vcpu;
    const gfn = this.#gfn(gpa);
    return vm.memory.canAccess(vm.hostAddress(vm.usableSlot(gfn)!, gfn), write);
  }

  #context(problemState: boolean): ProtectionContext {
    return protectionContext({ problemState, amr: this.#register(ONE_REG.PPC_AMR).getBigUint64(0, true) });
  }

  #readSlb(): readonly Segment[] {
    const { sregs } = this.#vcpu;
    if (!this.#sregs.equals(sregs)) {
      this.#sregs = Buffer.from(sregs);
      this.#segments = slbOfSregs(sregs);
    }
    return this.#segments;
  }

  #register(id: bigint): DataView {
    return this.#view(this.#vcpu.oneRegs.get(id)!);
  }

  #view(bytes: Uint8Array): DataView {
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
}

const shiftAt = (hpt: Hpt, slot: number): number => shiftOf(hpt.real.vLo(slot), hpt.shadowLo(slot));

function guestPhysical(hpt: Hpt, slot: number, ea: number): number {
  const shift = shiftAt(hpt, slot);
  return frameOf(hpt.shadowHi(slot), hpt.shadowLo(slot), shift) * 4096 + (ea % 2 ** shift);
}
