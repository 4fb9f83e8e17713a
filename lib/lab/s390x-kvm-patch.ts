import { ElfObject, type Section } from './elf.ts';
import { LabError } from './lab-error.ts';

/*
 * QEMU's TCG has no SIE, the instruction that runs a guest, and so the kernel's kvm.ko declines to load. All that this project
 * is about (memslots, MEM_OP, storage keys, CMMA, dirty logs) is plain kernel software and never executes SIE, though.
 * Two instructions of the module's *init* code are changed in the copy that goes into the lab's initramfs. No code
 * that runs after loading is touched, so that every ioctl is answered by the distribution's own binary.
 *
 * 1. Init begins with a test of sclp.has_sief2:
 *        lgrl %r1,sclp@GOTENT;  tm 1(%r1),BIT;  jne …
 *    `tm` (0x91) becomes `oi` (0x96) with the immediate BIT | BIT >> 3, which sets has_sief2 and, three bit-fields after it, has_cmma.
 *    A non-zero result gives condition code 1, so that the branch is taken as if the bit had been found set.
 * 2. Init asks with PLO which PLO functions exist, and TCG has no PLO either. The instruction becomes a six-byte no-op; the
 *    condition code left by the OILL before it then says "not available" for each of them.
 *
 * Every assumption is checked before a byte is written: a kernel that was compiled differently is refused, not mangled.
 */

const EM_S390 = 22;
const R_390_GOTENT = 26;

const TM = 0x91;
const OI = 0x96;
/** The bit of has_sief2 in the byte at offset 1 of `sclp`: 6.12 and 6.1. */
const HAS_SIEF2_BITS: readonly number[] = [0x40, 0x80];
/** has_cmma is declared three bit-fields after has_sief2. */
const HAS_CMMA_SHIFT = 3;

/** plo %r0,0(%r0),%r0,0(%r0): the operands do not matter, as the function code's test bit is on. */
const PLO = Buffer.from('ee0000000000', 'hex');
/** What uses PLO's condition code next: ipm, or brc 7. */
const AFTER_PLO: readonly string[] = ['b222', 'a774'];
/** oill %rX,0x100 sets PLO's test bit. Its result is never zero, hence condition code 1, which no instruction up to the PLO changes. */
const TEST_BIT_ON = /a5[0-9a-f]b0100(b9140[0-9a-f]{3}|b9040[0-9a-f]{3})*$/;
/** oill, lgfr and lgr. */
const TEST_BIT_ON_BYTES = 12;
/** The functions that run while the module is loaded, and at no other time. On 6.1 not all of these are marked __init. */
const INIT_FUNCTIONS: readonly string[] = ['init_module', 'kvm_arch_init', 'kvm_s390_init', 'kvm_s390_cpu_feat_init'];
/** brcl 0,0: a branch that is never taken, as long as PLO. */
const SIX_BYTE_NOP = Buffer.from('c00400000000', 'hex');

/**
 * A copy of the kernel's kvm.ko for s390x that loads on a machine without SIE.
 *
 * @param module the module, without a signature
 * @throws LabError naming the assumption that does not hold; nothing is changed then
 */
export function patchS390xKvm(module: Uint8Array): Uint8Array {
  const elf = new ElfObject(module);
  check(elf.machine === EM_S390 && !elf.littleEndian, 'it is not an s390x module');
  const text = elf.section('.init.text');
  const code = Buffer.from(elf.content(text));
  const tm = findFacilityTest(elf, text, code);
  const plo = findPlo(elf);

  const patched = Buffer.from(module);
  const bit = code[tm + 1]!;
  patched[text.offset + tm] = OI;
  patched[text.offset + tm + 1] = bit | (bit >> HAS_CMMA_SHIFT);
  SIX_BYTE_NOP.copy(patched, plo);
  return patched;
}

/** Offset in the init code of the `tm` that tests has_sief2. */
function findFacilityTest(elf: ElfObject, text: Section, code: Buffer): number {
  const rela = elf.section('.rela.init.text');
  check(rela.info === text.index, '.rela.init.text does not belong to .init.text');
  const first = elf.relocations(rela).find((each) => each.symbol === 'sclp');
  check(first !== undefined && first.type === R_390_GOTENT, 'its init code does not load the address of sclp');
  // The relocation is that of the address field, two bytes into the six-byte lgrl.
  const lgrl = first!.offset - 2;
  const tm = first!.offset + 4;
  check(lgrl >= 0 && tm + 8 <= code.length, 'the relocation of sclp lies outside its init code');
  const register = code[lgrl + 1]! >> 4;
  check(code[lgrl] === 0xc4 && (code[lgrl + 1]! & 0x0f) === 8, 'sclp is not loaded with lgrl');
  check(code[tm] === TM && HAS_SIEF2_BITS.includes(code[tm + 1]!), 'it does not test has_sief2 with tm');
  check(code.readUInt16BE(tm + 2) === ((register << 12) | 1), 'has_sief2 is not in the byte at sclp + 1');
  check(code.readUInt16BE(tm + 4) === 0xa774, 'the test of has_sief2 is not followed by jne');
  return tm;
}

/** File offset of the only PLO, which must be in a function that runs only while the module is loaded. */
function findPlo(elf: ElfObject): number {
  const found: number[] = [];
  for (const section of [elf.section('.init.text'), elf.section('.text')]) {
    const code = Buffer.from(elf.content(section));
    const functions = elf.functions(section).filter((each) => INIT_FUNCTIONS.includes(each.name));
    for (let at = code.indexOf(PLO); at >= 0; at = code.indexOf(PLO, at + 1)) {
      const next = code.subarray(at + PLO.length, at + PLO.length + 2).toString('hex');
      if (at % 2 !== 0 || !AFTER_PLO.includes(next)) continue;
      const isInit = functions.some(({ offset, size }) => offset <= at && at + PLO.length <= offset + size);
      check(isInit, 'it uses PLO outside its init code');
      const before = code.subarray(Math.max(0, at - TEST_BIT_ON_BYTES), at).toString('hex');
      check(TEST_BIT_ON.test(before), 'its PLO is not preceded by the instruction that sets the test bit');
      found.push(section.offset + at);
    }
  }
  check(found.length === 1, `it has ${found.length} PLO instructions, not one`);
  return found[0]!;
}

function check(holds: boolean, otherwise: string): void {
  if (!holds)
    throw new LabError(`This kernel's kvm.ko is not one that the lab knows how to load without SIE: ${otherwise}.`);
}
