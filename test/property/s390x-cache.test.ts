/**
 * Whatever the emulated kernel remembers of where frames are, nobody sees it: after every change by guest or host, MEM_OP
 * answers as a walk does that remembers nothing.
 */

import fc from 'fast-check';
import { expect, it } from 'vitest';
import { EmulatedKernel } from '../../lib/emulated/kernel.ts';
import { type AbsoluteMemory, cpuState, translate } from '../../lib/s390x/index.ts';
import { MAP, MEMOP, PROT } from '../../lib/uapi/flags.ts';
import { KVM_RUN_S390X, KVM_SYNC } from '../../lib/uapi/structs.ts';

const MIB = 0x10_0000;
const PAGE = 4096;
const HOST_BYTES = 4 * MIB;
/** The tables lie in the first pages of each MiB, so that whichever MiB is at guest address 0 has some. */
const SEGMENTS = 0;
const PAGES = 0x4000;
const ASCE = BigInt(SEGMENTS);
const ADDRESSING = 5;
const PROTECTION = 4;
const EFAULT = -14;

type Step =
  | { readonly do: 'slot'; readonly id: number; readonly gpa: number; readonly offset: number; readonly size: number }
  | {
      readonly do: 'segment';
      readonly by: Writer;
      readonly mib: number;
      readonly index: number;
      readonly value: bigint;
    }
  | { readonly do: 'page'; readonly by: Writer; readonly mib: number; readonly index: number; readonly value: bigint }
  | { readonly do: 'bytes'; readonly by: Writer; readonly offset: number; readonly value: number }
  | { readonly do: 'protect'; readonly page: number; readonly prot: number }
  | { readonly do: 'unmap'; readonly page: number }
  | { readonly do: 'write'; readonly address: number; readonly size: number }
  | { readonly do: 'read'; readonly address: number; readonly size: number };
type Writer = 'view' | 'call';

const writer = fc.constantFrom<Writer>('view', 'call');
const frame = fc.integer({ min: 0, max: 3 * 256 - 1 });
const address = fc
  .tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: PAGE - 1 }))
  .map(([segment, page, offset]) => segment * MIB + page * PAGE + offset);
/** Mostly one that tables and pages of the guest at first are in. */
const hostPage = fc.oneof(fc.constantFrom(0, 4, 7, 14, 21, 28, 35), fc.integer({ min: 0, max: HOST_BYTES / PAGE - 1 }));
const size = fc.constantFrom(1, 8, 8, 100, PAGE, 3 * PAGE + 5, 65_536);
const segmentEntry = fc.oneof(
  { weight: 4, arbitrary: fc.constant(BigInt(PAGES)) },
  { weight: 1, arbitrary: fc.constantFrom(0x20n, BigInt(PAGES) | 0x200n, BigInt(MIB + PAGES), 0x5000_0000n) },
);
const pageEntry = fc.oneof(
  { weight: 4, arbitrary: frame.map((pfn) => BigInt(pfn * PAGE)) },
  { weight: 1, arbitrary: frame.map((pfn) => BigInt(pfn * PAGE) | 0x200n) },
  { weight: 1, arbitrary: fc.constantFrom(0x400n, 0x800n, 0x5000_0000n) },
);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('slot' as const),
      id: fc.integer({ min: 0, max: 2 }),
      gpa: fc.integer({ min: 0, max: 3 }),
      offset: fc.integer({ min: 0, max: 3 }),
      size: fc.integer({ min: 0, max: 2 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('segment' as const),
      by: writer,
      mib: fc.integer({ min: 0, max: 3 }),
      index: fc.integer({ min: 0, max: 3 }),
      value: segmentEntry,
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('page' as const),
      by: writer,
      mib: fc.integer({ min: 0, max: 3 }),
      index: fc.integer({ min: 0, max: 9 }),
      value: pageEntry,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('bytes' as const),
      by: writer,
      offset: fc.integer({ min: 0, max: HOST_BYTES - 1 }),
      value: fc.integer({ min: 0, max: 255 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('protect' as const),
      page: hostPage,
      prot: fc.constantFrom(PROT.NONE, PROT.READ, PROT.READ | PROT.WRITE),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('unmap' as const),
      page: hostPage,
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('write' as const), address, size }) },
  { weight: 12, arbitrary: fc.record({ do: fc.constant('read' as const), address, size }) },
);

