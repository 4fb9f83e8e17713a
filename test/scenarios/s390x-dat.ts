import { MEM, MEMOP_FLAG, PROT } from '../../lib/uapi/flags.ts';
import { KVM_RUN_S390X } from '../../lib/uapi/structs.ts';
import { DAT_64, PSW, pattern, S390xVm, s390xScenario } from './s390x-vm.ts';
import type { Scenario, ScenarioHost } from './scenario.ts';

const { CHECK_ONLY, INJECT, SKEY } = MEMOP_FLAG;

/** Places of the tables in guest memory, and what they are filled with: nothing valid. */
const R1 = 0x10_0000;
const R2 = 0x10_8000;
const R3 = 0x11_0000;
const ST = 0x11_8000;
const PT = 0x12_0000;
/** What the pages of the tests contain. */
const DATA = 0x18_0000;

const INVALID = 0x20n;
const PAGE_INVALID = 0x400n;
const PROTECTED = 0x200n;
const COMMON = 0x10n;

const DESIGNATION = { SEGMENT: 0n, R3: 4n, R2: 8n, R1: 0xcn } as const;
const PRIVATE = 0x100n;
const REAL_SPACE = 0x20n;

/** Low-address protection, in CR0. */
const LAP = 0x1000_0000n;

/** A guest with a table of every level, empty but for one path: R1[1] → R2[1] → R3[1] → segments[1] → pages. */
class PagedGuest extends S390xVm {
  readonly hva: number;

  constructor(s: ScenarioHost, flags = 0) {
    super(s);
    this.hva = this.memory(4, 0, 0, flags);
    for (const table of [R1, R2, R3, ST]) s.calls.writeMemory(this.hva + table, filled(2048, INVALID));
    s.calls.writeMemory(this.hva + PT, filled(256, PAGE_INVALID));
    for (let page = 0; page < 16; page++) s.calls.writeMemory(this.hva + DATA + page * 4096, pattern(64, page * 16));
    this.entry(R1, 1, BigInt(R2) | 0xfn);
    this.entry(R2, 1, BigInt(R3) | 0xbn);
    this.entry(R3, 1, BigInt(ST) | 0x7n);
    this.entry(ST, 1, BigInt(PT));
    this.page(0, 0);
  }

  entry(table: number, index: number, value: bigint): void {
    this.store(this.hva + table + index * 8, value);
  }

  /** Maps a page of the segment to a page of the data. */
  page(index: number, data: number, bits = 0n): void {
    this.entry(PT, index, BigInt(DATA + data * 4096) | bits);
  }

  /** Registers of a primary space that begins with a table of this level. */
  enter(asce: bigint, mask = DAT_64, others: Readonly<Record<number, bigint>> = {}): void {
    this.latch(mask, { 1: asce, ...others });
  }

  /** A read, a write and both as checks. */
  probe(gaddr: number | bigint, size = 8): void {
    for (const flags of [0, CHECK_ONLY]) {
      this.read(gaddr, size, { flags });
      this.write(gaddr, size, { flags, buf: pattern(size, 0xa0) });
    }
  }
}

function filled(count: number, value: bigint): Buffer {
  const one = Buffer.alloc(8);
  one.writeBigUInt64BE(value);
  return Buffer.alloc(count * 8, one);
}

/** Segment 1 of region 1 of each level. */
const IN_SEGMENT = 0x10_0000n;
const IN_R3 = 0x8000_0000n + IN_SEGMENT;
const IN_R2 = 0x400_0000_0000n + IN_R3;
const IN_R1 = 0x20_0000_0000_0000n + IN_R2;

