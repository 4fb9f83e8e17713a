/** What KVM leaves in the registers of a new x86_64 vCPU, and which it lets user space set. */

import { X86_64_REGS } from '../../../uapi/structs.ts';
import { decodeSregs, encodeRegs, encodeSregs, type X86_64Segment } from '../model/registers.ts';

const LIMIT = 0xffff;
/** Types of segments: code that may be read, data that may be written, a busy 16-bit TSS and an LDT; and that it was used. */
const TYPE = { CODE: 0xa, DATA: 2, TSS: 3, LDT: 2, ACCESSED: 1 } as const;
/** A busy 32-bit TSS, which is what VMX wants. */
const VMX_TSS = 0xb;
/** The processor's signature in EDX, when nobody has set its CPUID. */
const SIGNATURE = 0x600n;
const RESET_VECTOR = 0xfff0n;
/** The bit of RFLAGS that is always 1. */
const RFLAGS_FIXED = 2n;
const APIC_BASE = 0xfee0_0800n;
const APIC_BASE_BSP = 0x100n;

const CR0 = { PE: 1n, ET: 0x10n, NW: 0x2000_0000n, CD: 0x4000_0000n, PG: 0x8000_0000n } as const;
const CR4_PAE = 0x20n;
const EFER = { LME: 0x100n, LMA: 0x400n } as const;

const RFLAGS_AT = 8 * X86_64_REGS.indexOf('rflags');

/** The reset state, with the segments as SVM or VMX keep them. */
export function resetRegisters(regs: Uint8Array, sregs: Uint8Array, id: number, svm: boolean): void {
  encodeRegs(regs, { rip: RESET_VECTOR, rflags: RFLAGS_FIXED, rdx: SIGNATURE });
  const data = segment(TYPE.DATA | TYPE.ACCESSED, 1);
  encodeSregs(sregs, {
    cs: { ...segment(svm ? TYPE.CODE : TYPE.CODE | TYPE.ACCESSED, 1), base: 0xffff_0000n, selector: 0xf000 },
    ds: data,
    es: data,
    fs: data,
    gs: data,
    ss: svm ? segment(TYPE.DATA, 1) : data,
    tr: segment(svm ? TYPE.TSS : VMX_TSS, 0),
    ldt: segment(TYPE.LDT, 0),
    gdt: { base: 0n, limit: LIMIT },
    idt: { base: 0n, limit: LIMIT },
    cr0: CR0.CD | CR0.NW | CR0.ET,
    apicBase: id === 0 ? APIC_BASE | APIC_BASE_BSP : APIC_BASE,
  });
}

function segment(type: number, s: number): X86_64Segment {
  return { base: 0n, limit: LIMIT, selector: 0, type, present: 1, dpl: 0, db: 0, s, l: 0, g: 0, avl: 0, unusable: 0 };
}

/** After SET_REGS. */
export function fixFlags(regs: Uint8Array): void {
  regs[RFLAGS_AT]! |= Number(RFLAGS_FIXED);
}

/** Whether SET_SREGS takes them: modes and control bits that go together. */
export function isValid(bytes: Uint8Array): boolean {
  const { cr0, cr4, efer, cs } = decodeSregs(bytes);
  const has = (register: bigint, bits: bigint): boolean => (register & bits) !== 0n;
  if (has(efer, EFER.LME) && has(cr0, CR0.PG)) {
    if (!has(cr4, CR4_PAE) || !has(efer, EFER.LMA)) return false;
  } else if (has(efer, EFER.LMA) || cs.l !== 0) return false;
  if (cr0 > 0xffff_ffffn || (has(cr0, CR0.NW) && !has(cr0, CR0.CD))) return false;
  return !has(cr0, CR0.PG) || has(cr0, CR0.PE);
}
