import { CAP } from '../../uapi/capabilities.ts';
import type { ArchParts } from '../parts.ts';
import { riscv64Architecture } from './emulated/architecture.ts';
import { riscv64MemslotRules } from './rules.ts';

export const riscv64: ArchParts = {
  emulated: (release) => riscv64Architecture(release),
  memslotRules: (calls, vm) => riscv64MemslotRules(calls.checkExtension(vm, CAP.VM_GPA_BITS)),
};
