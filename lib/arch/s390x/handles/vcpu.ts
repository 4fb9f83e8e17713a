import { checkU64 } from '../../../base/arguments.ts';
import { KvmError } from '../../../base/errors.ts';
import type { U64 } from '../../../base/u64.ts';
import type { S390xCalls } from '../../../calls/kvm-calls.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { KVM_RUN_S390X, REGS_SIZE } from '../../../uapi/structs.ts';
import type { DatFacilities } from '../model/control-registers.ts';
import { type CpuState, cpuState } from '../model/cpu-state.ts';
import { PREFIX_MASK } from '../model/prefix.ts';
import { addressingMode } from '../model/psw.ts';
import { VcpuMemOp } from './vcpu-mem-op.ts';
import type { VmS390x } from './vm.ts';

/** The vCPU. */
export interface VcpuS390xOwner {
  readonly id: number;
  readonly fd: number;
  readonly closed: boolean;
  readonly vm: { readonly fd: number };
  readonly kvmRun: { readonly view: DataView };
  getSregsBytes(size: number): Uint8Array;
}

/** In struct kvm_sregs, 16 access registers of 4 bytes come before the control registers. */
const SREGS_CRS = 64;

/** What only a vCPU of s390x has. The vCPU keeps one of these. */
export class VcpuS390x {
  readonly memOp: VcpuMemOp;
  readonly #s390x: S390xCalls;
  readonly #owner: VcpuS390xOwner;

  constructor(owner: VcpuS390xOwner, s390x: S390xCalls, vm: VmS390x) {
    this.#owner = owner;
    this.#s390x = s390x;
    const target = {
      noun: `vCPU ${owner.id}`,
      vm: owner.vm,
      cpuState: () => this.cpuState(),
      addressingMode() {
        const run = owner.kvmRun.view;
        return addressingMode(run.getUint32(KVM_RUN_S390X.psw_mask), run.getUint32(KVM_RUN_S390X.psw_mask + 4));
      },
      get fd() {
        return owner.fd;
      },
      get closed() {
        return owner.closed;
      },
    };
    this.memOp = new VcpuMemOp(s390x, target, () => vm.maxMemOpSize);
  }

  /**
   * What decides about this vCPU's translations: control registers as they are, PSW, prefix and access registers as
   * kvm_run shows them.
   */
  cpuState(facilities: Partial<DatFacilities> = {}): CpuState {
    const run = this.#owner.kvmRun.view;
    const sregs = this.#owner.getSregsBytes(REGS_SIZE.s390x.sregs!);
    const registers = new DataView(sregs.buffer, sregs.byteOffset);
    const state = cpuState({
      pswMask: run.getBigUint64(KVM_RUN_S390X.psw_mask),
      prefix: run.getUint32(KVM_RUN_S390X.s + 4) & PREFIX_MASK,
      facilities,
    });
    for (let n = 0; n < 32; n++) state.cr[n] = registers.getUint32(SREGS_CRS + 4 * n);
    for (let n = 0; n < 16; n++) state.ar[n] = run.getUint32(KVM_RUN_S390X.acrs + 4 * n);
    return state;
  }

  reset(kind: 'initial' | 'normal' | 'clear'): void {
    const { fd } = this.#owner;
    const s390x = this.#s390x;
    const result =
      kind === 'initial' ? s390x.initialReset(fd) : kind === 'clear' ? s390x.clearReset(fd) : s390x.normalReset(fd);
    this.#check(result, `ioctl(KVM_S390_${kind.toUpperCase()}_RESET)`);
  }

  setInitialPsw(mask: U64, address: U64): void {
    const result = this.#s390x.setInitialPsw(this.#owner.fd, checkU64(mask, 'mask'), checkU64(address, 'address'));
    const why = result === -ERRNO.EBUSY ? 'only a stopped vCPU takes one, and this one is operating' : undefined;
    this.#check(result, 'ioctl(KVM_S390_SET_INITIAL_PSW)', why);
  }

  #check(result: number, syscall: string, why?: string): void {
    if (result >= 0) return;
    const explanation = result === -ERRNO.EBADF && this.#owner.closed ? 'the vCPU is closed' : why;
    throw new KvmError(result, { syscall, explanation });
  }
}
