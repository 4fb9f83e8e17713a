import { V_LO } from '../../lib/arch/ppc64/model/hpte.ts';
import { LARGE_SIZES, plainHtabLoops } from '../../lib/arch/ppc64/model/htab-loops.ts';
import {
  applyHtabStream,
  encodeHpte,
  encodeHtabStream,
  encodeSegment,
  findHpte,
  HPTES_PER_GROUP,
  Htab,
  primaryGroup,
  translate,
} from '../../lib/arch/ppc64/model/index.ts';
import { loadNative } from '../../lib/backends/native.ts';
import { type GuestProgram, hypercall, spin } from '../../lib/emulated/guest.ts';
import { Kvm } from '../../lib/handles/kvm.ts';
import type { Vm } from '../../lib/handles/vm.ts';
import { type Bench, type Benchmark, randomU32, requireEqual } from './benchmark.ts';
import { type Case, goingOn, repeat } from './measure.ts';

const VSID = 0x12_3456;
const SEGMENT = encodeSegment({ ea: 0, vsid: VSID, segmentSize: '1T' });
const MEMORY_PAGES = 4096;

/** A table of 2^`power` slots, each valid with the given probability; entries are those of ordinary 4 KiB pages. */
function randomTable(power: number, share: number): Htab {
  const table = new Htab(power + 4);
  const random = randomU32();
  for (let slot = 0; slot < table.entryCount; slot++) {
    if (random() < share * 2 ** 32)
      table.setWords(slot, 0x4000_1234, (random() & 0xffff_ff80) | 1, 0, (random() & 0xffff_f000) | 0x192);
  }
  return table;
}

export const htabStreams: Benchmark = {
  name: 'htab-stream',
  needsKvm: false,
  *cases({ comparators: { c }, sizes }: Bench): Generator<Case> {
    const native = loadNative();
    const loops = 'htab' in native ? native.htab : undefined;
    for (const [power, percent] of sizes([
      [20, 50],
      [20, 5],
      [20, 95],
      [22, 50],
      [22, 100],
    ] as const)) {
      const table = randomTable(power, percent / 100);
      const stream = encodeHtabStream(table);
      const target = new Htab(table.order);
      const room = new Uint8Array(stream.length + 8 * table.entryCount);
      const length = new Float64Array(1);
      c.htabEncode(table.bytes, table.entryCount, room, 1, length);
      requireEqual(stream.length, length[0]!, 'bytes of the stream');
      requireEqual(Buffer.compare(stream, room.subarray(0, stream.length)), 0, 'the stream');
      applyHtabStream(target, stream);
      requireEqual(Buffer.compare(target.bytes, table.bytes), 0, 'the table');
      const copy = (n: number): void => c.memcpy(room, stream, stream.length, n);
      const megabytes = (stream.length / 1e6).toFixed(1);
      const title = `2^${power} slots, ${percent} % valid, a stream of ${megabytes} MB`;
      const shared = { meter: 'cpu', per: 'byte of stream', times: stream.length } as const;
      yield {
        title: `decoding a first pass: ${title}`,
        ...shared,
        contenders: [
          { name: 'applyHtabStream', run: (n) => repeat(n, () => applyHtabStream(target, stream, { loops })) },
          {
            name: 'without the addon',
            run: (n) => repeat(n, () => plainHtabLoops.apply(target.bytes, stream, 1, LARGE_SIZES)),
          },
          { name: 'C', run: (n) => c.htabDecode(stream, stream.length, target.bytes, table.entryCount, n) },
          { name: 'memcpy', run: copy },
        ],
        comparisons: [
          { of: 'applyHtabStream', to: 'C', goal: 1.2 },
          { of: 'without the addon', to: 'C' },
          { of: 'applyHtabStream', to: 'memcpy' },
        ],
      };
      yield {
        title: `encoding a first pass: ${title}`,
        ...shared,
        contenders: [
          {
            name: 'encodeHtabStream into',
            run: (n) => repeat(n, () => encodeHtabStream(table, { loops, into: room })),
          },
          {
            name: 'without the addon',
            run: (n) => repeat(n, () => plainHtabLoops.encode(table.bytes, 0, table.entryCount, V_LO.VALID, 1, room)),
          },
          { name: 'C', run: (n) => c.htabEncode(table.bytes, table.entryCount, room, n, length) },
          { name: 'encodeHtabStream', run: (n) => repeat(n, () => encodeHtabStream(table, { loops })) },
          { name: 'C into new memory', run: (n) => c.htabEncodeNew(table.bytes, table.entryCount, n, length) },
          { name: 'memcpy', run: copy },
        ],
        comparisons: [
          { of: 'encodeHtabStream into', to: 'C', goal: 1.4 },
          { of: 'without the addon', to: 'C' },
          { of: 'encodeHtabStream', to: 'C into new memory', goal: 1.4 },
          { of: 'encodeHtabStream into', to: 'memcpy' },
        ],
      };
    }
  },
};

