import type { Arch } from '../../lib/uapi/arch.ts';
import { MP_STATE, ONE_REG } from '../../lib/uapi/flags.ts';
import { requestNumber, requestSize } from '../../lib/uapi/requests.ts';
import { KVM_SREGS_PPC64, KVM_SREGS_X86_64, REGS_SIZE } from '../../lib/uapi/structs.ts';
import { guest, load } from './guest-memory.ts';
import { HptGuest, ORDER } from './hpt-guest-vm.ts';
import { EVERYWHERE, type Scenario, type ScenarioHost } from './scenario.ts';

/** Ids of ONE_REG, of 8 bytes each. */
export const ONE_REGS: Readonly<Record<Arch, readonly bigint[]>> = {
  // Model-specific registers are got otherwise.
  x86_64: [],
  // x0 to x30, SP, PC, PSTATE, SP_EL1, ELR_EL1, and the SPSRs.
  aarch64: Array.from({ length: 41 }, (_, index) => ONE_REG.ARM64_CORE + BigInt(2 * index)),
  // The program counter, x1 to x31, and the mode.
  riscv64: Array.from({ length: 33 }, (_, index) => ONE_REG.RISCV_CORE + BigInt(index)),
  s390x: [
    ONE_REG.S390_CLOCK_COMP,
    ONE_REG.S390_PFTOKEN,
    ONE_REG.S390_PFCOMPARE,
    ONE_REG.S390_PFSELECT,
    ONE_REG.S390_PP,
    ONE_REG.S390_GBEA,
  ],
  ppc64: [ONE_REG.PPC_DAR, ONE_REG.PPC_AMR, ONE_REG.PPC_UAMOR],
};

