import { checkU64 } from '../../../base/arguments.ts';
import type { U64 } from '../../../base/u64.ts';
import { type Callee, callFailure } from '../../../calls/failure.ts';
import type { X86_64Calls } from '../../../calls/kvm-calls.ts';

/** What only a VM of x86_64 has: `vm.x86_64`. */
export class VmX86_64 {
  readonly #vm: Callee;
  readonly #x86_64: X86_64Calls;

  /** Made by the VM. */
  constructor(vm: Callee, x86_64: X86_64Calls) {
    this.#vm = vm;
    this.#x86_64 = x86_64;
  }

  /** KVM_SET_TSS_ADDR: three pages below 4 GiB that Intel hosts need. @throws KvmError EINVAL */
  setTssAddr(gpa: U64): void {
    const result = this.#x86_64.setTssAddr(this.#vm.fd, checkU64(gpa, 'gpa'));
    if (result < 0) throw callFailure('setTssAddr', result, this.#vm, { gpa });
  }

  /** KVM_SET_IDENTITY_MAP_ADDR: a page that Intel hosts need. @throws KvmError EINVAL once there are vCPUs */
  setIdentityMapAddr(gpa: U64): void {
    const result = this.#x86_64.setIdentityMapAddr(this.#vm.fd, checkU64(gpa, 'gpa'));
    if (result < 0) throw callFailure('setIdentityMapAddr', result, this.#vm, { gpa });
  }
}