/** A VM of an emulated kernel with memory and an empty table of 2^`power` slots. */
function emulatedVm(power: number): { readonly kvm: Kvm; readonly vm: Vm } {
  const kvm = Kvm.open({ backend: 'emulated', arch: 'ppc64', pageSize: 4096 });
  const vm = kvm.createVm();
  vm.memory.addRam(0, kvm.mapAnonymous(MEMORY_PAGES * 4096));
  vm.hpt.allocate(power + 4);
  return { kvm, vm };
}

/** Changes between two passes. */
const CHANGES = 100;

/** Writes so many entries to random slots, and reads the pass that tells of them. */
function changeAndRead(power: number): () => void {
  const { vm } = emulatedVm(power);
  const reader = vm.hpt.openReader();
  while (reader.next() !== undefined);
  // The writer checks the table's order with each write; here it is the passes that are measured.
  const { fd } = vm.hpt.openWriter();
  const chunk = Buffer.alloc(24);
  const { v, r } = encodeHpte({ vsid: VSID, segmentSize: '1T', offset: 0, ra: 0x1000 });
  chunk.writeUInt16LE(1, 4);
  chunk.writeBigUInt64BE(v, 8);
  chunk.writeBigUInt64BE(r, 16);
  const random = randomU32();
  return () => {
    for (let i = 0; i < CHANGES; i++) {
      chunk.writeUInt32LE(random() % 2 ** power);
      vm.calls.write(fd, chunk);
    }
    while (reader.next() !== undefined);
  };
}

export const htabLaterPasses: Benchmark = {
  name: 'htab-later-pass',
  needsKvm: false,
  *cases({ sizes }: Bench): Generator<Case> {
    const few = changeAndRead(14);
    for (const power of sizes([18, 22])) {
      const many = changeAndRead(power);
      yield {
        title: `${CHANGES} changes in 2^${power} slots and the pass that tells of them`,
        meter: 'cpu',
        per: 'change',
        times: CHANGES,
        contenders: [
          { name: `2^${power} slots`, run: (n) => repeat(n, many) },
          { name: '2^14 slots', run: (n) => repeat(n, few) },
        ],
        comparisons: [{ of: `2^${power} slots`, to: '2^14 slots' }],
      };
    }
  },
};

const H_ENTER = 8;
/** Entries made in one go, into an empty table. */
const ENTERS = 10_000;

export const hptEnter: Benchmark = {
  name: 'hpt-enter',
  needsKvm: false,
  *cases({ comparators: { c, threadTime }, sizes }: Bench): Generator<Case> {
    for (const power of sizes([14, 20])) {
      const { kvm, vm } = emulatedVm(power);
      const vcpu = vm.createVcpu();
      vcpu.ppc64.enablePapr();
      const table = new Htab(power + 4);
      const nothing = encodeHtabStream(table);
      const groups = table.groupCount;
      // Made beforehand: a real guest has its arguments in registers.
      const hypercalls = Array.from({ length: ENTERS }, (_, i) => {
        const index = BigInt((i % groups) * HPTES_PER_GROUP);
        const r = (BigInt(i % MEMORY_PAGES) << 12n) | 0x12n;
        return hypercall(H_ENTER, 0n, index, 0x4001_ffff_ff00_0011n, r);
      });
      function* guest(): GuestProgram {
        for (let i = 0; i < hypercalls.length; i++) yield hypercalls[i]!;
        yield spin;
      }
      // The first run makes entries for real mode, once.
      vcpu.runSync();
      const enter = (): number => {
        vm.hpt.write(nothing);
        kvm.emulated!.loadGuest(vcpu.fd, guest());
        const start = threadTime();
        vcpu.runSync();
        return threadTime() - start;
      };
      const inC = (): number => {
        const start = threadTime();
        c.hptEnter(table.bytes, groups, ENTERS);
        return threadTime() - start;
      };
      yield {
        title: `${ENTERS} times H_ENTER into 2^${power} empty slots: a guest's hypercalls, and a bare table in C`,
        meter: 'result',
        per: 'entry',
        times: ENTERS,
        contenders: [
          { name: 'emulated', run: enter },
          { name: 'C', run: inC },
        ],
        comparisons: [{ of: 'emulated', to: 'C' }],
      };
    }
  },
};

