import { MEM, MEMOP } from '../../lib/uapi/flags.ts';
import { MIB, S390xVm, s390xScenario } from './s390x-vm.ts';
import type { Scenario } from './scenario.ts';

const LOG = MEM.LOG_DIRTY_PAGES;
const PEEK = 1;
const ALL = 2n ** 64n - 1n;

/** Groups and attributes of the VM. */
const MEM_CTRL = 0;
const ENABLE_CMMA = 0;
const CLR_CMMA = 1;
const LIMIT_SIZE = 2;
const MIGRATION = 4;
const [STOP, START, STATUS] = [0, 1, 2];

/** A VM with CMMA on. */
class CmmaVm extends S390xVm {
  readonly #calls: ConstructorParameters<typeof S390xVm>[0]['calls'];

  constructor(s: ConstructorParameters<typeof S390xVm>[0]) {
    super(s, (vm) => s.calls.setDeviceAttr(vm, MEM_CTRL, ENABLE_CMMA, null));
    this.#calls = s.calls;
  }

  get(start: number | bigint, count: number, flags = 0, buffer: Uint8Array | null = new Uint8Array(count)): number {
    const log = BigUint64Array.of(BigInt(start), BigInt(count), 0x55n);
    return this.s390x.getCmmaBits(this.vm, log, flags, buffer);
  }

  set(start: number | bigint, values: readonly number[], mask = ALL): number {
    return this.s390x.setCmmaBits(this.vm, start, values.length, 0, mask, Uint8Array.from(values));
  }

  migration(attribute: number): number {
    return this.#calls.setDeviceAttr(this.vm, MIGRATION, attribute, null);
  }

  get status(): number {
    return this.#calls.getDeviceAttr(this.vm, MIGRATION, STATUS, new Uint8Array(8));
  }
}

