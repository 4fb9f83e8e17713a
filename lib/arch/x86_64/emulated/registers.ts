/** What KVM leaves in the registers of a new x86_64 vCPU, and which it lets user space set. */

import { KVM_SREGS_X86_64, X86_64_REGS, X86_64_SEGMENTS } from '../../../uapi/structs.ts';
import { decodeSregs, encodeRegs, encodeSregs, type X86_64Segment, type X86_64Sregs } from '../model/registers.ts';

const LIMIT = 0xffff;
/** Types of segments: code that may be read, data that may be written, a busy 16-bit TSS and an LDT; and that it was used. */
const TYPE = { CODE: 0xa, DATA: 2, TSS: 3, LDT: 2, ACCESSED: 1, BUSY: 2 } as const;
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
/** Those that no kernel knows: SMXE, KL, and bits that mean nothing. */
const CR4_RESERVED = ~0x1_10f7_3fffn & (2n ** 64n - 1n);
/** The local APIC's base: its low bits, and x2APIC, which a vCPU without a CPUID has not; and what is beyond the addresses of such a one. */
const APIC_BASE_RESERVED = 0x6ffn;
const NO_ADDRESS = (2n ** 64n - 1n) & ~0xf_ffff_ffffn;
const EFER = { LME: 0x100n, LMA: 0x400n } as const;

/** Segments as `svm_set_segment` puts them away, and `svm_get_segment` gives them back. */
function segmentsOfSvm(sregs: X86_64Sregs): Partial<X86_64Sregs> {
  return Object.fromEntries(
    X86_64_SEGMENTS.map((name) => {
      const { base, limit, selector, type, s, dpl, avl, l, db, present, unusable } = sregs[name];
      const isPresent = (present & 1) !== 0 && unusable === 0;
      const isData = isPresent && ['ds', 'es', 'fs', 'gs'].includes(name);
      const kept: X86_64Segment = {
        ...{ base, limit, selector },
        type: (type & 0xf) | (name === 'tr' ? TYPE.BUSY : 0) | (isData ? TYPE.ACCESSED : 0),
        s: s & 1,
        dpl: dpl & 3,
        avl: avl & 1,
        l: l & 1,
        db: name === 'ss' && !isPresent ? 0 : db & 1,
        present: isPresent ? 1 : 0,
        g: limit > 0xf_ffff ? 1 : 0,
        unusable: isPresent ? 0 : 1,
      };
      return [name, kept];
    }),
  );
}

const { cr8: CR8_AT, interrupt_bitmap: INTERRUPTS_AT } = KVM_SREGS_X86_64;
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

/**
 * Whether SET_SREGS takes them: modes, control bits and addresses that go together (`kvm_is_valid_sregs`, `kvm_set_apic_base`). Bits of CR4
 * and EFER that depend on the processor and on the vCPU's CPUID are taken on all.
 */
export function isValid(bytes: Uint8Array): boolean {
  const { cr0, cr3, cr4, efer, cs, apicBase } = decodeSregs(bytes);
  const has = (register: bigint, bits: bigint): boolean => (register & bits) !== 0n;
  if (has(efer, EFER.LME) && has(cr0, CR0.PG)) {
    if (!has(cr4, CR4_PAE) || !has(efer, EFER.LMA) || has(cr3, NO_ADDRESS)) return false;
  } else if (has(efer, EFER.LMA) || cs.l !== 0) return false;
  if (cr0 > 0xffff_ffffn || (has(cr0, CR0.NW) && !has(cr0, CR0.CD))) return false;
  if (has(cr0, CR0.PG) && !has(cr0, CR0.PE)) return false;
  return !has(cr4, CR4_RESERVED) && !has(apicBase, APIC_BASE_RESERVED | NO_ADDRESS);
}

/**
 * What is kept of registers that SET_SREGS took: of the task priority a valid one, and the first interrupt that is pending. Of segments what
 * SVM keeps; VMX is taken to keep them as they are.
 */
export function keepSregs(bytes: Uint8Array, before: Uint8Array, svm: boolean): void {
  if (svm) encodeSregs(bytes, segmentsOfSvm(decodeSregs(bytes)));
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  for (const table of [KVM_SREGS_X86_64.gdt, KVM_SREGS_X86_64.idt]) bytes.fill(0, table + 10, table + 16);
  if (view.getBigUint64(CR8_AT, true) > 0xfn) bytes.set(before.subarray(CR8_AT, CR8_AT + 8), CR8_AT);
  const first = bytes.findIndex((byte, at) => at >= INTERRUPTS_AT && byte !== 0);
  if (first < 0) bytes.set(before.subarray(INTERRUPTS_AT), INTERRUPTS_AT);
  else {
    const lowest = bytes[first]! & -bytes[first]!;
    bytes.fill(0, INTERRUPTS_AT);
    bytes[first] = lowest;
  }
}