/** What GET_REGS, GET_SREGS, ONE_REG and the multiprocessing state are of a new vCPU, and what can be set of them. */
export const registerScenarios: readonly Scenario[] = [
  {
    name: 'registers/fresh',
    arches: ['x86_64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      for (const id of [0, 1]) {
        const vcpu = calls.createVcpu(vm, id);
        look(s, vcpu);
        calls.getMpState(vcpu);
      }
    },
  },
  {
    name: 'registers/fresh-with-interrupt-controller',
    arches: ['x86_64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      calls.createIrqchip(vm);
      for (const id of [0, 1]) {
        const vcpu = calls.createVcpu(vm, id);
        look(s, vcpu);
        calls.getMpState(vcpu);
        const { RUNNABLE, INIT_RECEIVED, HALTED, SIPI_RECEIVED, AP_RESET_HOLD, STOPPED } = MP_STATE;
        for (const state of [RUNNABLE, INIT_RECEIVED, HALTED, SIPI_RECEIVED, AP_RESET_HOLD, STOPPED, 0xffff]) {
          calls.setMpState(vcpu, state);
          calls.getMpState(vcpu);
        }
      }
    },
  },
  {
    name: 'registers/bad-buffers',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      const { regs = 1, sregs = 1 } = REGS_SIZE[s.arch];
      for (const missing of [null, 'short'] as const) {
        const bytes = (size: number): Uint8Array | null => (missing === null ? null : new Uint8Array(size - 1));
        calls.getRegs(vcpu, bytes(regs));
        calls.setRegs(vcpu, bytes(regs));
        calls.getSregs(vcpu, bytes(sregs));
        calls.setSregs(vcpu, bytes(sregs));
      }
    },
  },
  {
    name: 'registers/set',
    arches: ['x86_64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      const regs = new DataView(new ArrayBuffer(REGS_SIZE.x86_64.regs!));
      for (let at = 0; at < regs.byteLength; at += 8) regs.setBigUint64(at, BigInt(0x1000 + at), true);
      calls.setRegs(vcpu, new Uint8Array(regs.buffer));
      const { sregs } = look(s, vcpu);
      // Flat segments from 0, as most who start in real mode set them.
      for (const base of [0, 2, 7]) sregs.set(new Uint8Array(8), 24 * base);
      calls.setSregs(vcpu, sregs);
      look(s, vcpu);
      // Paging without protection; long mode that is active without paging; protection without its companion.
      for (const [at, value] of [
        [KVM_SREGS_X86_64.cr0, 0x8000_0010n],
        [KVM_SREGS_X86_64.efer, 0x500n],
        [KVM_SREGS_X86_64.cr0, 0x2000_0010n],
      ] as const) {
        const bad = sregs.slice();
        new DataView(bad.buffer).setBigUint64(at, value, true);
        calls.setSregs(vcpu, bad);
      }
      look(s, vcpu);
    },
  },
  {
    name: 'registers/kept',
    arches: ['x86_64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      const { sregs } = look(s, vcpu);
      const set = (at: number, value: bigint): void => {
        const other = sregs.slice();
        new DataView(other.buffer).setBigUint64(at, value, true);
        calls.setSregs(vcpu, other);
        calls.getSregs(vcpu, new Uint8Array(sregs.length));
      };
      // A base of the local APIC beyond the addresses of a vCPU without a CPUID, with bits that mean nothing, and with x2APIC.
      for (const base of [0xf_fee0_0900n, 0x10_fee0_0900n, 0xfee0_0901n, 0xfee0_0d00n])
        set(KVM_SREGS_X86_64.apic_base, base);
      // Bits of CR4 that no processor has.
      for (const bit of [14n, 15n, 19n, 29n, 63n]) set(KVM_SREGS_X86_64.cr4, 1n << bit);
      // Task priorities that there are, and one that there isn't.
      for (const priority of [5n, 16n, 0n]) set(KVM_SREGS_X86_64.cr8, priority);
      // Pending interrupts: of several the first; without one what was pending is.
      set(KVM_SREGS_X86_64.interrupt_bitmap, 0x3000_0000_0000n);
      set(KVM_SREGS_X86_64.interrupt_bitmap + 16, 1n);
      set(KVM_SREGS_X86_64.interrupt_bitmap, 0n);
      // Behind the limit of a descriptor table there is nothing.
      set(KVM_SREGS_X86_64.gdt + 8, 0x1234_0000_5678n);
    },
  },
  {
    name: 'registers/kept-of-one',
    arches: ['aarch64', 'riscv64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const vcpu = s.vcpu(vm);
      // PSTATE, and the mode.
      const id = s.arch === 'aarch64' ? ONE_REG.ARM64_CORE + 66n : ONE_REG.RISCV_CORE + 32n;
      for (const value of [0, 1, 2, 4, 5, 8, 9, 0x13, 0x1f, 0xc5]) {
        calls.setOneReg(vcpu, id, Uint8Array.of(value, 0x12, 0, 0, 0, 0, 0, 0));
        calls.setOneReg(vcpu, id, Uint8Array.of(value, 0, 0, 0, 0, 0, 0, 0));
        calls.getOneReg(vcpu, id, new Uint8Array(8));
      }
    },
  },
  {
    name: 'registers/set-general',
    arches: ['ppc64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      const regs = new Uint8Array(REGS_SIZE.ppc64.regs!);
      calls.getRegs(vcpu, regs.slice());
      // The general registers, the last things in the structure.
      for (let at = regs.length - 32 * 8; at < regs.length; at++) regs[at] = at & 0xff;
      calls.setRegs(vcpu, regs);
      calls.getRegs(vcpu, regs.slice());
    },
  },
  {
    name: 'registers/special-of-ppc64',
    arches: ['ppc64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      const sregs = new Uint8Array(REGS_SIZE.ppc64.sregs!);
      calls.getSregs(vcpu, sregs);
      calls.setSregs(vcpu, sregs);
      // Another processor than the host's.
      sregs[3] = 0x12;
      calls.setSregs(vcpu, sregs);
    },
  },
  {
    name: 'registers/segments',
    arches: ['ppc64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      const { slb, slbEntries } = KVM_SREGS_PPC64;
      const sregs = new Uint8Array(REGS_SIZE.ppc64.sregs!);
      const set = (entries: readonly (readonly [index: number, valid: boolean])[]): void => {
        calls.getSregs(vcpu, sregs);
        const view = new DataView(sregs.buffer);
        for (let at = 0; at < 16 * slbEntries; at++) view.setUint8(slb + at, 0);
        for (const [index, valid] of entries) {
          view.setBigUint64(
            slb + 16 * index,
            (BigInt(index + 1) << 28n) | (valid ? 0x800_0000n : 0n) | BigInt(index),
            true,
          );
          view.setBigUint64(slb + 16 * index + 8, BigInt(0x1230 + index) << 12n, true);
        }
        calls.setSregs(vcpu, sregs);
        calls.getSregs(vcpu, sregs.fill(0xff));
      };
      // In order from the first; with gaps and entries that are not valid between; beyond the 32 that the processor has; all.
      set([
        [0, true],
        [1, true],
      ]);
      set([
        [0, false],
        [1, true],
        [2, false],
        [5, true],
        [31, true],
      ]);
      set([
        [30, true],
        [32, true],
        [63, true],
      ]);
      set(Array.from({ length: slbEntries }, (_, index) => [index, true] as const));
      set([]);
    },
  },
  {
    name: 'registers/one-of-none',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const vcpu = s.vcpu(vm);
      for (const id of [0, 0x0030_0000_0000_0000n, 0xfff0_ffff_ffff_ffffn]) {
        calls.getOneReg(vcpu, id, new Uint8Array(8));
        calls.setOneReg(vcpu, id, new Uint8Array(8));
      }
    },
  },
  {
    name: 'registers/one',
    arches: ['aarch64', 'riscv64', 'ppc64'],
    run: (s) => {
      const { vm } = s.vm();
      oneRegisters(s, s.vcpu(vm));
    },
  },
  {
    name: 'registers/one-of-s390x',
    arches: ['s390x'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      oneRegisters(s, vcpu);
      calls.s390x!.initialReset(vcpu);
      for (const id of ONE_REGS.s390x) calls.getOneReg(vcpu, id, new Uint8Array(8));
    },
  },
  {
    name: 'registers/one-before-the-vcpu-is-initialised',
    arches: ['aarch64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      const [id = 0n] = ONE_REGS.aarch64;
      calls.getOneReg(vcpu, id, new Uint8Array(8));
      calls.setOneReg(vcpu, id, new Uint8Array(8));
      calls.getMpState(vcpu);
      calls.run(vcpu, 5);
    },
  },
  {
    name: 'registers/vcpu-init',
    arches: ['aarch64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      const preferred = requestNumber('KVM_ARM_PREFERRED_TARGET', s.arch);
      const init = requestNumber('KVM_ARM_VCPU_INIT', s.arch);
      const struct = new Uint8Array(requestSize('KVM_ARM_VCPU_INIT'));
      for (const fd of [vcpu, vm]) calls.ioctlUnchecked(fd, preferred, struct.slice(1));
      calls.ioctlUnchecked(vcpu, preferred, struct);
      // Target 0 is a processor that hardly a host has.
      for (const fd of [vm, vcpu]) calls.ioctlUnchecked(fd, init, struct);
      calls.ioctlUnchecked(vm, preferred, struct);
      const pc = ONE_REG.ARM64_CORE + 0x40n;
      for (let times = 0; times < 2; times++) {
        calls.ioctlUnchecked(vcpu, init, struct);
        calls.getOneReg(vcpu, pc, new Uint8Array(8));
        calls.setOneReg(vcpu, pc, Uint8Array.of(0, 0x10, 0, 0, 0, 0, 0, 0));
      }
      calls.ioctlUnchecked(vcpu, init, struct.slice(1));
    },
  },
  {
    name: 'registers/second-vcpu',
    arches: ['aarch64', 'riscv64', 'ppc64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      for (const id of [0, 1]) calls.getMpState(calls.createVcpu(vm, id));
    },
  },
  {
    name: 'registers/multiprocessing-state',
    arches: ['x86_64', 'ppc64', 'aarch64', 'riscv64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const vcpu = s.vcpu(vm);
      calls.getMpState(vcpu);
      for (const state of [0, 5, 0xffff, 0]) {
        calls.setMpState(vcpu, state);
        calls.getMpState(vcpu);
      }
    },
  },
  {
    name: 'registers/kicked-beforehand',
    arches: EVERYWHERE,
    run: async (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const vcpu = s.vcpu(vm);
      calls.kick(vcpu);
      calls.run(vcpu, 0);
      calls.kick(vcpu);
      await calls.runAsync(vcpu);
    },
  },
  {
    name: 'registers/run-of-its-own-thread',
    arches: ['x86_64', 'aarch64', 'riscv64'],
    runsGuest: true,
    run: async (s) => {
      const { calls, unit } = s;
      const g = guest(s);
      calls.setUserMemoryRegion(g.vm, 0, 0, 0, unit, s.memory(1));
      load(s, g, [{ op: 'pause' }, { op: 'spin' }]);
      await calls.runAsync(g.vcpu);
      await busy(s, g.vcpu);
    },
  },
  {
    name: 'registers/run-of-its-own-thread-on-ppc64',
    arches: ['ppc64'],
    runsGuest: true,
    run: async (s) => {
      const g = new HptGuest(s, ORDER);
      g.map();
      g.load([{ op: 'pause' }, { op: 'spin' }]);
      await s.calls.runAsync(g.vcpu);
      await busy(s, g.vcpu);
    },
  },
  {
    name: 'registers/run-of-its-own-thread-on-s390x',
    arches: ['s390x'],
    entersSie: true,
    run: async (s) => {
      const { calls, unit } = s;
      const { vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      calls.setUserMemoryRegion(vm, 0, 0, 0, unit, s.memory(1));
      await busy(s, vcpu);
    },
  },
];

