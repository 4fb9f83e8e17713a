import { Kvm } from '../../lib/handles/kvm.ts';
import type { Vcpu } from '../../lib/handles/vcpu.ts';
import type { Vm } from '../../lib/handles/vm.ts';
import { MEMOP } from '../../lib/uapi/flags.ts';
import { KVM_RUN_S390X, KVM_SYNC } from '../../lib/uapi/structs.ts';
import { type Bench, type Benchmark, randomU32, requireEqual } from './benchmark.ts';
import { type Case, goingOn, repeat } from './measure.ts';

const MIB = 0x10_0000;
const GIB = 0x4000_0000;
const PAGE = 4096;
const HALF_PAGE = 2048;
const MEMORY = 128 * MIB;
/** Where the tables lie: a region-third table, a segment table, and page tables; and what they map from 0 on. */
const REGION_THIRD = MIB;
const SEGMENTS = MIB + 0x4000;
const PAGES = 2 * MIB;
const MAPPED_SEGMENTS = 64;
const FIRST_FRAME = (32 * MIB) / PAGE;
const ASCE = BigInt(REGION_THIRD) | 7n;
/** Of what is read in its page. */
const OFFSET = 16;
/** Odd, so that all pages are met. */
const STRIDE = 2654435761;

interface Guest {
  readonly kvm: Kvm;
  readonly vm: Vm;
  readonly vcpu: Vcpu;
  /** Absolute storage. */
  readonly bytes: Uint8Array;
}

/** A guest of the emulated kernel that translates by three levels of tables. */
function pagedGuest(): Guest {
  const kvm = Kvm.open({ backend: 'emulated', arch: 's390x' });
  const vm = kvm.createVm();
  const vcpu = vm.createVcpu();
  const run = vcpu.kvmRun.view;
  run.setBigUint64(KVM_RUN_S390X.psw_mask, 0x0400_0001_8000_0000n);
  run.setBigUint64(KVM_RUN_S390X.s, 0x7f00_0000n);
  run.setBigUint64(KVM_RUN_S390X.crs + 8, ASCE);
  run.setBigUint64(KVM_RUN_S390X.kvm_dirty_regs, BigInt(KVM_SYNC.PREFIX | KVM_SYNC.CRS));
  kvm.calls.run(vcpu.fd, 0);
  const ram = kvm.mapAnonymous(MEMORY);
  vm.memory.addRam(0, ram);
  const bytes = vm.memory.slice(0, MEMORY);
  const words = new DataView(bytes.buffer, bytes.byteOffset);
  for (const table of [REGION_THIRD, SEGMENTS]) {
    for (let i = 0; i < 2048; i++) words.setBigUint64(table + i * 8, 0x20n);
  }
  words.setBigUint64(REGION_THIRD, BigInt(SEGMENTS) | 7n);
  for (let segment = 0; segment < MAPPED_SEGMENTS; segment++) {
    const table = PAGES + segment * 2048;
    words.setBigUint64(SEGMENTS + segment * 8, BigInt(table));
    for (let i = 0; i < 256; i++) words.setBigUint64(table + i * 8, BigInt((FIRST_FRAME + segment * 256 + i) * PAGE));
  }
  const random = randomU32();
  for (let at = FIRST_FRAME * PAGE; at < MEMORY; at += 4) words.setUint32(at, random());
  return { kvm, vm, vcpu, bytes };
}