/** A guest, and beside it what is known of its slots and of the host's memory. */
class Guest implements AbsoluteMemory {
  hi = 0;
  lo = 0;
  readonly kernel = new EmulatedKernel({ arch: 's390x', release: '6.12' });
  readonly vm: number;
  readonly vcpu: number;
  readonly hva: number;
  readonly slots = new Map<number, { gpa: number; size: number; hva: number }>();
  readonly prot = new Uint8Array(HOST_BYTES / PAGE).fill(PROT.READ | PROT.WRITE);
  readonly cpu = cpuState({ pswMask: 0x0400_0001_8000_0000n, cr: { 1: ASCE }, prefix: 0x7f00_0000 });

  /** @param twice the host's memory is mapped a second time, so that its ArrayBuffer outlives changes of the first. */
  constructor(twice: boolean) {
    const { kernel } = this;
    this.vm = kernel.createVm(kernel.openKvm(), 0);
    this.vcpu = kernel.createVcpu(this.vm, 0);
    const area = kernel.mmap(PAGE, PROT.READ | PROT.WRITE, MAP.SHARED, this.vcpu, 0, 0, 0);
    const run = new DataView(kernel.view(area, PAGE) as ArrayBuffer);
    run.setBigUint64(KVM_RUN_S390X.psw_mask, 0x0400_0001_8000_0000n);
    run.setBigUint64(KVM_RUN_S390X.s, 0x7f00_0000n);
    run.setBigUint64(KVM_RUN_S390X.crs + 8, ASCE);
    run.setBigUint64(KVM_RUN_S390X.kvm_dirty_regs, BigInt(KVM_SYNC.PREFIX | KVM_SYNC.CRS));
    expect(kernel.run(this.vcpu, 0)).toBe(EFAULT);
    const memfd = kernel.memfdCreate('guest', HOST_BYTES, 0);
    const map = () => kernel.mmap(HOST_BYTES, PROT.READ | PROT.WRITE, MAP.SHARED, memfd, 0, MIB, 0);
    this.hva = map();
    if (twice) map();
    for (let mib = 0; mib < 4; mib++) {
      for (let i = 0; i < 512; i++) this.store('call', mib * MIB + SEGMENTS + i * 8, i < 4 ? BigInt(PAGES) : 0x20n);
      for (let i = 0; i < 256; i++) this.store('call', mib * MIB + PAGES + i * 8, BigInt(((i * 7) % 500) * PAGE));
    }
    this.slot(0, 0, 0, 2);
    this.slot(1, 2, 2, 1);
  }

  slot(id: number, gpa: number, offset: number, mebibytes: number): void {
    const hva = this.hva + Math.min(offset, 4 - mebibytes) * MIB;
    const wanted = { gpa: gpa * MIB, size: mebibytes * MIB, hva };
    const result = this.kernel.setUserMemoryRegion(this.vm, id, 0, wanted.gpa, wanted.size, hva);
    if (result !== 0) return;
    if (mebibytes === 0) this.slots.delete(id);
    else this.slots.set(id, wanted);
  }

