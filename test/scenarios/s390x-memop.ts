import { MEM, MEMOP, MEMOP_FLAG, PROT } from '../../lib/uapi/flags.ts';
import { type MemOpOptions, MIB, PSW, pattern, S390xVm, s390xScenario } from './s390x-vm.ts';
import type { Scenario } from './scenario.ts';

const { CHECK_ONLY, INJECT, SKEY } = MEMOP_FLAG;
const OPS = Object.values(MEMOP);
const VCPU_OPS = [MEMOP.LOGICAL_READ, MEMOP.LOGICAL_WRITE];
const VM_OPS = [MEMOP.ABSOLUTE_READ, MEMOP.ABSOLUTE_WRITE];

/** What one MEM_OP is refused for, alone and several at once, so that the order of the checks shows. */
const FAULTS: readonly [size: number, options: MemOpOptions][] = [
  [0, {}],
  [0, { flags: CHECK_ONLY }],
  [65_536, {}],
  [65_537, {}],
  [65_537, { flags: CHECK_ONLY }],
  [0xffff_ffff, { buf: null }],
  [8, { flags: INJECT }],
  [8, { flags: 8 }],
  [8, { flags: 1n << 63n }],
  [8, { flags: 0x1_0000_0000 }],
  [8, { key: 16 }],
  [8, { key: 255 }],
  [8, { flags: SKEY | CHECK_ONLY, key: 15 }],
  [8, { flags: SKEY, key: 16 }],
  [8, { flags: SKEY | CHECK_ONLY, key: 16 }],
  [8, { ar: 15 }],
  [8, { ar: 16 }],
  [8, { ar: 255 }],
  [70_000, { flags: SKEY, key: 16 }],
  [70_000, { ar: 16 }],
  [70_000, { flags: 8 }],
  [0, { flags: SKEY, key: 16, ar: 16 }],
  [8, { flags: SKEY, key: 16, buf: null }],
  [8, { ar: 16, buf: null }],
];

