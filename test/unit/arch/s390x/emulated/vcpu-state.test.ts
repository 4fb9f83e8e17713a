/** As a real 6.12 answered, where it says what a kernel does. */

import { describe, expect, it } from 'vitest';
import { type GuestProgram, spin } from '../../../../../lib/emulated/guest.ts';
import { MEMOP } from '../../../../../lib/uapi/flags.ts';
import { KVM_RUN_S390X } from '../../../../../lib/uapi/structs.ts';
import { CHECK_ONLY, DAT64, Machine, REAL64 } from './machine.ts';

const EINVAL = -22;
const E2BIG = -7;

describe('the state of a vCPU', () => {
  it('a PSW of SET_INITIAL_PSW counts from the next KVM_RUN on, and only a stopped vCPU takes one', () => {
    const machine = new Machine().addMemory();
    expect(machine.s390x.setInitialPsw(machine.vcpu, DAT64, 0x1000)).toBe(0);
    expect(machine.read(0x3000, 8)).toBe(0);
    expect(machine.run.getBigUint64(KVM_RUN_S390X.psw_mask)).toBe(DAT64);
    expect(machine.kernel.getMpState(machine.vcpu)).toBe(5);
    machine.latch(DAT64);
    expect(machine.s390x.setInitialPsw(machine.vcpu, 0, 0)).toBe(-16);
    machine.s390x.initialReset(machine.vcpu);
    expect(machine.s390x.setInitialPsw(machine.vcpu, 0, 0)).toBe(0);
  });

  it('is not to be asked for while the vCPU runs', async () => {
    const machine = new Machine().addMemory();
    machine.kernel.loadGuest(
      machine.vcpu,
      (function* (): GuestProgram {
        yield spin;
      })(),
    );
    const running = machine.kernel.runAsync(machine.vcpu);
    expect(machine.read(0, 8)).toBe(-16);
    expect(machine.absoluteRead(0, 8)).toBe(0);
    machine.kernel.kick(machine.vcpu);
    expect(await running).toBe(-4);
    expect(machine.read(0, 8)).toBe(0);
  });

  it('immediate_exit leaves the hardware state alone', () => {
    const machine = new Machine().addMemory();
    machine.run.setUint8(KVM_RUN_S390X.immediate_exit, 1);
    expect(machine.latch(DAT64)).toBe(-4);
    expect(machine.read(0x3000, 8)).toBe(0);
  });

  it('of a new vCPU is zero, after INITIAL_RESET the architecture says', () => {
    const machine = new Machine().addMemory();
    const sregs = new Uint8Array(192);
    machine.kernel.getSregs(machine.vcpu, sregs);
    expect(sregs).toEqual(new Uint8Array(192));
    expect(machine.run.getBigUint64(KVM_RUN_S390X.kvm_valid_regs)).toBe(0x107fn);
    machine.latch(DAT64, { 1: 5n });
    expect(machine.s390x.initialReset(machine.vcpu)).toBe(0);
    machine.kernel.getSregs(machine.vcpu, sregs);
    const view = new DataView(sregs.buffer);
    expect(view.getBigUint64(64)).toBe(0xe0n);
    expect(view.getBigUint64(64 + 8)).toBe(0n);
    expect(view.getBigUint64(64 + 14 * 8)).toBe(0xc200_0000n);
    expect(machine.run.getBigUint64(KVM_RUN_S390X.psw_mask)).toBe(0n);
    expect(machine.read(0x100_0000, 8)).toBe(0);
  });

  it('SET_SREGS counts at once', () => {
    const machine = new Machine();
    machine.latch(DAT64);
    machine.addMemory();
    const sregs = new Uint8Array(192);
    new DataView(sregs.buffer).setBigUint64(64 + 8, 0x20n);
    machine.kernel.setSregs(machine.vcpu, sregs);
    expect(machine.read(0x3000, 8)).toBe(0);
    new DataView(sregs.buffer).setBigUint64(64 + 8, 0x7000_0000n);
    machine.kernel.setSregs(machine.vcpu, sregs);
    expect(machine.read(0x3000, 8)).toBe(5);
  });

  it('SET_REGS are in kvm_run, and what kvm_run has are GET_REGS', () => {
    const machine = new Machine();
    const gprs = new Uint8Array(128);
    const view = new DataView(gprs.buffer);
    for (let n = 0; n < 16; n++) view.setBigUint64(8 * n, BigInt(n + 1));
    expect(machine.kernel.setRegs(machine.vcpu, gprs)).toBe(0);
    const inRun = (n: number): bigint => machine.run.getBigUint64(KVM_RUN_S390X.gprs + 8 * n);
    expect([inRun(0), inRun(15)]).toEqual([1n, 16n]);
    machine.run.setBigUint64(KVM_RUN_S390X.gprs + 8 * 15, 99n);
    expect([machine.kernel.getRegs(machine.vcpu, gprs), view.getBigUint64(0), view.getBigUint64(8 * 15)]).toEqual([
      0,
      1n,
      99n,
    ]);
  });

  it('is left alone by registers that are refused', () => {
    const machine = new Machine().addMemory();
    machine.latch(REAL64, { 1: 0x1234_5000n });
    machine.run.setBigUint64(KVM_RUN_S390X.gprs + 8 * 3, 7n);
    machine.run.setUint32(KVM_RUN_S390X.acrs + 4 * 3, 9);
    const { kernel, vcpu } = machine;
    expect([kernel.setRegs(vcpu, new Uint8Array(8)), kernel.setSregs(vcpu, new Uint8Array(8))]).toEqual([-14, -14]);
    const [gprs, sregs] = [new Uint8Array(128), new Uint8Array(192)];
    expect([kernel.getRegs(vcpu, gprs), kernel.getSregs(vcpu, sregs)]).toEqual([0, 0]);
    const view = new DataView(sregs.buffer);
    expect(new DataView(gprs.buffer).getBigUint64(8 * 3)).toBe(7n);
    expect([view.getUint32(4 * 3), view.getBigUint64(64 + 8)]).toEqual([9, 0x1234_5000n]);
  });

  it('access registers come from kvm_run without a run', () => {
    const machine = new Machine();
    machine.latch(DAT64 | 0x4000_0000_0000n, { 1: 0x20n, 7: 0x7000_0000n });
    machine.addMemory();
    expect(machine.read(0x3000, 8, { ar: 3 })).toBe(0);
    machine.run.setUint32(KVM_RUN_S390X.acrs + 4 * 3, 1);
    expect(machine.read(0x3000, 8, { ar: 3 })).toBe(5);
    expect(machine.read(0x3000, 8, { ar: 0 })).toBe(0);
    machine.run.setUint32(KVM_RUN_S390X.acrs + 4 * 3, 0x0200_0000);
    expect(machine.read(0x3000, 8, { ar: 3 })).toBe(0x28);
  });

  it('unknown register sets are refused', () => {
    const machine = new Machine().addMemory();
    machine.run.setBigUint64(KVM_RUN_S390X.kvm_valid_regs, 1n << 40n);
    expect(machine.kernel.run(machine.vcpu, 0)).toBe(EINVAL);
  });

  it('SIDA operations of an unprotected vCPU measure themselves against the breaking-event address', () => {
    const machine = new Machine().addMemory();
    const sida = (size: number, sidaOffset = 0) => machine.mop(machine.vcpu, MEMOP.SIDA_READ, 0, size, { sidaOffset });
    expect(sida(4096)).toBe(EINVAL);
    expect(sida(4097)).toBe(E2BIG);
    expect(machine.s390x.initialReset(machine.vcpu)).toBe(0);
    expect(sida(8192)).toBe(EINVAL);
    expect(sida(8192, 1)).toBe(E2BIG);
    expect(sida(1, 0xffff_ffff)).toBe(EINVAL);
    expect(machine.mop(machine.vcpu, MEMOP.SIDA_WRITE, 0, 65536, { flags: CHECK_ONLY })).toBe(EINVAL);
  });
});
