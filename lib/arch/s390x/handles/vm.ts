import { checkU64 } from '../../../base/arguments.ts';
import { hex } from '../../../base/errors.ts';
import type { U64 } from '../../../base/u64.ts';
import type { S390xCalls } from '../../../calls/kvm-calls.ts';
import { CAP } from '../../../uapi/capabilities.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { S390_VM_ATTRIBUTE } from '../../../uapi/flags.ts';
import type { AbsoluteMemory } from '../model/memory.ts';
import { MEM_OP_MAX_SIZE } from '../rules.ts';
import { KernelMemory } from './kernel-memory.ts';
import { VmAttributes } from './vm-attributes.ts';
import { type CmmaOwner, VmCmma } from './vm-cmma.ts';
import { VmMemOp } from './vm-mem-op.ts';
import { type KeysOwner, VmStorageKeys } from './vm-storage-keys.ts';

/** The VM. */
export type VmS390xOwner = KeysOwner & CmmaOwner;

/** What only a VM of s390x has: `vm.s390x`. */
export class VmS390x {
  /** Absolute storage through the kernel, with storage keys. */
  readonly memOp: VmMemOp;
  readonly storageKeys: VmStorageKeys;
  /** Collaborative memory management. */
  readonly cmma: VmCmma;
  readonly #s390x: S390xCalls;
  readonly #owner: VmS390xOwner;
  readonly #attributes: VmAttributes;
  #maxMemOpSize: number | undefined;

  /** Made by the VM. */
  constructor(owner: VmS390xOwner, s390x: S390xCalls) {
    this.#owner = owner;
    this.#s390x = s390x;
    this.#attributes = new VmAttributes(owner);
    this.memOp = new VmMemOp(s390x, owner, () => this.maxMemOpSize);
    this.storageKeys = new VmStorageKeys(s390x, owner);
    this.cmma = new VmCmma(s390x, owner, this.#attributes);
  }

  /** Bytes that one MEM_OP moves at most. */
  get maxMemOpSize(): number {
    if (this.#maxMemOpSize === undefined) {
      const size = this.#owner.calls.checkExtension(this.#owner.fd, CAP.S390_MEM_OP);
      this.#maxMemOpSize = size > 0 ? size : MEM_OP_MAX_SIZE;
    }
    return this.#maxMemOpSize;
  }

  /** How much memory the guest can have, in bytes. @throws KvmError EBADF */
  get memoryLimit(): bigint {
    return this.#attributes.getU64(S390_VM_ATTRIBUTE.MEM_LIMIT_SIZE);
  }

  /** Sets it. @throws KvmError EBUSY once there is a vCPU, E2BIG for more than it is, EINVAL for 0 */
  setMemoryLimit(bytes: U64): void {
    checkU64(bytes, 'bytes');
    this.#attributes.set(S390_VM_ATTRIBUTE.MEM_LIMIT_SIZE, bytes, (errno) => {
      if (errno === -ERRNO.EBUSY) return 'the limit is set before the first vCPU is made';
      if (errno === -ERRNO.E2BIG) return `${hex(bytes)} is more than the limit now, ${hex(this.memoryLimit)}`;
      return bytes === 0 || bytes === 0n ? 'a limit of 0 leaves no memory' : undefined;
    });
  }

  /**
   * Absolute storage as it is now, for `translate`, `explainTranslation` and `mappedRanges` of kvm-bridge/s390x. Each
   * page is read from the kernel once, when it is first asked for.
   */
  absoluteMemory(): AbsoluteMemory {
    return new KernelMemory(this.#s390x, this.#owner.fd);
  }
}
