import { KVM_RUN_S390X } from '../../lib/uapi/structs.ts';
import { DAT_64, MIB, PSW, pattern, S390xVm, s390xScenario } from './s390x-vm.ts';
import type { Scenario, ScenarioHost } from './scenario.ts';

/** What can be seen of a vCPU: PSW, prefix, registers, multiprocessing state. */
function look(s: ScenarioHost, m: S390xVm): void {
  s.calls.getMpState(m.vcpu);
  m.load(m.area + KVM_RUN_S390X.psw_mask, 16);
  m.load(m.area + KVM_RUN_S390X.kvm_valid_regs, KVM_RUN_S390X.crs + 128 - KVM_RUN_S390X.kvm_valid_regs);
  s.calls.getRegs(m.vcpu, new Uint8Array(128));
  s.calls.getSregs(m.vcpu, new Uint8Array(192));
}

/** Registers of an s390x vCPU as user space sees and sets them, and the resets. */
export const s390xVcpuScenarios: readonly Scenario[] = [
  s390xScenario('vcpu/fresh', (s) => {
    const m = new S390xVm(s);
    look(s, m);
  }),
  s390xScenario('vcpu/registers', (s) => {
    const m = new S390xVm(s);
    s.calls.setRegs(m.vcpu, pattern(128));
    s.calls.setSregs(m.vcpu, pattern(192, 3));
    look(s, m);
    for (const bytes of [null, new Uint8Array(127)]) {
      s.calls.getRegs(m.vcpu, bytes);
      s.calls.setRegs(m.vcpu, bytes);
      s.calls.getSregs(m.vcpu, bytes);
      s.calls.setSregs(m.vcpu, bytes);
    }
  }),
  ...(['normalReset', 'initialReset', 'clearReset'] as const).map((reset) =>
    s390xScenario(`vcpu/${reset}`, (s) => {
      const m = new S390xVm(s);
      s.calls.setRegs(m.vcpu, pattern(128));
      s.calls.setSregs(m.vcpu, pattern(192, 3));
      m.latch(DAT_64 | 0x80_0000_0000n, { 0: 0x1234n, 1: 0x5678_9abcn, 14: 7n }, 0x7f00_2000);
      look(s, m);
      m.s390x[reset](m.vcpu);
      look(s, m);
      m.s390x[reset](m.vm);
    }),
  ),
  s390xScenario('vcpu/initial-psw', (s) => {
    const m = new S390xVm(s);
    const set = (mask: bigint, addr: bigint) => {
      m.s390x.setInitialPsw(m.vcpu, mask, addr);
      m.load(m.area + KVM_RUN_S390X.psw_mask, 16);
    };
    set(PSW.MODE_64, 0x1234n);
    set(2n ** 64n - 1n, 2n ** 64n - 1n);
    s.calls.getMpState(m.vcpu);
    m.latch(PSW.MODE_64);
    s.calls.getMpState(m.vcpu);
    set(PSW.MODE_31, 0x10n);
    m.s390x.normalReset(m.vcpu);
    set(PSW.MODE_31, 0x20n);
  }),
  s390xScenario('vcpu/run-takes-registers', (s) => {
    const m = new S390xVm(s);
    const { kvm_dirty_regs, kvm_valid_regs, psw_mask, s: regs } = KVM_RUN_S390X;
    // Nothing but the PSW, which always counts, and what is named.
    for (const [i, dirty] of [0n, 1n, 2n, 4n, 8n, 0x1000n, 0x2000n, 2n ** 63n].entries()) {
      m.store(m.area + psw_mask, PSW.MODE_64, 0x2000n + BigInt(i));
      m.store(m.area + regs, 0x7f00_4000n + BigInt(i * 0x2000));
      m.store(m.area + KVM_RUN_S390X.crs + 16, 0x1000n + BigInt(i));
      m.store(m.area + kvm_dirty_regs, dirty);
      s.calls.run(m.vcpu, 30);
      m.load(m.area + kvm_valid_regs, 24);
      m.load(m.area + KVM_RUN_S390X.crs, 32);
      s.calls.getSregs(m.vcpu, new Uint8Array(192));
    }
    m.store(m.area + kvm_dirty_regs, 0n);
    m.store(m.area + kvm_valid_regs, 0x2000n);
    s.calls.run(m.vcpu, 30);
    m.load(m.area + kvm_valid_regs, 16);
  }),
  s390xScenario('vcpu/fault-in', (s) => {
    const m = new S390xVm(s);
    const hva = m.memory(1);
    for (const address of [0, 0xf_ffff, 0x10_0000, 2n ** 63n]) m.s390x.vcpuFault(m.vcpu, address);
    s.calls.munmap(hva + 0x8000, 4096);
    m.s390x.vcpuFault(m.vcpu, 0x8000);
    // Only VMs that user space controls have these.
    m.s390x.ucasMap(m.vcpu, hva, 0, MIB);
    m.s390x.ucasMap(m.vcpu, hva, 1, 1);
    m.s390x.ucasUnmap(m.vcpu, 0, 0, MIB);
  }),
  s390xScenario('vcpu/mp-state', (s) => {
    const m = new S390xVm(s);
    for (const state of [6, 8, 0, 4, 9, 0xffff_ffff]) s.calls.setMpState(m.vcpu, state);
    // Whoever sets the state keeps it: KVM_RUN doesn't start the vCPU any more, resets don't stop it.
    for (const state of [5, 7, 5, 7]) {
      s.calls.setMpState(m.vcpu, state);
      s.calls.getMpState(m.vcpu);
      s.calls.run(m.vcpu, 30);
      s.calls.getMpState(m.vcpu);
    }
    m.s390x.initialReset(m.vcpu);
    s.calls.getMpState(m.vcpu);
  }),
];
