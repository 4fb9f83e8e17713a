import type { Bytes, S390xCalls, U64 } from '../../../calls/kvm-calls.ts';
import type { KernelFiles } from '../../../emulated/architecture.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import type { S390xArchVcpu } from './arch-vcpu.ts';
import { getCmmaBits, setCmmaBits } from './cmma.ts';
import { vcpuMemOp, vmMemOp } from './memop.ts';
import { getSkeys, keyOp, setSkeys } from './skeys.ts';
import type { S390xVcpu } from './vcpu-state.ts';
import type { S390xVm } from './vm-state.ts';

/** The group of calls that only s390x has, over the emulated kernel's descriptors. */
export function s390xCalls(files: KernelFiles<S390xVm, S390xArchVcpu>): S390xCalls {
  const onVm = (fd: number, call: (vm: S390xVm) => number): number => {
    const vm = files.vm(fd);
    return typeof vm === 'number' ? vm : call(vm);
  };
  const onVcpu = (fd: number, call: (vcpu: S390xVcpu) => number): number => {
    const vcpu = files.vcpu(fd);
    return typeof vcpu === 'number' ? vcpu : call(vcpu.state);
  };
  return {
    memOp(
      fd: number,
      op: number,
      gaddr: U64,
      size: number,
      flags: U64,
      buf: Bytes,
      ar: number,
      key: number,
      oldValue: Bytes,
      sidaOffset: number,
    ): number {
      const mop = { op, gaddr, size, flags, buf, ar, key, oldValue, sidaOffset };
      const vcpu = files.vcpu(fd);
      if (typeof vcpu !== 'number') return vcpuMemOp(vcpu.vm, vcpu.state, mop);
      return vcpu === -ERRNO.EBUSY ? vcpu : onVm(fd, (vm) => vmMemOp(vm, mop));
    },
    getSkeys: (vm, startGfn, count, flags, keys) =>
      onVm(vm, (state) => getSkeys(state, BigInt(startGfn), BigInt(count), flags, keys)),
    setSkeys: (vm, startGfn, count, flags, keys) =>
      onVm(vm, (state) => setSkeys(state, BigInt(startGfn), BigInt(count), flags, keys)),
    keyOp: (vm, guestAddr, operation, key) => onVm(vm, (state) => keyOp(state, BigInt(guestAddr), operation, key)),
    getCmmaBits: (vm, log, flags, values) => onVm(vm, (state) => getCmmaBits(state, log, flags, values)),
    setCmmaBits: (vm, startGfn, count, flags, mask, values) =>
      onVm(vm, (state) => setCmmaBits(state, BigInt(startGfn), count, flags, BigInt(mask), values)),
    // A kernel without ucontrol VMs (KVM_CAP_S390_UCONTROL is 0, as in Debian's) doesn't know these.
    ucasMap: (vcpu) => onVcpu(vcpu, () => -ERRNO.ENOTTY),
    ucasUnmap: (vcpu) => onVcpu(vcpu, () => -ERRNO.ENOTTY),
    vcpuFault(fd, addr) {
      const vcpu = files.vcpu(fd);
      return typeof vcpu === 'number' ? vcpu : vcpuFault(vcpu.vm, BigInt(addr));
    },
    initialReset: (vcpu) => onVcpu(vcpu, (state) => done(() => state.initialReset())),
    normalReset: (vcpu) => onVcpu(vcpu, (state) => done(() => state.normalReset())),
    clearReset: (vcpu) => onVcpu(vcpu, (state) => done(() => state.clearReset())),
    setInitialPsw: (vcpu, mask, addr) => onVcpu(vcpu, (state) => state.setInitialPsw(BigInt(mask), BigInt(addr))),
  };
}

/** Makes the guest's page present; without one in user space, or without a slot, EFAULT. */
function vcpuFault(vm: S390xVm, address: bigint): number {
  const gfn = Number(address >> 12n);
  const slot = vm.storage.slot(gfn);
  return slot === undefined || !vm.faultIn(slot, gfn) ? -ERRNO.EFAULT : 0;
}

function done(reset: () => void): number {
  reset();
  return 0;
}
