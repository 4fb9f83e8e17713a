import { describe, expect, it } from 'vitest';
import { load, store } from '../../../../../lib/emulated/guest.ts';
import { CAP } from '../../../../../lib/uapi/capabilities.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { EXIT } from '../../../../../lib/uapi/flags.ts';
import { KVM_REGS_PPC64, KVM_RUN, KVM_SREGS_PPC64 } from '../../../../../lib/uapi/structs.ts';
import { MSR, RELOCATED, relocatedVm, TestVm, vrma } from './vm.ts';

const [REGS, SREGS] = [392, 1232];

/** Registers, changed. */
function setRegs(vm: TestVm, change: (regs: DataView) => void): DataView {
  const regs = new Uint8Array(REGS);
  vm.ok(vm.kernel.getRegs(vm.vcpu, regs));
  change(new DataView(regs.buffer));
  vm.ok(vm.kernel.setRegs(vm.vcpu, regs));
  vm.ok(vm.kernel.getRegs(vm.vcpu, regs));
  return new DataView(regs.buffer);
}

// As the real kernel answered (6.12, in the lab); npm run fuzz -- --arch ppc64 --topic registers asks it.
it('what SET_REGS and SET_SREGS leave out', () => {
  const regs = setRegs(new TestVm(), (given) => {
    for (let at = 0; at < REGS; at += 8) given.setBigUint64(at, 2n ** 64n - 1n, true);
  });
  const all = 2n ** 64n - 1n;
  expect([KVM_REGS_PPC64.cr, KVM_REGS_PPC64.pid].map((at) => regs.getBigUint64(at, true))).toEqual([0xffff_ffffn, 0n]);
  expect([KVM_REGS_PPC64.pc, KVM_REGS_PPC64.gpr].map((at) => regs.getBigUint64(at, true))).toEqual([all, all]);
  // A guest is no hypervisor, and its transaction not in two states.
  expect(regs.getBigUint64(KVM_REGS_PPC64.msr, true)).toBe(0xefff_fff9_ffff_ffffn);
  const vm = new TestVm();
  const sregs = new Uint8Array(SREGS);
  vm.ok(vm.kernel.getSregs(vm.vcpu, sregs));
  const before = sregs.slice();
  sregs.fill(0xff, 4, KVM_SREGS_PPC64.slb);
  sregs.fill(0xff, KVM_SREGS_PPC64.slb + 16 * KVM_SREGS_PPC64.slbEntries);
  vm.ok(vm.kernel.setSregs(vm.vcpu, sregs));
  vm.ok(vm.kernel.getSregs(vm.vcpu, sregs));
  expect(sregs).toEqual(before);
});

describe('special registers', () => {
  /** An SLB entry: V in the first doubleword. */
  const VALID = 0x800_0000n;
  const entry = (n: number, valid = true): [bigint, bigint] => [
    (BigInt(n) << 28n) | (valid ? VALID : 0n),
    BigInt(n) << 12n,
  ];

  function setSlb(entries: Readonly<Record<number, [bigint, bigint]>>): [bigint, bigint][] {
    const vm = new TestVm();
    const sregs = new Uint8Array(SREGS);
    const view = new DataView(sregs.buffer);
    vm.ok(vm.kernel.getSregs(vm.vcpu, sregs));
    for (const [at, [esid, vsid]] of Object.entries(entries)) {
      view.setBigUint64(KVM_SREGS_PPC64.slb + 16 * Number(at), esid, true);
      view.setBigUint64(KVM_SREGS_PPC64.slb + 16 * Number(at) + 8, vsid, true);
    }
    vm.ok(vm.kernel.setSregs(vm.vcpu, sregs));
    vm.ok(vm.kernel.getSregs(vm.vcpu, sregs));
    return Array.from({ length: KVM_SREGS_PPC64.slbEntries }, (_, i) => [
      view.getBigUint64(KVM_SREGS_PPC64.slb + 16 * i, true),
      view.getBigUint64(KVM_SREGS_PPC64.slb + 16 * i + 8, true),
    ]);
  }

  it('are those of the host’s processor', () => {
    const vm = new TestVm();
    const sregs = new Uint8Array(SREGS);
    vm.ok(vm.kernel.getSregs(vm.vcpu, sregs));
    const view = new DataView(sregs.buffer);
    expect(view.getUint32(KVM_SREGS_PPC64.pvr, true)).toBe(0x4e_1200);
    view.setUint32(KVM_SREGS_PPC64.pvr, 0x4e_1201, true);
    expect(vm.kernel.setSregs(vm.vcpu, sregs)).toBe(-ERRNO.EINVAL);
  });

  it('have the valid segments one behind the other, of those that the processor has room for', () => {
    const none: [bigint, bigint] = [0n, 0n];
    const slb = setSlb({
      0: entry(1, false),
      3: entry(2),
      4: entry(3, false),
      5: entry(4),
      31: entry(5),
      32: entry(6),
      63: entry(7),
    });
    expect(slb).toEqual([entry(2), entry(4), entry(5), ...Array(61).fill(none)]);
    expect(setSlb({ 0: entry(1), 1: entry(2) }).slice(0, 3)).toEqual([entry(1), entry(2), none]);
  });
});