/** Logical MEM_OPs through translation tables. The machine of the lab has no EDAT. */
export const s390xDatScenarios: readonly Scenario[] = [
  s390xScenario('dat/every-designation', (s) => {
    const m = new PagedGuest(s);
    for (const [asce, gaddr] of [
      [BigInt(ST) | DESIGNATION.SEGMENT | 3n, IN_SEGMENT],
      [BigInt(R3) | DESIGNATION.R3 | 3n, IN_R3],
      [BigInt(R2) | DESIGNATION.R2 | 3n, IN_R2],
      [BigInt(R1) | DESIGNATION.R1 | 3n, IN_R1],
    ] as const) {
      m.enter(asce);
      m.probe(gaddr + 0x10n);
      m.probe(gaddr + 0x1010n);
      // Addresses beyond the space, at each level.
      for (const shift of [20n, 31n, 42n, 53n, 63n]) m.probe(gaddr ^ (1n << shift));
      m.probe(0);
    }
    m.load(m.hva + DATA, 64);
  }),
  s390xScenario('dat/table-lengths', (s) => {
    const m = new PagedGuest(s);
    for (let length = 0n; length < 4n; length++) {
      m.enter(BigInt(ST) | length);
      for (const index of [0n, 511n, 512n, 1024n, 1536n, 2047n]) m.read(index << 20n, 8);
      m.enter(BigInt(R1) | DESIGNATION.R1 | length);
      for (const index of [0n, 511n, 512n, 1024n, 1536n, 2047n]) m.read(index << 53n, 8);
    }
    // First and last part of the next table.
    m.enter(BigInt(R1) | DESIGNATION.R1 | 3n);
    for (const [table, next, tt, shift] of [
      [R1, R2, 0xcn, 42n],
      [R2, R3, 8n, 31n],
      [R3, ST, 4n, 20n],
    ] as const) {
      for (const offset of [0n, 1n, 3n]) {
        for (const length of [0n, 1n, 3n]) {
          m.entry(table, 1, BigInt(next) | tt | (offset << 6n) | length);
          for (const part of [0n, 1n, 2n, 3n]) m.read(IN_R1 + (part << (shift + 9n)), 8);
        }
      }
      m.entry(table, 1, BigInt(next) | tt | 3n);
    }
    m.read(IN_R1, 8);
  }),
  s390xScenario('dat/bad-entries', (s) => {
    const m = new PagedGuest(s);
    m.enter(BigInt(R1) | DESIGNATION.R1 | 3n);
    for (const [table, next, tt] of [
      [R1, R2, 0xcn],
      [R2, R3, 8n],
      [R3, ST, 4n],
      [ST, PT, 0n],
    ] as const) {
      const good = BigInt(next) | (table === ST ? 0n : 3n);
      for (const type of [0n, 4n, 8n, 0xcn]) {
        m.entry(table, 1, good | type);
        m.read(IN_R1, 8);
        m.entry(table, 1, good | type | INVALID);
        m.read(IN_R1, 8);
      }
      // Bits that mean nothing here, or something only with EDAT.
      for (const bit of [COMMON, 0x400n, PROTECTED, 0x100n, 0x800n]) {
        m.entry(table, 1, good | tt | bit);
        m.probe(IN_R1);
      }
      // A table where there is no memory.
      m.entry(table, 1, 0x5000_0000n | tt | 3n);
      m.read(IN_R1, 8);
      m.entry(table, 1, (2n ** 63n) | tt | 3n);
      m.read(IN_R1, 8);
      m.entry(table, 1, good | tt);
    }
    for (const bits of [PAGE_INVALID, 0x800n, PAGE_INVALID | 0x800n, PROTECTED, PROTECTED | 0x800n, 0x100n, 0x1ffn]) {
      m.page(0, 0, bits);
      m.probe(IN_R1);
    }
    // Frames without memory, protected ones too.
    for (const bits of [0n, PROTECTED]) {
      m.entry(PT, 0, 0x5000_0000n | bits);
      m.probe(IN_R1);
    }
    // The first table itself is missing, or runs out of its memory.
    for (const origin of [0x5000_0000n, 0x3f_f000n, 2n ** 63n]) {
      m.enter(origin | DESIGNATION.R1 | 3n);
      m.read(IN_R1, 8);
      m.read(1n << 63n, 8);
    }
  }),
  s390xScenario('dat/pages-of-a-transfer', (s) => {
    const m = new PagedGuest(s);
    m.enter(BigInt(ST) | 3n);
    // Out of order, one twice, one protected, then none.
    for (const [index, data, bits] of [
      [0, 3, 0n],
      [1, 1, 0n],
      [2, 3, 0n],
      [3, 2, PROTECTED],
      [4, 0, 0n],
      [255, 5, 0n],
    ] as const) {
      m.page(index, data, bits);
    }
    m.read(IN_SEGMENT, 3 * 4096);
    m.read(IN_SEGMENT + 4000n, 5 * 4096 - 4000);
    m.read(IN_SEGMENT + 4000n, 5 * 4096 - 3999);
    // No byte moves if any page can't be stored to, wherever in the range it is.
    m.write(IN_SEGMENT + 4090n, 12, { buf: pattern(12, 0x80) });
    m.load(m.hva + DATA + 3 * 4096 + 4080, 16);
    m.load(m.hva + DATA + 4096, 16);
    m.write(IN_SEGMENT + 2n * 4096n, 3 * 4096, { buf: pattern(3 * 4096, 0x90) });
    m.load(m.hva + DATA + 3 * 4096, 16);
    m.write(IN_SEGMENT + 4n * 4096n, 2 * 4096, { buf: pattern(2 * 4096, 0x90) });
    m.load(m.hva + DATA, 16);
    // Over the segment's end, and over the end of the space.
    m.read(IN_SEGMENT + 0xf_fff8n, 16);
    m.read(0x7fff_fff8n, 16);
    // The last page of the transfer wins where two are one.
    m.write(IN_SEGMENT, 3 * 4096, { buf: pattern(3 * 4096, 0x11) });
    m.load(m.hva + DATA + 3 * 4096, 16);
  }),
  s390xScenario('dat/addressing-modes', (s) => {
    const m = new PagedGuest(s);
    m.entry(ST, 0, BigInt(PT));
    m.entry(ST, 15, BigInt(PT));
    m.entry(ST, 2047, BigInt(PT));
    m.page(255, 4);
    for (const mode of [0n, PSW.MODE_31, PSW.MODE_64]) {
      m.enter(BigInt(ST) | 3n, PSW.DAT | mode);
      for (const gaddr of [0x8010n, 0x10n, 0xff_fffcn, 0x7fff_fffcn, 0x8000_0010n, 0x100_0010n, 2n ** 63n + 0x10n]) {
        m.read(gaddr, 8);
        m.read(gaddr, 8, { flags: CHECK_ONLY });
      }
    }
  }),
  s390xScenario('dat/spaces', (s) => {
    const m = new PagedGuest(s);
    const empty = BigInt(R1);
    const segments = BigInt(ST) | 3n;
    const spaces = [0n, PSW.SECONDARY, PSW.HOME];
    for (const [cr1, cr7, cr13] of [
      [segments, empty, empty],
      [empty, segments, empty],
      [empty, empty, segments],
      [REAL_SPACE, segments | PRIVATE, empty | REAL_SPACE],
    ] as const) {
      for (const space of spaces) {
        m.enter(cr1, DAT_64 | space, { 7: cr7, 13: cr13 });
        m.read(IN_SEGMENT, 16);
        m.read(DATA, 16);
        m.read(IN_SEGMENT, 16, { flags: CHECK_ONLY });
      }
    }
  }),
  s390xScenario('dat/registers-that-count', (s) => {
    const m = new PagedGuest(s);
    m.enter(BigInt(R1));
    m.read(IN_SEGMENT, 8);
    // SET_SREGS counts at once.
    m.setControlRegisters({ 1: BigInt(ST) | 3n });
    m.read(IN_SEGMENT, 8);
    // What is stored into kvm_run doesn't, nor does an initial PSW, before the next KVM_RUN.
    m.store(m.area + KVM_RUN_S390X.crs + 8, BigInt(R1));
    m.store(m.area + KVM_RUN_S390X.psw_mask, 0n);
    m.read(IN_SEGMENT, 8);
    s.calls.getMpState(m.vcpu);
    m.s390x.setInitialPsw(m.vcpu, 0, 0);
    m.s390x.normalReset(m.vcpu);
    m.s390x.setInitialPsw(m.vcpu, 0x1_8000_0000, 0x1234);
    m.load(m.area + KVM_RUN_S390X.psw_mask, 16);
    m.read(IN_SEGMENT, 8);
    m.s390x.initialReset(m.vcpu);
    m.read(IN_SEGMENT, 8);
    m.read(DATA, 8);
  }),
  s390xScenario('dat/low-address-protection', (s) => {
    const m = new PagedGuest(s);
    m.entry(ST, 0, BigInt(PT));
    m.page(1, 1);
    for (const [cr0, bits] of [
      [LAP, 0n],
      [LAP, PRIVATE],
      [0n, 0n],
    ] as const) {
      m.enter(BigInt(ST) | 3n | bits, DAT_64, { 0: cr0 });
      for (const gaddr of [0, 511, 512, 4096, 4607, 4608]) m.probe(gaddr, 1);
      m.write(510, 4);
      m.write(4095, 2);
    }
    // It wins over invalid entries.
    m.page(0, 0, PAGE_INVALID);
    m.enter(BigInt(ST) | 3n, DAT_64, { 0: LAP });
    m.probe(0);
    m.probe(512);
  }),
  s390xScenario('dat/common-segments', (s) => {
    const m = new PagedGuest(s);
    for (const bits of [0n, PRIVATE]) {
      m.enter(BigInt(ST) | 3n | bits);
      m.entry(ST, 1, BigInt(PT) | COMMON);
      m.probe(IN_SEGMENT);
      m.entry(ST, 1, BigInt(PT) | COMMON | PROTECTED);
      m.probe(IN_SEGMENT);
      m.entry(ST, 1, BigInt(PT) | PROTECTED);
      m.probe(IN_SEGMENT);
    }
  }),
  s390xScenario('dat/keys', (s) => {
    const m = new PagedGuest(s);
    m.enter(BigInt(ST) | 3n);
    m.page(1, 1);
    m.setKeys(DATA / 4096, 0x38, 0x30);
    for (const key of [0, 3, 4]) {
      for (const flags of [SKEY | CHECK_ONLY, CHECK_ONLY]) {
        m.read(IN_SEGMENT, 8, { flags, key });
        m.write(IN_SEGMENT, 8, { flags, key });
        m.read(IN_SEGMENT + 4096n, 8, { flags, key });
        m.write(IN_SEGMENT + 4096n, 8, { flags, key });
        m.read(IN_SEGMENT + 4090n, 8, { flags, key });
      }
    }
  }),
  s390xScenario('dat/dirty-and-missing-host-memory', (s) => {
    const m = new PagedGuest(s, MEM.LOG_DIRTY_PAGES);
    m.enter(BigInt(ST) | 3n);
    s.dirtyLog(m.vm, 0, 1024);
    m.write(IN_SEGMENT, 8);
    m.read(IN_SEGMENT, 8);
    s.dirtyLog(m.vm, 0, 1024);
    // A page that the host lets only be read.
    s.calls.mprotect(m.hva + DATA, 4096, PROT.READ);
    m.probe(IN_SEGMENT);
    s.calls.munmap(m.hva + DATA, 4096);
    m.probe(IN_SEGMENT);
    // The page table, then the segment table.
    s.calls.munmap(m.hva + PT, 4096);
    m.probe(IN_SEGMENT);
    s.calls.munmap(m.hva + ST, 4096);
    m.probe(IN_SEGMENT);
    m.read(0x2000_0000, 8);
  }),
  {
    ...s390xScenario('dat/injected', (s) => {
      const m = new PagedGuest(s);
      const prefix = 0x20_0000;
      // The new PSW of program interruptions: an odd address, so that nothing runs.
      m.store(m.hva + prefix + 0x1d0, 0x1_8000_0000n, 0x3000n);
      m.page(1, 1, PROTECTED);
      const inject = (what: () => void, registers: Readonly<Record<number, bigint>> = {}, mask = DAT_64) => {
        m.enter(BigInt(ST) | 3n, mask, { 7: BigInt(ST) | 1n, 13: BigInt(R1), ...registers });
        what();
        // What the interruption leaves in the low core: access id and TEID. Its code is soon replaced by another: the
        // lab's processor can't run guests, which the kernel turns into addressing exceptions.
        s.calls.writeMemory(m.hva + prefix + 0x80, Buffer.alloc(0x30));
        m.store(m.area + KVM_RUN_S390X.s, BigInt(prefix));
        m.store(m.area + KVM_RUN_S390X.kvm_dirty_regs, 1n);
        s.calls.run(m.vcpu, 30);
        m.load(m.hva + prefix + 0xa0, 16);
      };
      inject(() => m.read(IN_SEGMENT + 0x5123n, 8, { flags: INJECT }));
      inject(() => m.write(IN_SEGMENT + 0x5123n, 8, { flags: INJECT }));
      inject(() => m.read(0x20_0123, 8, { flags: INJECT | CHECK_ONLY }));
      inject(() => m.read(2n ** 53n + 0x123n, 8, { flags: INJECT }));
      inject(() => m.write(IN_SEGMENT + 0x1ff8n, 8, { flags: INJECT }));
      inject(() => m.write(IN_SEGMENT + 0xff8n, 16, { flags: INJECT }));
      inject(() => m.write(0x123, 8, { flags: INJECT }), { 0: LAP });
      inject(() => m.read(0x5000_0000, 8, { flags: INJECT }), { 1: REAL_SPACE });
      inject(() => m.read(0x4000_0123, 8, { flags: INJECT }), {}, DAT_64 | PSW.SECONDARY);
      inject(() => m.read(0x123, 8, { flags: INJECT }), {}, DAT_64 | PSW.HOME);
      inject(() => m.read(IN_SEGMENT + 0x5123n, 8, { flags: INJECT, ar: 5 }));
      m.setKeys(DATA / 4096, 0x38);
      inject(() => m.write(IN_SEGMENT + 0x12n, 8, { flags: INJECT | CHECK_ONLY | SKEY, key: 4 }));
      inject(() => m.read(IN_SEGMENT + 0x12n, 8, { flags: INJECT | CHECK_ONLY | SKEY, key: 4 }));
      m.entry(ST, 1, BigInt(PT) | 4n);
      inject(() => m.read(IN_SEGMENT, 8, { flags: INJECT }));
      // A reset takes it back. The address of the PSW, 0x1000, is mapped so that no other interruption comes instead.
      m.entry(ST, 0, BigInt(PT));
      inject(() => {
        m.read(0x20_0123, 8, { flags: INJECT });
        m.s390x.normalReset(m.vcpu);
      });
    }),
    entersSie: true,
  },
  s390xScenario('dat/a-slot-moves-under-the-tables', (s) => {
    const m = new PagedGuest(s);
    m.enter(BigInt(ST) | 3n);
    m.read(IN_SEGMENT, 16);
    // The host changes an entry, then the guest's own tables are replaced by another slot's.
    m.page(0, 2);
    m.read(IN_SEGMENT, 16);
    s.calls.setUserMemoryRegion(m.vm, 0, 0, 0, 0, 0);
    m.read(IN_SEGMENT, 16);
    const other = s.memory(4);
    s.calls.writeMemory(other + ST, filled(2048, INVALID));
    m.store(other + ST + 8, BigInt(PT));
    m.store(other + PT, BigInt(DATA));
    s.calls.writeMemory(other + DATA, pattern(16, 0xee));
    m.slot(other, 4);
    m.read(IN_SEGMENT, 16);
    // Through MEM_OP itself.
    m.absoluteWrite(PT, 8, { buf: filled(1, BigInt(DATA + 4096)) });
    m.read(IN_SEGMENT, 16);
    m.absoluteWrite(PT, 8, { buf: filled(1, PAGE_INVALID) });
    m.read(IN_SEGMENT, 16);
    // The tables are inside the space that they map.
    m.store(other + ST + 8, BigInt(PT));
    m.store(other + PT, BigInt(PT));
    m.write(IN_SEGMENT, 8, { buf: filled(1, BigInt(DATA)) });
    m.read(IN_SEGMENT, 16);
  }),
];