/** Both structures of x86. */
function look(s: ScenarioHost, vcpu: number): { readonly sregs: Uint8Array } {
  const { regs = 0, sregs: size = 0 } = REGS_SIZE[s.arch];
  s.calls.getRegs(vcpu, new Uint8Array(regs));
  const sregs = new Uint8Array(size);
  s.calls.getSregs(vcpu, sregs);
  return { sregs };
}

/** Those there are, as they are at first; then what can be set of one, and what cannot. */
function oneRegisters(s: ScenarioHost, vcpu: number): void {
  const { calls } = s;
  const ids = ONE_REGS[s.arch];
  for (const id of ids) calls.getOneReg(vcpu, id, new Uint8Array(8));
  const id = ids[1]!;
  calls.setOneReg(vcpu, id, Uint8Array.of(0, 2, 3, 4, 5, 6, 7, 0));
  calls.getOneReg(vcpu, id, new Uint8Array(8));
  for (const size of [undefined, 7]) {
    const bytes = (): Uint8Array | null => (size === undefined ? null : new Uint8Array(size));
    calls.getOneReg(vcpu, id, bytes());
    calls.setOneReg(vcpu, id, bytes());
  }
}

/** Every call on a vCPU that runs: only kick is carried out. */
async function busy(s: ScenarioHost, vcpu: number): Promise<void> {
  const { calls } = s;
  const running = calls.runAsync(vcpu);
  calls.run(vcpu, 5);
  await calls.runAsync(vcpu);
  calls.getRegs(vcpu, null);
  calls.setRegs(vcpu, null);
  calls.getSregs(vcpu, null);
  calls.setSregs(vcpu, null);
  calls.getOneReg(vcpu, 0, new Uint8Array(1));
  calls.setOneReg(vcpu, 0, new Uint8Array(1));
  calls.getMpState(vcpu);
  calls.setMpState(vcpu, 0);
  calls.enableCap(vcpu, 0, 0, []);
  calls.preFaultMemory(vcpu, new BigUint64Array(2), 0);
  calls.kick(vcpu);
  await running;
}