it('machine checks cannot be turned off', () => {
  const ME = 0x1000n;
  const vm = new TestVm();
  const msrOf = (regs: DataView): bigint => regs.getBigUint64(KVM_REGS_PPC64.msr, true);
  expect(msrOf(setRegs(vm, () => {}))).toBe(ME);
  expect(msrOf(setRegs(vm, (regs) => regs.setBigUint64(KVM_REGS_PPC64.msr, 0x8000_0000_0000_0000n, true)))).toBe(
    0x8000_0000_0000_1000n,
  );
});

it('a vCPU has no multiprocessing state', () => {
  const vm = new TestVm();
  expect([vm.kernel.getMpState(vm.vcpu), vm.kernel.setMpState(vm.vcpu, 0)]).toEqual([-ERRNO.EINVAL, -ERRNO.EINVAL]);
});

describe('KVM_RUN', () => {
  const EXIT_BEFORE = 0x99;

  // `kvm_arch_vcpu_ioctl_run` of Linux 6.12 asks for it before all else.
  it('that is interrupted before it begins looks at nothing', () => {
    const vm = new TestVm();
    vm.runArea.setUint32(KVM_RUN.exit_reason, EXIT_BEFORE, true);
    vm.runArea.setUint8(KVM_RUN.immediate_exit, 1);
    expect([vm.kernel.run(vm.vcpu, 0), vm.exitReason]).toEqual([-ERRNO.EINTR, EXIT_BEFORE]);
  });

  it('of a VM without memory at 0 is refused before anything is fetched', () => {
    const vm = relocatedVm({}, { msr: MSR });
    vm.slot(0, 0, 0);
    vm.slot(1, 0x8000, 0x1_0000, 0, vm.hva + 0x8000);
    const regs = Buffer.alloc(392);
    vm.ok(vm.kernel.getRegs(vm.vcpu, regs));
    regs.writeBigUInt64LE(BigInt(RELOCATED.ea));
    vm.ok(vm.kernel.setRegs(vm.vcpu, regs));
    expect(vm.kernel.run(vm.vcpu, 0)).toBe(-ERRNO.EINVAL);
    const entryR = (): bigint[] => vm.read(vm.reader()).flatMap(({ entries }) => entries.map(([, r]) => r & 0x180n));
    expect(entryR()).toEqual([0n]);
    // With memory there the fetch sets R.
    vm.slot(2, 0, 0x8000, 0, vm.hva);
    vm.ok(vm.kernel.setRegs(vm.vcpu, regs));
    vm.kernel.run(vm.vcpu, 0);
    expect(entryR()).toContain(0x100n);
  });

  it('without PAPR is an internal error', () => {
    const vm = new TestVm({ order: 18 });
    const { vcpu } = vm;
    const other = vm.ok(vm.kernel.createVcpu(vm.vm, 5));
    const hva = vm.kernel.mmap(4096, 3, 1, other, 0, 0, 0);
    const area = new DataView(vm.kernel.view(hva, 4096) as ArrayBuffer);
    expect([vm.kernel.run(other, 0), area.getUint32(KVM_RUN.exit_reason, true)]).toEqual([
      -ERRNO.EINVAL,
      EXIT.INTERNAL_ERROR,
    ]);
    vm.ok(vm.kernel.enableCap(other, CAP.PPC_PAPR, 0, []));
    area.setUint8(KVM_RUN.immediate_exit, 1);
    expect([vm.kernel.run(other, 0), vcpu > 0]).toEqual([-ERRNO.EINTR, true]);
  });
});