/** A full table of pages of one size, which are somewhere in a GiB. */
function fullTable(power: number, shift: 12 | 24): Htab {
  const table = new Htab(power + 4);
  for (let slot = 0; slot < table.entryCount; slot++) {
    const place = (slot % 64) * 2 ** 24;
    table.set(slot, encodeHpte({ vsid: VSID, segmentSize: '1T', offset: place, ra: place, baseShift: shift }));
  }
  return table;
}

export const hptWrites: Benchmark = {
  name: 'hpt-write',
  needsKvm: false,
  *cases({ sizes }: Bench): Generator<Case> {
    for (const power of sizes([14, 18])) {
      using kvm = Kvm.open({ backend: 'emulated', arch: 'ppc64', pageSize: 65_536 });
      const vm = kvm.createVm();
      vm.memory.addRam(0, kvm.mapAnonymous(2 ** 30));
      vm.hpt.allocate(power + 4);
      const [small, large] = [fullTable(power, 12), fullTable(power, 24)];
      yield {
        title: `writing a full table of 2^${power} slots into the emulated kernel`,
        meter: 'cpu',
        per: 'slot',
        times: 2 ** power,
        contenders: [
          { name: '16 MiB pages', run: (n) => repeat(n, () => vm.hpt.write(large)) },
          { name: '4 KiB pages', run: (n) => repeat(n, () => vm.hpt.write(small)) },
        ],
        comparisons: [{ of: '16 MiB pages', to: '4 KiB pages' }],
      };
    }
  },
};

/** Translates a lot of effective addresses, all of which have an entry. */
export const hptTranslations: Benchmark = {
  name: 'hpt-translate',
  needsKvm: false,
  *cases({ comparators: { c }, sizes }: Bench): Generator<Case> {
    for (const power of sizes([16, 20])) {
      const table = new Htab(power + 4);
      const eas = new Float64Array(2 ** 14);
      const random = randomU32();
      for (let i = 0; i < eas.length; ) {
        const ea = (random() % 2 ** 26) * 4096;
        const group = primaryGroup(SEGMENT, ea, table.order);
        const first = group * HPTES_PER_GROUP;
        const slot = first + (random() % HPTES_PER_GROUP);
        if (table.isValid(slot) || findHpte(table, SEGMENT, Math.floor(ea / 2 ** 32), ea >>> 0) >= 0) continue;
        table.set(slot, encodeHpte({ vsid: VSID, segmentSize: '1T', offset: ea, ra: (random() % 2 ** 30) * 4096 }));
        eas[i++] = ea;
      }
      const slb = [SEGMENT];
      let sum = 0;
      const find = (from: number, n: number): void => {
        sum = 0;
        for (let i = 0, at = from; i < n; i++) {
          const ea = eas[at]!;
          if (++at === eas.length) at = 0;
          const slot = findHpte(table, SEGMENT, Math.floor(ea / 2 ** 32), ea >>> 0);
          sum = (sum + (table.rHi(slot) * 2 ** 20 + (table.rLo(slot) >>> 12))) >>> 0;
        }
      };
      const translateAll = (from: number, n: number): void => {
        for (let i = 0, at = from; i < n; i++) {
          translate(table, slb, eas[at]!);
          if (++at === eas.length) at = 0;
        }
      };
      const result = new Uint32Array(1);
      const easTwice = Float64Array.of(...eas, ...eas);
      const easFrom = (from: number) => easTwice.subarray(from, from + eas.length);
      const inC = (from: number, n: number): void =>
        c.hptTranslate(table.bytes, table.groupCount, VSID, easFrom(from), eas.length, n, result);
      find(0, eas.length);
      inC(0, eas.length);
      requireEqual(sum, result[0]!, 'the sum of the real pages');
      yield {
        title: `translating in a table of 2^${power} slots`,
        meter: 'cpu',
        per: 'translation',
        contenders: [
          { name: 'findHpte', run: goingOn(eas.length, find) },
          { name: 'translate', run: goingOn(eas.length, translateAll) },
          { name: 'C', run: goingOn(eas.length, inC) },
        ],
        comparisons: [
          { of: 'findHpte', to: 'C' },
          { of: 'translate', to: 'C' },
        ],
      };
    }
  },
};
