import type { Arch } from '../../../lib/raw.ts';
import { PPC64 } from './ppc64-faces.ts';
import { S390X } from './s390x-faces.ts';
import { COMMON, type Faces, REGISTERS, X86_64 } from './typed-faces.ts';

/** Memory and what is shared is the same code on every architecture. */
const { kvm, vm, 'vm.io': io, 'vm.memslots': memslots, vcpu, 'vcpu.kvmRun': kvmRun } = COMMON;
const ELSEWHERE = { kvm, vm, 'vm.io': io, 'vm.memslots': memslots, vcpu, 'vcpu.kvmRun': kvmRun } as Faces;

/** Every class of the typed layer, and what its methods take, by the architecture of the VM. */
export const FACES: Readonly<Record<Arch, Faces>> = {
  x86_64: { ...COMMON, ...X86_64 },
  s390x: { ...ELSEWHERE, ...S390X, ...REGISTERS.s390x },
  ppc64: { ...ELSEWHERE, ...PPC64, ...REGISTERS.ppc64 },
  aarch64: { ...ELSEWHERE, ...REGISTERS.aarch64 },
  riscv64: { ...ELSEWHERE, ...REGISTERS.riscv64 },
};