/** CMMA and the device attributes. The first one has to come before any guest of the process used CMM. */
export const s390xCmmaScenarios: readonly Scenario[] = [
  s390xScenario('cmma/not-in-use', (s) => {
    const m = new CmmaVm(s);
    m.memory(2, 0, 0, LOG);
    m.get(0, 16, PEEK);
    m.get(0x5000, 16, PEEK);
    m.get(0, 16, PEEK, null);
    m.get(0, 16);
    m.migration(START);
    m.get(0, 16);
    m.get(0, 16, PEEK);
    m.migration(STOP);
  }),
  s390xScenario('cmma/attributes', (s) => {
    const m = new S390xVm(s);
    const { calls } = s;
    for (const group of [MEM_CTRL, MIGRATION, 9]) {
      for (let attr = 0; attr < 5; attr++) calls.hasDeviceAttr(m.vm, group, attr);
    }
    calls.getDeviceAttr(m.vm, MEM_CTRL, LIMIT_SIZE, new Uint8Array(8));
    calls.getDeviceAttr(m.vm, MEM_CTRL, LIMIT_SIZE, new Uint8Array(7));
    calls.getDeviceAttr(m.vm, MEM_CTRL, LIMIT_SIZE, null);
    for (const [group, attr] of [
      [MEM_CTRL, ENABLE_CMMA],
      [MEM_CTRL, CLR_CMMA],
      [MEM_CTRL, 3],
      [MIGRATION, STOP],
      [MIGRATION, START],
      [MIGRATION, 3],
      [9, 0],
    ] as const) {
      calls.getDeviceAttr(m.vm, group, attr, new Uint8Array(8));
    }
    // Too late for CMMA, and for the limit.
    calls.setDeviceAttr(m.vm, MEM_CTRL, ENABLE_CMMA, null);
    calls.setDeviceAttr(m.vm, MEM_CTRL, CLR_CMMA, null);
    const limit = Buffer.alloc(8);
    for (const value of [0n, 2n ** 32n, 2n ** 47n, 2n ** 47n + 1n, 2n ** 63n]) {
      limit.writeBigUInt64BE(value);
      calls.setDeviceAttr(m.vm, MEM_CTRL, LIMIT_SIZE, limit);
    }
    calls.setDeviceAttr(m.vm, MEM_CTRL, LIMIT_SIZE, new Uint8Array(7));
    calls.setDeviceAttr(m.vm, MEM_CTRL, LIMIT_SIZE, null);
    for (const [group, attr] of [
      [MEM_CTRL, 3],
      [MIGRATION, STATUS],
      [MIGRATION, 3],
      [9, 0],
    ] as const) {
      calls.setDeviceAttr(m.vm, group, attr, new Uint8Array(8));
    }
  }),
  s390xScenario('cmma/memory-limit', (s) => {
    const { calls } = s;
    const { vm } = s.vm();
    const limit = Buffer.alloc(8);
    for (const value of [0n, 2n ** 31n, 2n ** 47n + 1n, 2n ** 47n]) {
      limit.writeBigUInt64BE(value);
      calls.setDeviceAttr(vm, MEM_CTRL, LIMIT_SIZE, limit);
      calls.getDeviceAttr(vm, MEM_CTRL, LIMIT_SIZE, new Uint8Array(8));
    }
    const hva = s.memory(1);
    calls.setUserMemoryRegion(vm, 0, 0, 2 ** 32, MIB, hva);
    calls.setUserMemoryRegion(vm, 1, 0, 2 ** 47 - MIB, MIB, hva);
    calls.setUserMemoryRegion(vm, 2, 0, 2 ** 47, MIB, hva);
  }),
  s390xScenario('cmma/memory-limit-with-slots', (s) => {
    const { calls } = s;
    const { vm } = s.vm();
    const limit = Buffer.alloc(8);
    const limitTo = (value: bigint): void => {
      limit.writeBigUInt64BE(value);
      calls.setDeviceAttr(vm, MEM_CTRL, LIMIT_SIZE, limit);
    };
    const slot = (id: number, gpa: number, size: number): void => {
      calls.setUserMemoryRegion(vm, id, 0, gpa, size, hva);
    };
    const hva = s.memory(3);
    slot(0, 0, 3 * MIB);
    slot(1, 2 ** 32, MIB);
    for (const value of [2n ** 31n, 2n ** 32n, 2n ** 32n + 0x10_0000n]) limitTo(value);
    slot(1, 2 ** 32, 0);
    // Rounded up to the end of the slot; and one that nothing is left of when it is rounded up.
    for (const value of [0x20_0001n, 0x20_0000n, 2n ** 64n - 1n]) limitTo(value);
    // What the tables reach then: 2 GiB, 4 TiB, and all that there is.
    for (const [value, gpa] of [
      [2n ** 31n, 2 ** 31],
      [2n ** 31n + 1n, 2 ** 42],
      [2n ** 42n + 1n, 2 ** 46],
    ] as const) {
      limitTo(value);
      slot(2, gpa - MIB, MIB);
      slot(3, gpa, MIB);
      for (const id of [2, 3]) slot(id, 0, 0);
    }
    // Not once there are vCPUs.
    calls.createVcpu(vm, 0);
    limitTo(2n ** 47n);
  }),
  s390xScenario('cmma/not-enabled', (s) => {
    const m = new S390xVm(s);
    m.memory(2);
    const log = () => BigUint64Array.of(0n, 16n, 0n);
    for (const flags of [0, PEEK, 2]) m.s390x.getCmmaBits(m.vm, log(), flags, new Uint8Array(16));
    for (const flags of [0, 1]) m.s390x.setCmmaBits(m.vm, 0, 16, flags, ALL, new Uint8Array(16));
    s.calls.setDeviceAttr(m.vm, MEM_CTRL, CLR_CMMA, null);
    // Migration mode doesn't need it.
    s.calls.setDeviceAttr(m.vm, MIGRATION, START, null);
    s.calls.getDeviceAttr(m.vm, MIGRATION, STATUS, new Uint8Array(8));
    m.s390x.getCmmaBits(m.vm, log(), 0, new Uint8Array(16));
    s.calls.setDeviceAttr(m.vm, MIGRATION, STOP, null);
    s.calls.getDeviceAttr(m.vm, MIGRATION, STATUS, new Uint8Array(8));
  }),
  s390xScenario('cmma/values', (s) => {
    const m = new CmmaVm(s);
    m.memory(2);
    m.set(0, [0, 1, 2, 3, 0x40, 0x41, 0x42, 0x43, 0xff, 0x80, 0x3c]);
    m.get(0, 16, PEEK);
    m.set(2, [0xff, 0xff, 0xff], 0x0300_0000n);
    m.set(4, [0, 0, 0, 0], 0x4000_0000n);
    m.set(8, [0x43, 0x43], 0xffff_ffff_00ff_ffffn);
    m.set(9, [0x43], 0n);
    m.get(0, 16, PEEK);
    s.calls.setDeviceAttr(m.vm, MEM_CTRL, CLR_CMMA, null);
    m.get(0, 16, PEEK);
  }),
  s390xScenario('cmma/refused', (s) => {
    const m = new CmmaVm(s);
    m.memory(2);
    m.memory(1, 4 * MIB, 1);
    m.set(0, [0]);
    for (const flags of [0, PEEK, 2, 3, 0x8000_0000]) m.get(0, 4, flags);
    m.get(0, 0, PEEK);
    m.get(0, 4, PEEK, null);
    m.get(0, 4, PEEK, new Uint8Array(3));
    for (const gfn of [0x1fe, 0x200, 0x400, 0x5000, 2n ** 52n, 2n ** 63n]) m.get(gfn, 4, PEEK);
    const { s390x, vm } = m;
    s390x.setCmmaBits(vm, 0, 0, 0, ALL, null);
    s390x.setCmmaBits(vm, 0, 4, 1, ALL, new Uint8Array(4));
    s390x.setCmmaBits(vm, 0, 0, 1, ALL, null);
    s390x.setCmmaBits(vm, 0, 1_048_576, 0, ALL, null);
    s390x.setCmmaBits(vm, 0, 1_048_577, 0, ALL, null);
    s390x.setCmmaBits(vm, 0, 4, 0, ALL, null);
    s390x.setCmmaBits(vm, 0, 4, 0, ALL, new Uint8Array(3));
    m.set(0x1fe, [1, 2, 3, 1]);
    m.get(0x1fe, 2, PEEK);
    m.set(0x200, [1]);
    m.get(0x400, 4, PEEK);
    for (const fd of [m.vcpu]) s390x.setCmmaBits(fd, 0, 1, 0, ALL, new Uint8Array(1));
  }),
  s390xScenario('cmma/migration-mode', (s) => {
    const m = new CmmaVm(s);
    m.set(0, [0]);
    // Without memory; with a slot that isn't logged; with logged ones.
    m.migration(START);
    const hva = m.memory(2);
    m.migration(START);
    m.slot(hva, 2, 0, 0, LOG);
    m.memory(1, 4 * MIB, 1);
    m.migration(START);
    void m.status;
    s.calls.setUserMemoryRegion(m.vm, 1, 0, 0, 0, 0);
    m.migration(START);
    m.migration(START);
    void m.status;
    // What ends it.
    m.slot(hva, 2, 0, 0, 0);
    void m.status;
    m.slot(hva, 2, 0, 0, LOG);
    m.migration(START);
    m.memory(1, 4 * MIB, 1, LOG);
    void m.status;
    m.memory(1, 8 * MIB, 2);
    void m.status;
    m.migration(STOP);
    m.migration(STOP);
    s.calls.setUserMemoryRegion(m.vm, 2, 0, 0, 0, 0);
    m.migration(START);
    s.calls.setUserMemoryRegion(m.vm, 1, 0, 0, 0, 0);
    void m.status;
  }),
  s390xScenario('cmma/harvest', (s) => {
    const m = new CmmaVm(s);
    m.memory(1, 0, 0, LOG);
    m.memory(1, 4 * MIB, 1, LOG);
    m.set(0, [1, 2, 3, 0x40, 0x41]);
    m.set(0x400, [3, 3]);
    m.migration(START);
    m.get(0, 4);
    m.get(0, 4, PEEK);
    m.get(0, 4);
    // From the middle, into the hole, beyond the end.
    m.get(0x80, 16);
    m.get(0xf8, 16);
    m.get(0x300, 8);
    m.get(0x500, 8);
    m.get(0x4fe, 8);
    m.get(2n ** 51n, 4);
    // What is set meanwhile isn't dirty by that.
    m.set(0, [2, 2, 2]);
    m.get(0, 1000);
    m.get(0, 1000);
    m.get(0, 1000);
    m.get(0, 1000);
    m.get(0, 1000);
    m.migration(STOP);
    m.get(0, 4);
    m.migration(START);
    m.get(0, 4, 0, new Uint8Array(3));
    m.get(0, 4, 0, null);
    m.get(0, 4);
  }),
  s390xScenario('cmma/harvest-over-clean-pages', (s) => {
    const m = new CmmaVm(s);
    m.memory(1, 0, 0, LOG);
    m.set(0, [0]);
    m.migration(START);
    // Runs of clean pages of 8, 16, 17 and 40.
    for (const [start, count] of [
      [8, 8],
      [32, 16],
      [64, 17],
      [100, 40],
    ] as const) {
      m.get(start, count);
    }
    for (let i = 0; i < 8; i++) m.get(0, 256);
  }),
  s390xScenario('cmma/slots-in-migration-mode', (s) => {
    const m = new CmmaVm(s);
    const hva = m.memory(1, 0, 0, LOG);
    m.set(0, [1, 2, 3]);
    m.migration(START);
    m.get(0, 16);
    // A new slot while the mode is on, and one that goes with dirty pages.
    m.memory(1, 2 * MIB, 1, LOG);
    m.get(0x200, 16);
    m.get(0, 16);
    s.calls.setUserMemoryRegion(m.vm, 0, 0, 0, 0, 0);
    void m.status;
    m.get(0, 16);
    m.slot(hva, 1, 0, 0, LOG);
    m.get(0, 16);
    m.get(0, 16, PEEK);
    m.migration(STOP);
  }),
  s390xScenario('cmma/slots-that-go-in-migration-mode', (s) => {
    const m = new CmmaVm(s);
    m.memory(1, 0, 0, LOG);
    m.memory(1, 2 * MIB, 1, LOG);
    m.set(0, [1, 2, 3]);
    m.migration(START);
    m.get(0, 4);
    s.calls.setUserMemoryRegion(m.vm, 0, 0, 0, 0, 0);
    m.get(0x200, 4);
    m.get(0x200, 4, PEEK);
    // Without the last one there is nothing to harvest, while pages still count as dirty.
    s.calls.setUserMemoryRegion(m.vm, 1, 0, 0, 0, 0);
    void m.status;
    m.get(0, 4, 0, null);
    m.get(0x200, 4, PEEK);
    m.get(0x7777, 1);
    m.get(0, 0);
    // What comes back is clean.
    m.memory(1, 2 * MIB, 1, LOG);
    m.get(0, 4);
    m.migration(STOP);
  }),
  s390xScenario('cmma/tables-when-migration-starts', (s) => {
    const m = new CmmaVm(s);
    const at = [0, 2, 4, 6, 8, 10].map((mebibytes) => mebibytes * MIB);
    const hvas = at.map((gpa, slot) => m.memory(1, gpa, slot, LOG));
    // From 7.0 on pages count where KVM has a page table for the guest: which of these make one?
    m.set(at[0]! / 4096, [1]);
    m.s390x.setSkeys(m.vm, at[1]! / 4096, 1, 0, Uint8Array.of(0x20));
    m.memOp(m.vm, MEMOP.ABSOLUTE_WRITE, at[2]!, 8);
    s.calls.writeMemory(hvas[3]!, Uint8Array.of(1));
    m.get(at[4]! / 4096, 1, PEEK);
    m.s390x.getSkeys(m.vm, at[5]! / 4096, 1, 0, new Uint8Array(1));
    m.migration(START);
    for (const gpa of at) m.get(gpa / 4096, 1);
    // A table that is made later has nothing dirty.
    m.set(at[3]! / 4096, [2]);
    m.get(at[3]! / 4096, 1);
    // A second start changes nothing, and a new one counts what there is then.
    m.migration(START);
    m.get(0, 1);
    m.migration(STOP);
    m.migration(START);
    m.get(0, 1);
    m.migration(STOP);
  }),
];
