import { expect, it } from 'vitest';
import { decodeSregs, encodeSregs, type X86_64Segment } from '../../../../../lib/arch/x86_64/model/registers.ts';
import { EmulatedKernel } from '../../../../../lib/backends/emulated.ts';
import { REGS_SIZE } from '../../../../../lib/uapi/structs.ts';

/** What GET_SREGS gives of segments after SET_SREGS. */
function kept(svm: boolean, name: 'cs' | 'ds' | 'ss' | 'tr' | 'ldt', change: Partial<X86_64Segment>): X86_64Segment {
  const kernel = new EmulatedKernel({ arch: 'x86_64', x86_64: { svm } });
  const vcpu = kernel.createVcpu(kernel.createVm(kernel.openKvm(), 0), 0);
  const bytes = new Uint8Array(REGS_SIZE.x86_64.sregs!);
  kernel.getSregs(vcpu, bytes);
  encodeSregs(bytes, { [name]: { ...decodeSregs(bytes)[name], ...change } });
  expect(kernel.setSregs(vcpu, bytes)).toBe(0);
  expect(kernel.getSregs(vcpu, bytes)).toBe(0);
  return decodeSregs(bytes)[name];
}

// `svm_set_segment` and `svm_get_segment` of arch/x86/kvm/svm/svm.c; npm run fuzz -- --lab --topic registers asks the real one (6.12).
it.each([
  ['cs', { limit: 0xf_ffff, g: 1 }, { g: 0 }],
  ['cs', { limit: 0x10_0000, g: 0 }, { g: 1 }],
  ['cs', { type: 0x1b, dpl: 7, avl: 2, db: 3 }, { type: 0xb, dpl: 3, avl: 0, db: 1 }],
  ['ds', { type: 2 }, { type: 3 }],
  ['ds', { type: 2, present: 0 }, { type: 2, present: 0, unusable: 1 }],
  ['ds', { type: 2, unusable: 1 }, { type: 2, present: 0, unusable: 1 }],
  ['ss', { db: 1 }, { db: 1 }],
  ['ss', { db: 1, present: 0 }, { db: 0, present: 0, unusable: 1 }],
  ['tr', { type: 9 }, { type: 0xb }],
  ['ldt', { type: 0, present: 2 }, { type: 0, present: 0, unusable: 1 }],
] as const)('SVM keeps of %s with %o what it has room for', (name, change, expected) => {
  expect(kept(true, name, change)).toMatchObject(expected);
  expect(kept(false, name, change)).toMatchObject(change);
});
