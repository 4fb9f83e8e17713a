import type { KvmCalls } from '../../../lib/calls/kvm-calls.ts';
import { MP_STATE } from '../../../lib/uapi/flags.ts';
import { KVM_SEGMENT, KVM_SREGS_X86_64, REGS_SIZE, X86_64_REGS } from '../../../lib/uapi/structs.ts';
import { ONE_REGS } from '../../scenarios/registers.ts';
import { type Kinds, list, n, type Operation } from './kind.ts';

/** Some bits become others. */
function flip(bytes: Uint8Array, o: Operation['operands'], isKnown: (at: number, bit: number) => boolean): void {
  for (const one of list(o, 0)) {
    const [at, bit] = [(one >>> 3) % bytes.length, one & 7];
    if (isKnown(at, bit)) bytes[at]! ^= 1 << bit;
  }
}

const RFLAGS_AT = 8 * X86_64_REGS.indexOf('rflags');
const { gdt: SEGMENTS_END, cr4: CR4_AT, efer: EFER_AT } = KVM_SREGS_X86_64;
/** UMIP, LA57, VMXE, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP, PKE, CET, LAM_SUP, FRED: it depends on the processor whether CR4 may have them. */
const CR4_OF_PROCESSORS: readonly number[] = [11, 12, 13, 16, 17, 18, 20, 21, 22, 23, 28, 32];

/** Virtual-8086 mode: kvm_pvm, which has none, drops the flag. */
const isKnownFlag = (at: number, bit: number): boolean => at !== RFLAGS_AT + 2 || bit !== 1;

/**
 * What is kept of segments' attributes is emulated of SVM only; and of no processor which bits of CR4 it has, or of EFER, which newer kernels (6.12.117,
 * 7.2; not 6.1) take as the vCPU's CPUID has them.
 */
function isKnownOfX86(at: number, bit: number, svm: boolean): boolean {
  // The last byte is padding.
  if (at < SEGMENTS_END) return at % KVM_SEGMENT.structSize < (svm ? KVM_SEGMENT.structSize - 1 : KVM_SEGMENT.type);
  if (at >= EFER_AT && at < EFER_AT + 8) return false;
  return at < CR4_AT || at >= CR4_AT + 8 || !CR4_OF_PROCESSORS.includes(8 * (at - CR4_AT) + bit);
}

function registers(calls: KvmCalls, vcpu: number, which: 'Regs' | 'Sregs', change: (bytes: Uint8Array) => void): void {
  const size = (which === 'Regs' ? REGS_SIZE[calls.arch].regs : REGS_SIZE[calls.arch].sregs) ?? 8;
  const get = (): Uint8Array => {
    const bytes = new Uint8Array(size);
    calls[`get${which}`](vcpu, bytes);
    return bytes;
  };
  const bytes = get();
  change(bytes);
  calls[`set${which}`](vcpu, bytes);
  get();
}

/** A vCPU's registers and its state. */
export const REGISTERS: Kinds = {
  regs: {
    weight: 8,
    make: (random) => [Array.from({ length: 1 + random.below(8) }, () => random.below(2 ** 14))],
    apply: ({ s: { calls }, vcpu }, o) => {
      const isKnown = calls.arch === 'x86_64' ? isKnownFlag : () => true;
      registers(calls, vcpu, 'Regs', (bytes) => flip(bytes, o, isKnown));
    },
  },
  sregs: {
    weight: 16,
    make: (random) => [Array.from({ length: 1 + random.below(3) }, () => random.below(2 ** 14))],
    apply: ({ s: { calls }, vcpu, emulate }, o) => {
      const svm = emulate.x86_64?.svm === true;
      const isKnown = (at: number, bit: number): boolean => calls.arch !== 'x86_64' || isKnownOfX86(at, bit, svm);
      registers(calls, vcpu, 'Sregs', (bytes) => flip(bytes, o, isKnown));
    },
  },
  mpState: {
    weight: 6,
    make: (random) => [random.pick([...Object.values(MP_STATE), 11, 0xffff])],
    apply: ({ s: { calls }, vcpu }, o) => {
      calls.setMpState(vcpu, n(o, 0));
      calls.getMpState(vcpu);
    },
  },
  oneReg: {
    weight: 10,
    make: (random) => [random.below(64), random.bytes(8)],
    apply: ({ s: { calls }, vcpu }, o) => {
      const ids = [0n, ...ONE_REGS[calls.arch]];
      const id = ids[n(o, 0) % ids.length]!;
      calls.setOneReg(vcpu, id, Uint8Array.from(list(o, 1)));
      calls.getOneReg(vcpu, id, new Uint8Array(8));
    },
  },
};
