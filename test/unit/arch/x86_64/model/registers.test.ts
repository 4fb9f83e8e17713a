import { describe, expect, it } from 'vitest';
import {
  decodeRegs,
  decodeSregs,
  encodeRegs,
  encodeSregs,
  X86_64_REGS_BYTES,
  X86_64_SREGS_BYTES,
} from '../../../../../lib/arch/x86_64/model/registers.ts';

/** Bytes of which each is its offset's lowest byte, so that a field tells where it was read. */
const counting = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i);
const at = (offset: number, size: number): bigint =>
  Array.from({ length: size }, (_, i) => BigInt((offset + i) & 0xff) << BigInt(8 * i)).reduce(
    (sum, byte) => sum | byte,
  );

describe('struct kvm_regs', () => {
  it('has its registers where the kernel has them', () => {
    const regs = decodeRegs(counting(X86_64_REGS_BYTES));
    expect(regs).toMatchObject({ rax: at(0, 8), rsp: at(48, 8), rbp: at(56, 8), r8: at(64, 8), rip: at(128, 8) });
    expect(regs.rflags).toBe(at(136, 8));
  });

  it('keeps the registers that are not named', () => {
    const bytes = counting(X86_64_REGS_BYTES);
    encodeRegs(bytes, { rip: 0x1000, rflags: 2n });
    const expected = counting(X86_64_REGS_BYTES);
    new DataView(expected.buffer).setBigUint64(128, 0x1000n, true);
    new DataView(expected.buffer).setBigUint64(136, 2n, true);
    expect(bytes).toEqual(expected);
  });

  it('takes no value that is no u64, and says which register', () => {
    expect(() => encodeRegs(counting(X86_64_REGS_BYTES), { r9: -1 })).toThrow('"regs.r9"');
  });
});

describe('struct kvm_sregs', () => {
  it('has its registers where the kernel has them', () => {
    const sregs = decodeSregs(counting(X86_64_SREGS_BYTES));
    expect(sregs.cs).toMatchObject({ base: at(0, 8), limit: Number(at(8, 4)), selector: Number(at(12, 2)), type: 14 });
    expect(sregs.ldt).toMatchObject({ base: at(168, 8), unusable: 190 });
    expect(sregs.gdt).toEqual({ base: at(192, 8), limit: Number(at(200, 2)) });
    expect(sregs.idt).toEqual({ base: at(208, 8), limit: Number(at(216, 2)) });
    expect(sregs).toMatchObject({ cr0: at(224, 8), cr3: at(240, 8), efer: at(264, 8), apicBase: at(272, 8) });
  });

  it('comes back as it was, and keeps what is not named', () => {
    const bytes = counting(X86_64_SREGS_BYTES);
    const { cs, cr0, gdt } = decodeSregs(bytes);
    encodeSregs(bytes, { cs, cr0, gdt });
    expect(bytes).toEqual(counting(X86_64_SREGS_BYTES));
  });
});
