import type { KvmCalls } from '../../calls/kvm-calls.ts';
import { CAP } from '../../uapi/capabilities.ts';
import { S390_VM_ATTRIBUTE } from '../../uapi/flags.ts';
import type { ArchParts } from '../parts.ts';
import { s390xArchitecture } from './emulated/architecture.ts';
import { s390xMemslotRules } from './rules.ts';

export const s390x: ArchParts = {
  emulated: (release) => s390xArchitecture(release),
  // The kernels with KEYOP, 7.0 and later, are those with page tables of KVM's own.
  memslotRules: (calls, vm) =>
    s390xMemslotRules(calls.checkExtension(vm, CAP.S390_KEYOP) === 0, () => memoryLimit(calls, vm)),
};

/** The highest guest address + 1. */
function memoryLimit(calls: KvmCalls, vm: number): bigint {
  const limit = new Uint8Array(8);
  const result = calls.getDeviceAttr(vm, ...S390_VM_ATTRIBUTE.MEM_LIMIT_SIZE, limit);
  return result < 0 ? 1n << 64n : new DataView(limit.buffer).getBigUint64(0);
}