describe('the instruction that is next', () => {
  const [PC, R] = [0x5000, 0x100n];
  const [READ, CLEAR_REF] = [0x0c, 0x14];

  it('is fetched when the guest is entered, and when KVM has answered a hypercall; which its page’s entry notes', () => {
    const vm = new TestVm({ order: 18 });
    const [slot, entry] = vrma(18, BigInt(PC), 0x10n);
    vm.ok(vm.write(slot, [entry]));
    vm.ok(vm.kernel.enableCap(vm.vm, CAP.PPC_ENABLE_HCALL, 0, [CLEAR_REF, 1]));
    const referenced = (): bigint => vm.guestView(slot)[1]! & R;
    // Nobody has said where the guest's code is.
    vm.run();
    expect(referenced()).toBe(0n);
    setRegs(vm, (regs) => regs.setBigUint64(KVM_REGS_PPC64.pc, BigInt(PC), true));
    vm.run();
    expect(referenced()).toBe(R);
    // What is cleared by a hypercall is noted when the guest goes on behind it.
    const of = (nr: number) => ({ op: 'hypercall', nr, args: [0n, BigInt(slot)] }) as const;
    const [, read] = vm.run(of(CLEAR_REF), of(READ)) as bigint[][];
    expect(read![2]! & R).toBe(R);
  });

  it('maps its page for a guest with radix', () => {
    const vm = new TestVm();
    vm.run();
    expect(vm.dirty()).toEqual([]);
    setRegs(vm, (regs) => regs.setBigUint64(KVM_REGS_PPC64.pc, BigInt(PC), true));
    vm.run();
    expect(vm.dirty()).toEqual([5]);
  });

  it('need not be there', () => {
    const vm = new TestVm({ order: 18 });
    setRegs(vm, (regs) => regs.setBigUint64(KVM_REGS_PPC64.pc, 0x4000_0000n, true));
    const [slot, entry] = vrma(18, BigInt(PC), 0x10n);
    vm.ok(vm.write(slot, [entry]));
    vm.run(store(PC, 4, 1n), load(PC, 4));
    expect([vm.exit, vm.dirty()]).toEqual([-ERRNO.EINTR, [5]]);
  });
});

it('a hypercall for user space has nine arguments, and as many registers come back', () => {
  const vm = new TestVm();
  const given = Array.from({ length: 9 }, (_, i) => BigInt(i + 1) << 40n);
  const { papr_hcall } = KVM_RUN;
  const { runArea: area } = vm;
  const BEHIND = papr_hcall.args + 9 * 8;
  area.setBigUint64(BEHIND, 0x77n, true);
  const results = vm.run({ op: 'hypercall', nr: 0x1234, args: given });
  expect(area.getBigUint64(BEHIND, true)).toBe(0x77n);
  expect([vm.exit, vm.exitReason]).toEqual([0, EXIT.PAPR_HCALL]);
  const args = (): bigint[] => Array.from({ length: 9 }, (_, i) => area.getBigUint64(papr_hcall.args + 8 * i, true));
  expect([area.getBigUint64(papr_hcall.nr, true), ...args()]).toEqual([0x1234n, ...given]);
  for (let i = 0; i < 9; i++) area.setBigUint64(papr_hcall.args + 8 * i, BigInt(i + 100), true);
  area.setBigUint64(papr_hcall.ret, 77n, true);
  vm.kernel.run(vm.vcpu, 0);
  expect(results).toEqual([[77n, ...Array.from({ length: 9 }, (_, i) => BigInt(i + 100))]]);
});