export const s390xReads: Benchmark = {
  name: 's390x-memop',
  needsKvm: false,
  *cases({ comparators: { c }, sizes }: Bench): Generator<Case> {
    const { vm, vcpu, bytes, kvm } = pagedGuest();
    const { fd } = vcpu;
    const s390x = kvm.calls.s390x!;
    const key = { key: 0 };
    for (const { title, pages, size, comparisons } of sizes([
      { title: '8 bytes from one page', pages: 1, size: 8, comparisons: [{ of: 'raw', to: 'bare ioctl', goal: 1 }] },
      {
        title: '8 bytes from 16,384 pages in turn, whose entries no cache of the processor holds',
        pages: MAPPED_SEGMENTS * 256,
        size: 8,
        comparisons: [{ of: 'raw', to: 'bare ioctl' }],
      },
      { title: '64 KiB', pages: 1, size: 65_536, comparisons: [{ of: 'raw', to: 'memcpy', goal: 1 / 0.8 }] },
    ])) {
      const vas = Float64Array.from(
        { length: pages },
        (_, i) => ((i * STRIDE) % (MAPPED_SEGMENTS * 256)) * PAGE + OFFSET,
      );
      // All read into the same memory: how it lies relative to the guest's decides about the speed of a copy.
      const into = new Uint8Array(MIB).subarray(HALF_PAGE, HALF_PAGE + size);
      const vasTwice = Float64Array.of(...vas, ...vas);
      const vasFrom = (from: number) => vasTwice.subarray(from, from + vas.length);
      const inC = (from: number, n: number): void =>
        c.s390xRead(bytes, bytes.length, ASCE, vasFrom(from), vas.length, size, into, n);
      const each = (read: (va: number) => unknown) =>
        goingOn(vas.length, (from, n) => {
          for (let i = 0, at = from; i < n; i++) {
            read(vas[at]!);
            if (++at === vas.length) at = 0;
          }
        });
      const raw = (va: number) => s390x.memOp(fd, MEMOP.LOGICAL_READ, va, size, 0, into, 0, 0, null, 0);
      requireEqual(raw(vas[0]!), 0, 'the result of MEM_OP');
      const ours = into.slice();
      into.fill(0);
      inC(0, 1);
      requireEqual(Buffer.compare(ours, into), 0, 'what was read');
      yield {
        title: `logical reads on the emulated kernel: ${title}`,
        meter: 'cpu',
        per: 'read',
        contenders: [
          { name: 'raw', run: each(raw) },
          { name: 'typed', run: each((va) => vcpu.memOp.read(va, into, key)) },
          { name: 'C walker', run: goingOn(vas.length, inC) },
          { name: 'bare ioctl', run: (n) => c.bareIoctl(n) },
          { name: 'memcpy', run: (n) => c.memcpy(into, bytes.subarray(FIRST_FRAME * PAGE + OFFSET), size, n) },
        ],
        comparisons: [...comparisons, { of: 'raw', to: 'C walker' }, { of: 'typed', to: 'raw' }],
      };
    }
    yield* absoluteCases(vm, bytes, c);
  },
};

/** 64 KiB of absolute storage: frames that follow one another, which nothing has to be looked up for. */
function* absoluteCases(vm: Vm, bytes: Uint8Array, c: Bench['comparators']['c']): Generator<Case> {
  const at = FIRST_FRAME * PAGE + OFFSET;
  const size = 65_536;
  const ours = new Uint8Array(MIB).subarray(HALF_PAGE, HALF_PAGE + size);
  const guests = bytes.subarray(at, at + size);
  vm.memOp.readAbsolute(at, ours, { key: 0 });
  requireEqual(Buffer.compare(ours, guests), 0, 'what was read');
  const s390x = vm.calls.s390x!;
  for (const [what, operation, to, from] of [
    ['reads', MEMOP.ABSOLUTE_READ, ours, guests],
    ['writes', MEMOP.ABSOLUTE_WRITE, guests, ours],
  ] as const) {
    yield {
      title: `absolute ${what} on the emulated kernel: 64 KiB`,
      meter: 'cpu',
      per: what.slice(0, -1),
      contenders: [
        { name: 'raw', run: (n) => repeat(n, () => s390x.memOp(vm.fd, operation, at, size, 0, ours, 0, 0, null, 0)) },
        { name: 'memcpy', run: (n) => c.memcpy(to, from, size, n) },
      ],
      comparisons: [{ of: 'raw', to: 'memcpy' }],
    };
  }
}

export const s390xKeys: Benchmark = {
  name: 's390x-keys',
  needsKvm: false,
  *cases({ comparators: { c }, sizes }: Bench): Generator<Case> {
    for (const gibibytes of sizes([1, 64])) {
      const kvm = Kvm.open({ backend: 'emulated', arch: 's390x' });
      const vm = kvm.createVm();
      vm.memory.addRam(0, kvm.mapAnonymous(gibibytes * GIB));
      const [keys, others] = [0x30, 0x50].map((key) => new Uint8Array((gibibytes * GIB) / PAGE).fill(key)) as [
        Uint8Array,
        Uint8Array,
      ];
      let sets = 0;
      vm.storageKeys.setBytes(0, keys);
      const found = vm.storageKeys.getBytes(0, keys.length);
      requireEqual(Buffer.compare(found!, keys), 0, 'the keys');
      yield {
        title: `the storage keys of ${gibibytes} GiB`,
        meter: 'cpu',
        per: 'key',
        times: keys.length,
        contenders: [
          { name: 'getBytes', run: (n) => repeat(n, () => vm.storageKeys.getBytes(0, found!)) },
          { name: 'getBytes, new memory', run: (n) => repeat(n, () => vm.storageKeys.getBytes(0, keys.length)) },
          // All keys are others each time.
          {
            name: 'setBytes',
            run: (n) => repeat(n, () => vm.storageKeys.setBytes(0, sets++ % 2 === 0 ? others : keys)),
          },
          { name: 'setBytes, the same again', run: (n) => repeat(n, () => vm.storageKeys.setBytes(0, keys)) },
          { name: 'memcpy', run: (n) => c.memcpy(found!, keys, keys.length, n) },
        ],
        comparisons: [
          { of: 'getBytes', to: 'memcpy' },
          { of: 'setBytes', to: 'memcpy' },
        ],
      };
      vm.close();
      kvm.close();
    }
  },
};
