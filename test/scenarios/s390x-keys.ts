import { KEYOP, MADV, MEM, MEMOP_FLAG, PROT } from '../../lib/uapi/flags.ts';
import { MIB, PSW, pattern, S390xVm, s390xScenario } from './s390x-vm.ts';
import type { Scenario, ScenarioHost } from './scenario.ts';

const { CHECK_ONLY, SKEY } = MEMOP_FLAG;
const { ISKE, RRBE, SSKE } = KEYOP;

/** Control bits of CR0. */
const FETCH_OVERRIDE = 0x200_0000n;
const STORAGE_OVERRIDE = 0x100_0000n;

/** A VM with 2 MiB of memory whose guest uses keys: up to 6.19 a whole process does, once one of its guests did. */
export class KeyedVm extends S390xVm {
  readonly hva: number;

  constructor(s: ScenarioHost, flags = 0) {
    super(s);
    this.hva = this.memory(2, 0, 0, flags);
    // Keys are where the page tables are: there should be some.
    for (const gpa of [0, MIB]) this.absoluteWrite(gpa, 8, { buf: new Uint8Array(8) });
    this.setKeys(0, 0);
  }
}

/** GET_SKEYS, SET_SKEYS and the keys' effect on MEM_OP. The first one has to come before any process uses keys. */
export const s390xKeyScenarios: readonly Scenario[] = [
  s390xScenario('keys/not-in-use', (s) => {
    const m = new S390xVm(s);
    m.memory(2);
    m.getKeys(0, 4);
    // Neither the count nor the buffer is looked at.
    for (const count of [0, 1_048_577]) m.s390x.getSkeys(m.vm, 0, count, 0, new Uint8Array(4));
    m.s390x.getSkeys(m.vm, 0, 4, 0, null);
    m.getKeys(0x5000, 4);
    m.s390x.getSkeys(m.vm, 0, 4, 1, new Uint8Array(4));
    m.write(0x1000, 8, { flags: SKEY, key: 0 });
    m.write(0x1000, 8, { flags: SKEY | CHECK_ONLY, key: 3 });
    m.read(0x1000, 8, { flags: SKEY | CHECK_ONLY, key: 3 });
    m.getKeys(0, 4);
    // Refused calls don't begin the use of keys; one that fails later does.
    m.s390x.setSkeys(m.vm, 0, 0, 0, new Uint8Array(1));
    m.s390x.setSkeys(m.vm, 0, 1, 1, new Uint8Array(1));
    m.s390x.setSkeys(m.vm, 0, 4, 0, new Uint8Array(3));
    m.getKeys(0, 4);
    m.setKeys(0x5000, 0x10);
    m.getKeys(0x180, 4);
  }),
  s390xScenario('keys/refused', (s) => {
    const m = new KeyedVm(s);
    const { s390x, vm } = m;
    for (const count of [0, 1, 1_048_576, 1_048_577, 2n ** 32n, 2n ** 64n - 1n]) {
      for (const flags of [0, 1, 0x8000_0000]) {
        for (const keys of [null, new Uint8Array(1)]) {
          s390x.getSkeys(vm, 0, count, flags, keys);
          s390x.setSkeys(vm, 0, count, flags, keys);
        }
      }
    }
    s390x.getSkeys(vm, 0x100, 4, 0, new Uint8Array(3));
    s390x.setSkeys(vm, 0x100, 4, 0, new Uint8Array(3));
    s390x.getSkeys(vm, 0x5000, 4, 0, null);
    s390x.setSkeys(vm, 0x5000, 4, 0, null);
    for (const gfn of [0x200, 0x5000, 2n ** 52n, 2n ** 63n, 2n ** 64n - 1n]) {
      m.getKeys(gfn, 2);
      m.setKeys(gfn, 0x10, 0x20);
    }
    for (const fd of [m.vcpu, s.calls.openKvm()]) {
      s390x.getSkeys(fd, 0, 1, 0, new Uint8Array(1));
      s390x.setSkeys(fd, 0, 1, 0, new Uint8Array(1));
    }
  }),
  s390xScenario('keys/round-trip', (s) => {
    const m = new KeyedVm(s);
    m.setKeys(0x80, ...Array.from({ length: 128 }, (_, i) => i * 2));
    m.getKeys(0x80, 128);
    // The unused bit is refused, and what came before it is set.
    for (const bad of [1, 0x11, 0xff]) {
      m.setKeys(0x180, 0x30, bad, 0x40);
      m.getKeys(0x180, 3);
    }
    m.getKeys(0x1f0, 16);
  }),
  s390xScenario('keys/holes', (s) => {
    const m = new KeyedVm(s);
    m.memory(1, 4 * MIB, 1);
    m.absoluteWrite(4 * MIB, 8);
    m.setKeys(0x1fe, 0x40, 0x50, 0x60);
    m.getKeys(0x1fe, 3);
    m.getKeys(0x1fe, 2);
    m.setKeys(0x3ff, 0x70);
    m.setKeys(0x4ff, 0x20, 0x30);
    m.getKeys(0x4ff, 1);
    m.getKeys(0x3ff, 2);
    m.getKeys(0, 0x201);
  }),
  s390xScenario('keys/checks', (s) => {
    const m = new KeyedVm(s);
    m.latch(PSW.MODE_64);
    const keys = [0x00, 0x08, 0x10, 0x18, 0x90, 0x98, 0xf6, 0xfe];
    m.setKeys(0x100, ...keys);
    for (const key of [0, 1, 2, 9, 15]) {
      for (const page of keys.keys()) m.checks(MIB + page * 4096, 8, key);
    }
    // Several pages: the first that refuses decides.
    m.checks(MIB + 0x2000, 0x2000, 1);
    m.checks(MIB + 0x2000, 0x2001, 1);
    m.checks(MIB + 0x3ff8, 16, 1);
    m.checks(MIB + 0x1ff8, 16, 2);
    // Without the flag the key is 0.
    m.write(MIB + 0x3000, 8, { key: 5 });
    m.write(MIB + 0x3000, 8, { key: 5, flags: CHECK_ONLY });
  }),
  s390xScenario('keys/overrides', (s) => {
    const m = new S390xVm(s);
    m.latch(PSW.MODE_64, {}, 0x10_0000);
    m.memory(2);
    for (const gpa of [0, MIB]) m.absoluteWrite(gpa, 8, { buf: new Uint8Array(8) });
    // Real 0 is at the prefix.
    m.setKeys(0x100, 0x18, 0x18, 0x98);
    m.setKeys(0, 0x18, 0x18, 0x98, 0x90);
    for (const cr0 of [0n, FETCH_OVERRIDE, STORAGE_OVERRIDE, FETCH_OVERRIDE | STORAGE_OVERRIDE]) {
      m.setControlRegisters({ 0: cr0 });
      for (const [gaddr, size] of [
        [0, 8],
        [0, 2048],
        [0, 2049],
        [2047, 1],
        [2047, 2],
        [2048, 1],
        [4096, 8],
        [0x2000, 8],
        [0x3000, 8],
      ] as const) {
        for (const key of [2, 9]) m.checks(gaddr, size, key);
      }
    }
  }),
  s390xScenario('keys/absolute-checks-of-several-pages', (s) => {
    const m = new KeyedVm(s);
    m.setKeys(0x1ff, 0x10);
    for (const [flags, key] of [
      [CHECK_ONLY, 0],
      [CHECK_ONLY | SKEY, 0],
      [CHECK_ONLY | SKEY, 1],
      [CHECK_ONLY | SKEY, 2],
    ] as const) {
      for (const gaddr of [2 * MIB - 8, 2 * MIB, 2 * MIB - 4096 - 8]) {
        for (const size of [8, 16, 8192]) {
          m.absoluteRead(gaddr, size, { flags, key });
          m.absoluteWrite(gaddr, size, { flags, key });
        }
      }
    }
  }),
  s390xScenario('keys/reference-and-change', (s) => {
    const m = new KeyedVm(s);
    // The pages are there before their keys are set, and user space doesn't touch them afterwards.
    m.absoluteWrite(MIB, 8 * 4096);
    m.setKeys(0x100, 0x10, 0x18, 0x20, 0x26, 0x30, 0x40, 0x50, 0x60);
    m.getKeys(0x100, 8);
    m.read(MIB, 8);
    m.write(MIB + 0x1000, 8);
    m.absoluteRead(MIB + 0x2000, 8);
    m.absoluteWrite(MIB + 0x4000, 8);
    m.compareExchange(MIB + 0x5000, new Uint8Array(8), pattern(8));
    m.read(MIB + 0x6000, 8, { flags: CHECK_ONLY });
    m.write(MIB + 0x6000, 8, { flags: CHECK_ONLY });
    m.absoluteWrite(MIB + 0x7000, 8, { flags: CHECK_ONLY | SKEY, key: 6 });
    m.getKeys(0x100, 8);
  }),
  s390xScenario('keys/dirty-pages', (s) => {
    const m = new KeyedVm(s, MEM.LOG_DIRTY_PAGES);
    m.absoluteWrite(MIB, 4 * 4096);
    s.dirtyLog(m.vm, 0, 512);
    m.setKeys(0x100, 0x10, 0, 0x20);
    s.dirtyLog(m.vm, 0, 512);
    m.getKeys(0x100, 4);
    s.dirtyLog(m.vm, 0, 512);
    // The same keys again; only R; one that fails after another.
    m.setKeys(0x100, 0x10, 0, 0x20);
    s.dirtyLog(m.vm, 0, 512);
    m.setKeys(0x102, 0x24);
    s.dirtyLog(m.vm, 0, 512);
    m.setKeys(0x103, 0x30, 0x31);
    s.dirtyLog(m.vm, 0, 512);
  }),
  s390xScenario('keys/dirty-pages-that-the-guest-has', (s) => {
    const m = new KeyedVm(s, MEM.LOG_DIRTY_PAGES);
    const log = () => s.dirtyLog(m.vm, 0, 512);
    m.absoluteWrite(MIB, 4 * 4096);
    log();
    // The guest's own page tables get an entry, as when the guest touches the page.
    m.s390x.vcpuFault(m.vcpu, MIB);
    log();
    log();
    m.setKeys(0x100, 0x10, 0, 0x20);
    log();
    log();
    m.setKeys(0x100, 0x10, 0, 0x20);
    log();
    m.setKeys(0x102, 0x24);
    log();
    m.setKeys(0x80, 0x24);
    log();
    s.calls.writeMemory(m.hva + MIB + 0x3000, new Uint8Array(8));
    s.calls.writeMemory(m.hva + MIB + 0x5000, new Uint8Array(8));
    s.calls.readMemory(m.hva + MIB + 0x6000, new Uint8Array(8));
    log();
    log();
    m.absoluteWrite(MIB + 0x3000, 8);
    log();
    log();
  }),
  s390xScenario('keys/host-accesses', (s) => {
    const m = new S390xVm(s);
    const hva = m.memory(4);
    const get = () => m.getKeys(0x100, 4);
    m.setKeys(0, 0);
    // Of pages that nobody has touched yet.
    s.calls.readMemory(hva + MIB, new Uint8Array(8));
    s.calls.writeMemory(hva + MIB + 0x1ffc, new Uint8Array(8));
    get();
    // Of pages with a key, and those that an access already set R or C in.
    m.setKeys(0x100, 0x10, 0x28, 0x32, 0x44);
    s.calls.readMemory(hva + MIB, new Uint8Array(0x2000));
    get();
    s.calls.writeMemory(hva + MIB, new Uint8Array(0x4000));
    get();
    m.setKeys(0x100, 0x10, 0x20, 0x30, 0x40);
    m.absoluteRead(MIB, 8);
    s.calls.writeMemory(hva + MIB, new Uint8Array(8));
    m.absoluteWrite(MIB + 0x1000, 8);
    s.calls.readMemory(hva + MIB + 0x1000, new Uint8Array(8));
    get();
    // What is no memory of the guest's while it is touched has its key all the same.
    s.calls.writeMemory(hva + 3 * MIB + 0x5000, new Uint8Array(8));
    m.getKeys(0x304, 3);
  }),
  s390xScenario('keys/untouched-memory', (s) => {
    const m = new S390xVm(s);
    const hva = m.memory(8);
    // The first key of a segment that has no page table yet only faults the page in, unless it is 0.
    m.setKeys(0x100, 0x10, 0x20);
    m.getKeys(0x100, 2);
    m.setKeys(0x100, 0x10);
    m.getKeys(0x100, 2);
    m.setKeys(0x200, 0, 0, 0x30, 0x40);
    m.getKeys(0x200, 4);
    // Read by the host, by MEM_OP, and written.
    s.calls.readMemory(hva + 3 * MIB, new Uint8Array(1));
    m.setKeys(0x300, 0x50);
    m.getKeys(0x300, 1);
    m.absoluteRead(4 * MIB + 0x8000, 8);
    m.setKeys(0x400, 0x60);
    m.getKeys(0x400, 1);
    // Over the end of a segment.
    m.setKeys(0x4ff, 0x70, 0x80, 0x90);
    m.getKeys(0x4ff, 3);
    s.calls.mprotect(hva + 6 * MIB, 4096, PROT.READ);
    s.calls.mprotect(hva + 7 * MIB, 4096, PROT.NONE);
    for (const gfn of [0x600, 0x700]) {
      m.setKeys(gfn, 0);
      m.setKeys(gfn, 0x10);
      m.getKeys(gfn, 1);
      m.setKeys(gfn + 1, 0x10);
      m.setKeys(gfn, 0x20);
      m.getKeys(gfn, 2);
    }
  }),
  s390xScenario('keys/host-memory', (s) => {
    const m = new KeyedVm(s);
    m.latch(PSW.MODE_64);
    m.absoluteWrite(MIB, 4 * 4096);
    m.setKeys(0x100, 0x10, 0x20, 0x30, 0x40);
    s.calls.munmap(m.hva + MIB + 4096, 4096);
    s.calls.mprotect(m.hva + MIB + 0x2000, 4096, PROT.READ);
    s.calls.mprotect(m.hva + MIB + 0x3000, 4096, PROT.NONE);
    for (const page of [0, 1, 2, 3]) {
      m.getKeys(0x100 + page, 1);
      m.setKeys(0x100 + page, 0x50);
      m.getKeys(0x100 + page, 1);
      for (const key of [0, 5, 6]) m.checks(MIB + page * 4096, 8, key);
    }
    m.setKeys(0x100, 0x60, 0x60);
    m.getKeys(0x100, 1);
  }),
  s390xScenario('keys/belong-to-host-pages', (s) => {
    const m = new KeyedVm(s);
    m.setKeys(0x100, 0x10, 0x20);
    // The same memory behind another slot, and behind one of another VM.
    m.slot(m.hva, 2, 8 * MIB, 1);
    m.getKeys(0x900, 2);
    const other = new S390xVm(s);
    other.getKeys(0x100, 2);
    other.slot(m.hva, 2);
    other.getKeys(0x100, 2);
    other.setKeys(0x101, 0x40);
    m.getKeys(0x100, 2);
    // The slot goes, the key stays.
    s.calls.setUserMemoryRegion(m.vm, 0, 0, 0, 0, 0);
    m.getKeys(0x100, 2);
    m.slot(m.hva, 2);
    m.getKeys(0x100, 2);
  }),
  s390xScenario('keys/keyop', (s) => {
    const m = new KeyedVm(s);
    for (const operation of [0, 1, 2, 3, 4]) m.s390x.keyOp(m.vm, MIB, operation, Uint8Array.of(0x10));
  }),
  s390xScenario('keys/keyop-before-keys-are-used', (s) => {
    const m = new S390xVm(s);
    m.memory(2);
    const keyOp = (gaddr: number, operation: number, key = 0): number =>
      m.s390x.keyOp(m.vm, gaddr, operation, Uint8Array.of(key));
    // Up to 6.19 there is none, and keys are in use already, if anybody in this process used some.
    if (keyOp(0x5000, ISKE) < 0) return;
    // A page that is there has the key of its host frame meanwhile, which is anybody's: none is asked for.
    keyOp(0x5000, SSKE, 0x50);
    m.getKeys(4, 3);
    // With the bit that no key has; and what comes in where nothing should.
    keyOp(0x6000, SSKE, 0x51);
    keyOp(0x6000, ISKE, 0xff);
    keyOp(0x7000, SSKE, 0x36);
    for (const operation of [RRBE, ISKE, RRBE, ISKE]) keyOp(0x7000, operation);
    // The first keys that are set are the only ones then.
    m.setKeys(8, 0x70);
    m.getKeys(4, 6);
    keyOp(0x8000, SSKE, 0x40);
    m.setKeys(9, 0x10);
    m.getKeys(4, 6);
    // Where there is no slot, inside a page, and at the end of everything.
    for (const operation of [ISKE, RRBE, SSKE, 9]) keyOp(2 * MIB, operation, 0x10);
    for (const gaddr of [0x8123, 2 * MIB - 1]) keyOp(gaddr, ISKE);
    m.s390x.keyOp(m.vm, 2n ** 64n - 4096n, ISKE, Uint8Array.of(0));
  }),
  s390xScenario('keys/slots-and-holes', (s) => {
    const m = new KeyedVm(s);
    // Keys of the frames before a hole stay set, and nothing is read over one.
    m.setKeys(0x1fe, 0x10, 0x20, 0x30, 0x40);
    m.getKeys(0x1fe, 2);
    m.getKeys(0x1fe, 4);
    m.memory(1, 3 * MIB, 1);
    m.setKeys(0x2ff, 0x50, 0x60);
    m.getKeys(0x300, 1);
    // A reserved bit before a hole, and behind one.
    m.setKeys(0x1fe, 0x51, 0x50, 0x50);
    m.setKeys(0x1fe, 0x50, 0x50, 0x51);
    m.getKeys(0x1fe, 2);
    // What is not needed keeps its key, also when it is there again; a slot that is deleted or moved does not.
    m.setKeys(0x100, 0x90, 0xa0);
    s.calls.madvise(m.hva, 2 * MIB, MADV.DONTNEED);
    m.getKeys(0x100, 2);
    s.calls.writeMemory(m.hva + MIB, new Uint8Array(0x2000));
    m.getKeys(0x100, 2);
    m.slot(m.hva, 2, 16 * MIB);
    m.getKeys(0x100, 1);
    m.getKeys(0x1100, 2);
    m.setKeys(0x1100, 0xb0);
    s.calls.setUserMemoryRegion(m.vm, 0, 0, 0, 0, 0);
    m.slot(m.hva, 2, 16 * MIB);
    m.getKeys(0x1100, 2);
  }),
  s390xScenario('keys/of-pages-that-are-there', (s) => {
    const m = new KeyedVm(s, MEM.LOG_DIRTY_PAGES);
    const log = (): void => {
      s.dirtyLog(m.vm, 0, 512);
    };
    log();
    const preFault = (gpa: number, size: number): void => {
      s.calls.preFaultMemory(m.vcpu, BigUint64Array.of(BigInt(gpa), BigInt(size)), 0);
    };
    // Pages that nobody has, and those that the guest has.
    m.setKeys(0x120, 0x10, 0x20);
    log();
    m.s390x.vcpuFault(m.vcpu, 0x14_0000);
    log();
    m.setKeys(0x140, 0x10, 0x20);
    log();
    m.setKeys(0x140, 0x10, 0x20);
    log();
    preFault(0x16_0000, 0x2000);
    log();
    for (const operation of [SSKE, RRBE, ISKE]) m.s390x.keyOp(m.vm, 0x16_0000, operation, Uint8Array.of(0x36));
    log();
    m.getKeys(0x160, 2);
    // The page goes and comes again.
    m.setKeys(0x161, 0x44);
    s.calls.madvise(m.hva + 0x16_0000, 0x2000, MADV.DONTNEED);
    log();
    preFault(0x16_0000, 0x2000);
    log();
    m.getKeys(0x160, 2);
  }),
  s390xScenario('keys/pre-fault', (s) => {
    const m = new S390xVm(s);
    const hva = m.memory(2);
    const preFault = (gpa: number | bigint, size: number | bigint, flags = 0): void => {
      s.calls.preFaultMemory(m.vcpu, BigUint64Array.of(BigInt(gpa), BigInt(size)), flags);
    };
    preFault(0x1_0000, 0x1_0000);
    preFault(2 * MIB - 0x2000, 0x4000);
    preFault(2 * MIB, 0x1000);
    preFault(0x1000, 0x1000, 1);
    s.calls.munmap(hva + 0x8000, 4096);
    s.calls.mprotect(hva + 0x9000, 4096, PROT.READ);
    s.calls.mprotect(hva + 0xa000, 4096, PROT.NONE);
    for (const page of [8, 9, 10]) preFault(page * 4096, 4096);
    preFault(0x7000, 0x4000);
  }),
];