/** KVM_S390_MEM_OP without translation: what is refused, buffers, addressing, memory that is missing, dirty pages. */
export const s390xMemOpScenarios: readonly Scenario[] = [
  s390xScenario('memop/refused-on-a-vcpu', (s) => {
    const m = new S390xVm(s);
    m.memory(4);
    for (const op of VCPU_OPS) for (const [size, options] of FAULTS) m.memOp(m.vcpu, op, 0x2_0000, size, options);
    // With an address that has no memory too.
    for (const op of VCPU_OPS) for (const [size, options] of FAULTS) m.memOp(m.vcpu, op, 0xa0_0000, size, options);
  }),
  s390xScenario('memop/refused-on-a-vm', (s) => {
    const m = new S390xVm(s);
    m.memory(4);
    for (const gaddr of [0x2_0000, 0xa0_0000]) {
      for (const op of VM_OPS) for (const [size, options] of FAULTS) m.memOp(m.vm, op, gaddr, size, options);
    }
  }),
  s390xScenario('memop/wrong-operation', (s) => {
    const m = new S390xVm(s);
    m.memory(4);
    const kvm = s.calls.openKvm();
    for (const op of [...OPS, 7, 0xffff_ffff]) {
      const old = new Uint8Array(8);
      // An operation of the other kind of descriptor, also with other faults beside.
      for (const fd of [m.vm, m.vcpu]) {
        const fits = fd === m.vcpu ? op < 4 : op >= 4 && op < 7;
        if (fits) continue;
        for (const [gaddr, size, flags] of [
          [0x2_0000, 8, 0],
          [0xa0_0000, 8, 0],
          [0xa0_0000, 70_000, 0],
          [0x2_0000, 8, 8],
          [0x2_0000, 0, 0],
        ] as const) {
          m.memOp(fd, op, gaddr, size, { flags, old });
        }
      }
      m.memOp(kvm, op, 0x2_0000, 8);
    }
  }),
  s390xScenario('memop/secure-instruction-data', (s) => {
    const m = new S390xVm(s);
    m.memory(4);
    for (const op of [MEMOP.SIDA_READ, MEMOP.SIDA_WRITE]) {
      const attempts: readonly [number, MemOpOptions][] = [
        [8, {}],
        [0, {}],
        [8, { flags: CHECK_ONLY }],
        [8, { sidaOffset: 4088 }],
        [8, { sidaOffset: 0xffff_ffff }],
        [4096, {}],
        [4097, {}],
        [8192, {}],
        [8193, {}],
        [8, { sidaOffset: 8185 }],
      ];
      for (const [size, options] of attempts) m.memOp(m.vcpu, op, 0, size, options);
    }
    m.s390x.initialReset(m.vcpu);
    for (const size of [4096, 8192, 8193]) m.memOp(m.vcpu, MEMOP.SIDA_READ, 0, size);
  }),
  s390xScenario('memop/buffers', (s) => {
    const m = new S390xVm(s);
    m.memory(4);
    for (const [fd, ops] of [
      [m.vcpu, VCPU_OPS],
      [m.vm, VM_OPS],
    ] as const) {
      for (const op of ops) {
        for (const buf of [null, new Uint8Array(0), new Uint8Array(7), new Uint8Array(9)]) {
          for (const gaddr of [0x2_0000, 0xa0_0000]) {
            m.memOp(fd, op, gaddr, 8, { buf });
            m.memOp(fd, op, gaddr, 8, { buf, flags: CHECK_ONLY });
          }
        }
      }
    }
    // A buffer that is long enough for the first page only.
    m.memOp(m.vcpu, MEMOP.LOGICAL_WRITE, 0x3_0000, 8192, { buf: pattern(5000) });
    m.memOp(m.vm, MEMOP.ABSOLUTE_WRITE, 0x3_0000, 8192, { buf: pattern(5000) });
    m.absoluteRead(0x3_0000, 16);
  }),
  s390xScenario('memop/moves', (s) => {
    const m = new S390xVm(s);
    const hva = m.memory(4);
    m.write(0x2_0000, 8);
    m.load(hva + 0x2_0000, 16);
    m.read(0x2_0004, 8);
    m.write(0x2_0ff8, 16, { buf: pattern(16, 9) });
    m.load(hva + 0x2_0ff0, 32);
    for (const size of [1, 2, 3, 4095, 4096, 4097, 65_535, 65_536]) {
      m.write(0x10_0001, size, { buf: pattern(size, size) });
      m.read(0x10_0000, Math.min(65_536, size + 2));
      m.absoluteWrite(0x20_0fff, size, { buf: pattern(size, size + 1) });
      m.absoluteRead(0x20_0ffe, Math.min(65_536, size + 2));
    }
    m.load(hva + 0x20_0ff0, 64);
  }),
  s390xScenario('memop/missing-memory', (s) => {
    const m = new S390xVm(s);
    m.memory(2);
    // Neighbours with other memory behind, then nothing.
    m.memory(1, 2 * MIB, 1);
    m.latch(PSW.MODE_64);
    for (const [gaddr, size] of [
      [2 * MIB - 8, 16],
      [3 * MIB - 8, 8],
      [3 * MIB - 4, 8],
      [3 * MIB - 8192, 12_288],
      [3 * MIB, 1],
      [2n ** 47n, 8],
      [2n ** 63n, 8],
      [2n ** 64n - 4096n, 8],
      [2n ** 64n - 4n, 8],
    ] as const) {
      for (const flags of [CHECK_ONLY, 0]) {
        m.read(gaddr, size, { flags });
        m.absoluteRead(gaddr, size, { flags });
        m.write(gaddr, size, { flags, buf: pattern(size, 0x40) });
        m.absoluteRead(3 * MIB - 8192, 8);
        m.absoluteWrite(gaddr, size, { flags, buf: pattern(size, 0x80) });
        m.absoluteRead(3 * MIB - 8192, 8);
        m.absoluteRead(3 * MIB - 4096, 4096);
      }
    }
  }),
  s390xScenario('memop/addressing-modes', (s) => {
    const m = new S390xVm(s);
    m.memory(16);
    m.memory(1, 2 ** 31 - MIB, 1);
    // Marks at the ends of both modes' spaces.
    m.absoluteWrite(2 ** 24 - 8, 8, { buf: pattern(8, 0x24) });
    m.absoluteWrite(2 ** 31 - 8, 8, { buf: pattern(8, 0x31) });
    m.absoluteWrite(0, 16, { buf: pattern(16, 0) });
    const addresses = [0x2_0000, 2 ** 24 - 4, 2 ** 24 + 8, 2 ** 31 - 4, 2 ** 31 + 8, 2n ** 64n - 4n, 2n ** 63n + 8n];
    const look = () => {
      for (const gaddr of addresses) for (const flags of [0, CHECK_ONLY]) m.read(gaddr, 8, { flags });
    };
    // The mask of a new vCPU is 0.
    look();
    for (const mode of [0n, PSW.MODE_31, PSW.MODE_INVALID, PSW.MODE_64]) {
      m.latch(mode, {}, 0x20_0000 + MIB * 64);
      look();
      m.write(2 ** 24 - 2, 4, { buf: pattern(4, 0x70) });
      m.write(2 ** 31 - 2, 4, { buf: pattern(4, 0x80) });
    }
    m.absoluteRead(0, 8);
    m.absoluteRead(2 ** 24 - 8, 8);
    m.absoluteRead(2 ** 31 - 8, 8);
  }),
  s390xScenario('memop/prefixing', (s) => {
    const m = new S390xVm(s);
    m.memory(4);
    m.latch(PSW.MODE_64);
    m.absoluteWrite(0x100, 4, { buf: pattern(4, 1) });
    // The prefix area has no memory.
    m.read(0x100, 4);
    m.read(0x1ffe, 4);
    m.read(0x2000, 4);
    m.latch(PSW.MODE_64, {}, 0x7ffe_1fff);
    m.read(0x7ffe_0100, 4);
  }),
  s390xScenario('memop/prefix-with-memory', (s) => {
    const m = new S390xVm(s);
    // Registers are taken over although there is no memory yet: then 8 KiB at 0 and at the prefix are exchanged.
    m.latch(PSW.MODE_64, {}, 0x20_0000);
    m.memory(4);
    for (const [gaddr, seed] of [
      [0x100, 0x10],
      [0x1100, 0x20],
      [0x2100, 0x30],
      [0x20_0100, 0x40],
      [0x20_1100, 0x50],
      [0x20_2100, 0x60],
    ] as const) {
      m.write(gaddr, 8, { buf: pattern(8, seed) });
    }
    for (const gaddr of [0x100, 0x1100, 0x2100, 0x20_0100, 0x20_1100, 0x20_2100]) {
      m.absoluteRead(gaddr, 8);
      m.read(gaddr, 8);
    }
    m.write(0x1ffc, 8, { buf: pattern(8, 0x70) });
    m.absoluteRead(0x1ff8, 16);
    m.absoluteRead(0x20_1ff8, 16);
  }),
  s390xScenario('memop/low-address-protection', (s) => {
    const m = new S390xVm(s);
    // Without the prefix at an absent place, so that the low addresses have memory.
    m.latch(PSW.MODE_64, { 0: 0x1000_0000n }, 0x10_0000);
    m.memory(4);
    for (const gaddr of [0, 511, 512, 4095, 4096, 4607, 4608, 8192, 2 ** 32]) {
      m.write(gaddr, 1);
      m.write(gaddr, 1, { flags: CHECK_ONLY });
      m.read(gaddr, 1);
    }
    // Only the start of each page counts.
    m.write(510, 4);
    m.write(512, 3584);
    m.write(512, 3585);
    m.write(512, 3585, { flags: CHECK_ONLY });
    m.write(4608, 3585);
    m.absoluteWrite(0, 8);
    m.setControlRegisters({});
    m.write(0, 8);
  }),
  s390xScenario('memop/access-lists-are-not-looked-at', (s) => {
    const m = new S390xVm(s);
    m.memory(2);
    for (let ar = 0; ar < 16; ar++) m.read(0x2_0000, 8, { ar });
  }),
  s390xScenario('memop/compare-exchange', (s) => {
    const m = new S390xVm(s);
    m.memory(2);
    for (const size of [1, 2, 4, 8, 16]) {
      m.absoluteWrite(0x5_0000, 32, { buf: new Uint8Array(32).fill(0x11) });
      const old = new Uint8Array(size).fill(0x11);
      m.compareExchange(0x5_0000, old, pattern(size, 0x21));
      m.absoluteRead(0x5_0000, 32);
      // What it finds comes back.
      m.compareExchange(0x5_0000, new Uint8Array(size).fill(0x33), pattern(size, 0x41));
      m.compareExchange(0x5_0000 + size, new Uint8Array(size).fill(0x11), pattern(size, 0x51), { flags: SKEY });
      // Buffers that are longer than the operand.
      m.memOp(m.vm, MEMOP.ABSOLUTE_CMPXCHG, 0x5_0000, size, { old: new Uint8Array(20), buf: pattern(20, 0x61) });
      m.absoluteRead(0x5_0000, 32);
    }
    // Sixteen bytes of which one differs.
    const almost = new Uint8Array(16);
    m.absoluteRead(0x5_0000, 16, { buf: almost });
    almost[15]! ^= 1;
    m.compareExchange(0x5_0000, almost, new Uint8Array(16));
    m.compareExchange(0x5_0000, almost, new Uint8Array(16));
    m.absoluteRead(0x5_0000, 16);
  }),
  s390xScenario('memop/compare-exchange-refused', (s) => {
    const m = new S390xVm(s);
    m.memory(2);
    const attempt = (gaddr: number | bigint, size: number, options: MemOpOptions = {}) =>
      m.memOp(m.vm, MEMOP.ABSOLUTE_CMPXCHG, gaddr, size, { old: new Uint8Array(32), buf: pattern(32), ...options });
    for (const size of [0, 3, 5, 6, 7, 12, 17, 32, 65_536, 65_537]) {
      attempt(0x5_0000, size);
      attempt(0xa0_0000, size);
    }
    for (const flags of [CHECK_ONLY, INJECT, CHECK_ONLY | SKEY, 8, 1n << 40n]) attempt(0x5_0000, 8, { flags });
    attempt(0x5_0000, 8, { flags: SKEY, key: 16 });
    attempt(0x5_0000, 70_000, { flags: SKEY, key: 16 });
    attempt(0x5_0000, 17, { flags: SKEY, key: 16 });
    attempt(0x5_0000, 8, { key: 16 });
    for (const size of [2, 4, 8, 16]) for (const off of [1, 2, 4, 8]) if (off < size) attempt(0x5_0000 + off, size);
    attempt(0xa0_0001, 8);
    attempt(0x5_0001, 3);
    attempt(0x5_0000, 8, { buf: null });
    attempt(0x5_0000, 8, { buf: new Uint8Array(7) });
    attempt(0x5_0000, 8, { old: null });
    attempt(0x5_0000, 8, { old: new Uint8Array(7) });
    attempt(0xa0_0000, 8, { buf: null });
    attempt(0xa0_0001, 8, { old: null });
    m.absoluteRead(0x5_0000, 32);
  }),
  s390xScenario('memop/host-memory', (s) => {
    const m = new S390xVm(s);
    const hva = m.memory(4);
    m.absoluteWrite(0, 4 * 4096 + 16);
    // Pages 0x100 and 0x101 are gone, 0x180 may be read only, 0x190 not at all.
    s.calls.munmap(hva + MIB, 2 * 4096);
    s.calls.mprotect(hva + MIB + 0x8_0000, 4096, PROT.READ);
    s.calls.mprotect(hva + MIB + 0x9_0000, 4096, PROT.NONE);
    m.latch(PSW.MODE_64);
    for (const gaddr of [MIB, MIB + 0x8_0000, MIB + 0x9_0000]) {
      for (const flags of [0, CHECK_ONLY]) {
        m.read(gaddr, 8, { flags });
        m.write(gaddr, 8, { flags });
        m.absoluteRead(gaddr, 8, { flags });
        m.absoluteWrite(gaddr, 8, { flags });
      }
      // From the page before into it, and out of it.
      for (const across of [gaddr - 8, gaddr + 4096 - 8]) {
        m.read(across, 16);
        m.write(across, 16, { buf: pattern(16, 0x33) });
        m.absoluteRead(across, 16);
        m.absoluteWrite(across, 16, { buf: pattern(16, 0x44) });
      }
      m.absoluteRead(gaddr - 8, 8);
      m.compareExchange(gaddr, new Uint8Array(8), pattern(8));
      m.compareExchange(gaddr, pattern(8), pattern(8));
    }
  }),
  s390xScenario('memop/dirty-pages', (s) => {
    const m = new S390xVm(s);
    m.memory(4, 0, 0, MEM.LOG_DIRTY_PAGES);
    m.memory(1, 4 * MIB, 1, MEM.LOG_DIRTY_PAGES);
    const log = () => [s.dirtyLog(m.vm, 0, 1024), s.dirtyLog(m.vm, 1, 256)];
    log();
    m.write(0x3000, 8);
    m.write(0x7ffc, 8);
    m.absoluteWrite(0x4_2000, 8);
    m.absoluteWrite(0x4_3000, 8, { flags: SKEY });
    log();
    log();
    m.compareExchange(0x4_4000, new Uint8Array(8), pattern(8));
    m.compareExchange(0x4_6000, pattern(8), pattern(8));
    m.read(0x4_5000, 8);
    m.write(0x4_7000, 8, { flags: CHECK_ONLY });
    m.absoluteWrite(0x4_8000, 8, { flags: CHECK_ONLY });
    log();
    m.write(4 * MIB - 8, 16);
    log();
    // Refused after the first page, and before it.
    m.absoluteWrite(5 * MIB - 8, 16);
    m.write(5 * MIB - 4096 - 8, 4096 + 16);
    log();
    m.write(0x5_0000, 65_536);
    log();
  }),
  s390xScenario('memop/slots-come-and-go', (s) => {
    const m = new S390xVm(s);
    const hva = m.memory(1);
    m.write(0x1000, 8);
    s.calls.setUserMemoryRegion(m.vm, 0, 0, 0, 0, 0);
    m.read(0x1000, 8);
    m.absoluteRead(0x1000, 8);
    m.slot(hva, 1, 4 * MIB, 3);
    m.read(4 * MIB + 0x1000, 8);
    m.absoluteRead(0x1000, 8);
    m.slot(hva, 1, 8 * MIB, 4);
    m.absoluteWrite(8 * MIB + 0x1000, 8, { buf: pattern(8, 0x50) });
    m.read(4 * MIB + 0x1000, 8);
  }),
];
