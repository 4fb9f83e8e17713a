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

  // asm/kvm.h: eight segments of 24 bytes, two tables of 16, then the control registers, 8 bytes each.
  const SEGMENTS = ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'tr', 'ldt'] as const;
  const FLAGS = ['type', 'present', 'dpl', 'db', 's', 'l', 'g', 'avl', 'unusable'] as const;
  const CONTROL = { cr0: 224, cr2: 232, cr3: 240, cr4: 248, cr8: 256, efer: 264, apicBase: 272 } as const;

  it.each(SEGMENTS.map((name, i) => [name, 24 * i] as const))('has %s alone set at %i', (name, at) => {
    const bytes = new Uint8Array(X86_64_SREGS_BYTES);
    const flags = Object.fromEntries(FLAGS.map((flag, i) => [flag, i + 1])) as Record<(typeof FLAGS)[number], number>;
    const segment = { base: 0x1122_3344_5566_7788n, limit: 0xffff_fffe, selector: 0xfffd, ...flags };
    encodeSregs(bytes, { [name]: segment });
    const expected = new Uint8Array(X86_64_SREGS_BYTES);
    expected.set([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xfe, 0xff, 0xff, 0xff, 0xfd, 0xff], at);
    expected.set([1, 2, 3, 4, 5, 6, 7, 8, 9], at + 14);
    expect(bytes).toEqual(expected);
    expect(decodeSregs(bytes)[name]).toEqual(segment);
  });

  it.each([
    ['gdt', 192],
    ['idt', 208],
  ] as const)('has %s alone set at %i', (name, at) => {
    const bytes = new Uint8Array(X86_64_SREGS_BYTES);
    encodeSregs(bytes, { [name]: { base: 0x8070_6050_4030_2010n, limit: 0xfffe } });
    const expected = new Uint8Array(X86_64_SREGS_BYTES);
    expected.set([0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0xfe, 0xff], at);
    expect(bytes).toEqual(expected);
    expect(decodeSregs(bytes)[name]).toEqual({ base: 0x8070_6050_4030_2010n, limit: 0xfffe });
  });

  it.each(Object.entries(CONTROL))('has %s alone set at %i', (name, at) => {
    const bytes = new Uint8Array(X86_64_SREGS_BYTES);
    encodeSregs(bytes, { [name]: 0x0102_0304_0506_0708n });
    const expected = new Uint8Array(X86_64_SREGS_BYTES);
    expected.set([8, 7, 6, 5, 4, 3, 2, 1], at);
    expect(bytes).toEqual(expected);
  });

  it('keeps what is not named', () => {
    const bytes = counting(X86_64_SREGS_BYTES);
    encodeSregs(bytes, { cr3: 0n });
    const expected = counting(X86_64_SREGS_BYTES);
    expected.fill(0, 240, 248);
    expect(bytes).toEqual(expected);
  });

  it('is read and written where it lies in a larger buffer', () => {
    const whole = new Uint8Array(X86_64_SREGS_BYTES + 16);
    const bytes = whole.subarray(8, 8 + X86_64_SREGS_BYTES);
    encodeSregs(bytes, { cr0: 1n });
    expect(whole[8 + CONTROL.cr0]).toBe(1);
    expect(decodeSregs(bytes).cr0).toBe(1n);
  });

  const SEGMENT = decodeSregs(new Uint8Array(X86_64_SREGS_BYTES)).cs;
  const WRONG: readonly (readonly [sregs: unknown, name: string])[] = [
    [undefined, '"sregs"'],
    [{ tr: null }, '"sregs.tr"'],
    [{ tr: { ...SEGMENT, base: -1n } }, '"sregs.tr.base"'],
    [{ tr: { ...SEGMENT, limit: 2 ** 32 } }, '"sregs.tr.limit"'],
    [{ tr: { ...SEGMENT, selector: 0x1_0000 } }, '"sregs.tr.selector"'],
    ...FLAGS.map((flag) => [{ tr: { ...SEGMENT, [flag]: 0x100 } }, `"sregs.tr.${flag}"`] as const),
    [{ efer: 2n ** 64n }, '"sregs.efer"'],
    [{ idt: 0 }, '"sregs.idt"'],
    [{ idt: { base: -1, limit: 0 } }, '"sregs.idt.base"'],
    [{ idt: { base: 0n, limit: 0x1_0000 } }, '"sregs.idt.limit"'],
  ];
  it.each(WRONG)('is refused with the name of what does not fit: %o', (sregs, name) => {
    const bytes = new Uint8Array(X86_64_SREGS_BYTES);
    expect(() => encodeSregs(bytes, sregs as never)).toThrow(name);
    expect(bytes).toEqual(new Uint8Array(X86_64_SREGS_BYTES));
  });
});
