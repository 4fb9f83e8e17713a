import type { Vcpu } from '../../handles/vcpu.ts';
import type { Vm } from '../../handles/vm.ts';

const FOUR_GIB_LIMIT = 0xffff_ffff;
/** Bit 1 is always set. */
const RFLAGS = 2;
/** Three pages that Intel processors without unrestricted guests need for real mode; out of the way of any RAM here. */
const TSS_ADDR = 0xfffb_d000;
const HLT = 0xf4;

/**
 * Makes a vCPU start at `rip` in real mode, its segments beginning at 0 and reaching 4 GiB ("unreal mode"), so that
 * every address below that can be named without page tables.
 */
export function startInRealMode(vcpu: Vcpu, rip: number): void {
  const sregs = vcpu.x86_64.getSregs();
  for (const segment of [sregs.cs, sregs.ds, sregs.es, sregs.ss]) {
    Object.assign(segment, { base: 0n, limit: FOUR_GIB_LIMIT, selector: 0, g: 1 });
  }
  vcpu.x86_64.setSregs(sregs);
  vcpu.x86_64.setRegs({ rip, rflags: RFLAGS });
}

/** What a VM needs before its first vCPU may run in real mode. */
export function prepareRealMode(vm: Vm): void {
  vm.x86_64.setTssAddr(TSS_ADDR);
}

/** Runs a guest that only halts, on the first vCPU of a VM without memory; why it came back. */
export function runsHalt(vm: Vm): string {
  const [vcpu] = vm.vcpus;
  if (vcpu === undefined) throw new RangeError('the VM has no vCPU');
  const page = vm.kvm.mapAnonymous(vm.kvm.pageSize);
  vm.memory.addRam(0, page);
  page.close();
  vm.memory.writeU8(0, HLT);
  startInRealMode(vcpu, 0);
  return vcpu.runSync({ timeoutMs: 1000 }).reason;
}