  /** A doubleword of the host's, through a view of the memory where there can be one. */
  store(by: Writer, offset: number, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value);
    this.put(by, offset, bytes);
  }

  put(by: Writer, offset: number, bytes: Uint8Array): void {
    const view = by === 'view' ? this.kernel.view(this.hva, HOST_BYTES) : -1;
    if (typeof view === 'number') this.kernel.writeMemory(this.hva + offset, bytes);
    else new Uint8Array(view).set(bytes, offset);
  }

  hostOf(pfn: number): number | undefined {
    for (const { gpa, size: length, hva } of this.slots.values()) {
      if (pfn * PAGE >= gpa && pfn * PAGE < gpa + length) return hva + pfn * PAGE - gpa;
    }
    return undefined;
  }

  /** −1 once it is unmapped. */
  protOf(hva: number): number {
    const prot = this.prot[(hva - this.hva) / PAGE]!;
    return prot === 255 ? 0 : prot;
  }

  readDoubleword(pfn: number, offset: number): number {
    const hva = this.hostOf(pfn);
    if (hva === undefined) return ADDRESSING;
    if ((this.protOf(hva) & PROT.READ) === 0) return EFAULT;
    const bytes = new Uint8Array(8);
    this.kernel.readMemory(hva + offset, bytes);
    const view = new DataView(bytes.buffer);
    this.hi = view.getUint32(0);
    this.lo = view.getUint32(4);
    return 0;
  }

  hasFrame(pfn: number): boolean {
    return this.hostOf(pfn) !== undefined;
  }

  /** What MEM_OP has to answer: the code, and for a read the bytes. */
  expected(from: number, length: number, store: boolean): { code: number; places: { hva: number; length: number }[] } {
    const places: { hva: number; length: number }[] = [];
    for (let at = from; at < from + length; at = (Math.floor(at / PAGE) + 1) * PAGE) {
      const found = translate(this.cpu, this, at, { access: store ? 'store' : 'fetch' });
      if (found.code !== 0 || !('absolute' in found)) return { code: found.code, places: [] };
      const part = Math.min(PAGE - (at % PAGE), from + length - at);
      const pfn = Number(found.absolute >> 12n);
      places.push({ hva: this.hostOf(pfn)! + (at % PAGE), length: part });
    }
    return { code: 0, places };
  }

  read(from: number, length: number): void {
    const { code, places } = this.expected(from, length, false);
    const readable = places.every(({ hva }) => (this.protOf(hva - (hva % PAGE)) & PROT.READ) !== 0);
    const bytes = Buffer.alloc(length, 0xee);
    const result = this.kernel.s390x!.memOp(this.vcpu, MEMOP.LOGICAL_READ, from, length, 0, bytes, 0, 0, null, 0);
    expect(result).toBe(code !== 0 ? code : readable ? 0 : PROTECTION);
    if (result !== 0) {
      expect(bytes.every((byte) => byte === 0xee)).toBe(true);
      return;
    }
    const parts = places.map(({ hva, length: part }) => {
      const found = new Uint8Array(part);
      this.kernel.readMemory(hva, found);
      return found;
    });
    expect(bytes.equals(Buffer.concat(parts))).toBe(true);
  }

  write(from: number, length: number, seed: number): void {
    const { code, places } = this.expected(from, length, true);
    const writable = places.map(({ hva }) => (this.protOf(hva - (hva % PAGE)) & PROT.WRITE) !== 0);
    const bytes = Buffer.alloc(length, seed);
    const result = this.kernel.s390x!.memOp(this.vcpu, MEMOP.LOGICAL_WRITE, from, length, 0, bytes, 0, 0, null, 0);
    expect(result).toBe(code !== 0 ? code : writable.every(Boolean) ? 0 : PROTECTION);
    if (result !== 0 || places.length !== 1) return;
    const found = new Uint8Array(length);
    if (this.kernel.readMemory(places[0]!.hva, found) === length)
      expect(found.every((byte) => byte === seed)).toBe(true);
  }

  apply(one: Step, index: number): void {
    switch (one.do) {
      case 'slot':
        this.slot(one.id, one.gpa, one.offset, one.size);
        break;
      case 'segment':
        this.store(one.by, one.mib * MIB + SEGMENTS + one.index * 8, one.value);
        break;
      case 'page':
        this.store(one.by, one.mib * MIB + PAGES + one.index * 8, one.value);
        break;
      case 'bytes':
        this.put(one.by, one.offset, Uint8Array.of(one.value));
        break;
      case 'protect':
        if (this.prot[one.page] === 255) break;
        if (this.kernel.mprotect(this.hva + one.page * PAGE, PAGE, one.prot) === 0) this.prot[one.page] = one.prot;
        break;
      case 'unmap':
        if (this.kernel.munmap(this.hva + one.page * PAGE, PAGE) === 0) this.prot[one.page] = 255;
        break;
      case 'write':
        this.write(one.address, one.size, index & 0xff);
        break;
      case 'read':
        this.read(one.address, one.size);
        break;
    }
  }
}

it('answers as a walk that remembers nothing', () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 5, maxLength: 60 }), fc.boolean(), (steps, twice) => {
      const guest = new Guest(twice);
      for (const [index, one] of steps.entries()) guest.apply(one, index);
      // What was remembered while the steps went on is asked once more.
      for (let at = 0; at < 4 * MIB; at += MIB) for (let page = 0; page < 10; page++) guest.read(at + page * PAGE, 16);
    }),
    { numRuns: 300 },
  );
}, 60_000);
