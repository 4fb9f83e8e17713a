/**
 * Whatever the emulated kernel remembers of where frames are, nobody sees it: after every change by guest or host, MEM_OP
 * answers as a walk does that remembers nothing.
 */

import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type AbsoluteMemory, cpuState, keyPermits, translate } from '../../lib/arch/s390x/model/index.ts';
import { EmulatedKernel } from '../../lib/backends/emulated.ts';
import { type GuestProgram, instruction, spin, store } from '../../lib/emulated/guest.ts';
import { MAP, MEM, MEMOP, MEMOP_FLAG, PROT } from '../../lib/uapi/flags.ts';
import { KVM_RUN_S390X, KVM_SYNC } from '../../lib/uapi/structs.ts';

const MIB = 0x10_0000;
const PAGE = 4096;
const HOST_BYTES = 4 * MIB;
/** The tables lie in the first pages of each MiB, so that whichever MiB is at guest address 0 has some. */
const SEGMENTS = 0;
const PAGES = 0x4000;
const REGION_THIRD = 0x8000;
const DAT64 = 0x0400_0001_8000_0000n;
const REAL64 = 0x0000_0001_8000_0000n;
/** Without memory there a vCPU doesn't run, and takes its registers all the same. */
const NO_MEMORY = 0x7f00_0000;
const ADDRESSING = 5;
const PROTECTION = 4;
const EFAULT = -14;
const EINTR = -4;
const REFERENCE = 4;
const CHANGE = 2;

interface Slot {
  readonly id: number;
  readonly gpa: number;
  readonly offset: number;
  readonly size: number;
  readonly flags: number;
}
interface Entry {
  readonly by: Writer;
  readonly mib: number;
  readonly index: number;
  readonly value: bigint;
}
interface PageEntry {
  readonly index: number;
  readonly value: bigint;
}
interface Registers {
  readonly psw: bigint;
  readonly asce: bigint;
  readonly cr0: bigint;
  readonly prefix: number;
}
interface Transfer {
  readonly address: number;
  readonly size: number;
  readonly key: number;
}
type Step =
  | ({ readonly do: 'slot' } & Slot)
  | ({ readonly do: 'segment' } & Entry)
  | { readonly do: 'page'; readonly by: Writer; readonly mib: number; readonly entry: PageEntry }
  | ({ readonly do: 'run' } & Registers)
  | ({ readonly do: 'sregs' } & Pick<Registers, 'asce' | 'cr0'>)
  | ({ readonly do: 'write' } & Transfer)
  | ({ readonly do: 'read' } & Transfer)
  | { readonly do: 'guest'; readonly name: string; readonly mib: number; readonly entry: PageEntry }
  | { readonly do: 'keys'; readonly pfn: number; readonly keys: readonly number[] }
  | { readonly do: 'bytes'; readonly by: Writer; readonly offset: number; readonly value: number }
  | { readonly do: 'protect'; readonly page: number; readonly prot: number }
  | { readonly do: 'unmap'; readonly page: number }
  | { readonly do: 'remap'; readonly page: number; readonly from: number };
/** How user space stores: through a view, or by a call. */
type Writer = 'view' | 'call';

const writer = fc.constantFrom<Writer>('view', 'call');
/** What a page table says at first: frames that follow one another, some that don't, and the frame of a page table. */
const firstEntry = (i: number): bigint => BigInt((i === 9 ? PAGES / PAGE : i % 8 === 5 ? i * 7 : i + 32) * PAGE);
/** Mostly one of the first frames that the tables name. */
const frame = fc.oneof(fc.integer({ min: 28, max: 44 }), fc.integer({ min: 0, max: 3 * 256 - 1 }));
const pageNumber = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 0, max: 9 }) },
  { weight: 1, arbitrary: fc.integer({ min: 250, max: 255 }) },
);
const address = fc
  .tuple(fc.integer({ min: 0, max: 3 }), pageNumber, fc.integer({ min: 0, max: PAGE - 1 }))
  .map(([segment, page, offset]) => segment * MIB + page * PAGE + offset);
/** Mostly one that tables and pages of the guest at first are in. */
const hostPage = fc.oneof(
  fc.constantFrom(0, 4, 8, 32, 33, 34, 36, 49),
  fc.integer({ min: 0, max: HOST_BYTES / PAGE - 1 }),
);
const size = fc.constantFrom(1, 8, 8, 100, PAGE, 3 * PAGE + 5, 65_536);
const segmentEntry = fc.oneof(
  { weight: 4, arbitrary: fc.constant(BigInt(PAGES)) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(0x20n, BigInt(PAGES) | 0x200n, BigInt(MIB + PAGES), BigInt(MIB) | 0x400n, 0x5000_0000n),
  },
);
const anyEntry = fc.oneof(
  { weight: 4, arbitrary: frame.map((pfn) => BigInt(pfn * PAGE)) },
  { weight: 1, arbitrary: frame.map((pfn) => BigInt(pfn * PAGE) | 0x200n) },
  { weight: 1, arbitrary: fc.constantFrom(0x400n, 0x800n, 0x5000_0000n) },
);
/** A page-table entry and its place: any, or what it was at first, perhaps with bits that count, or one that doesn't. */
const pageEntry = fc.oneof(
  fc.record({ index: pageNumber, value: anyEntry }),
  fc
    .tuple(pageNumber, fc.constantFrom(0n, 1n, 0x200n, 0x400n, 0x800n))
    .map(([index, bits]) => ({ index, value: firstEntry(index) | bits })),
);
const asce = fc.constantFrom(
  BigInt(SEGMENTS),
  BigInt(SEGMENTS),
  BigInt(SEGMENTS) | 0x100n,
  BigInt(MIB + SEGMENTS),
  BigInt(REGION_THIRD) | 7n,
  0x20n,
);
/** Nothing, low-address protection, EDAT. */
const cr0 = fc.constantFrom(0n, 0n, 0x1000_0000n, 0x80_0000n);
const index = fc.integer({ min: 0, max: 3 });
const transfer = { address, size, key: fc.constantFrom(0, 0, 0, 1, 9) };
const of = <T extends object>(weight: number, fields: { [K in keyof T]: fc.Arbitrary<T[K]> }) => ({
  weight,
  arbitrary: fc.record(fields) as fc.Arbitrary<T>,
});
const step: fc.Arbitrary<Step> = fc.oneof(
  of<Step & { do: 'slot' }>(2, {
    do: fc.constant('slot'),
    id: fc.integer({ min: 0, max: 2 }),
    gpa: index,
    offset: index,
    size: fc.integer({ min: 0, max: 2 }),
    flags: fc.constantFrom(0, MEM.LOG_DIRTY_PAGES),
  }),
  of<Step & { do: 'segment' }>(3, { do: fc.constant('segment'), by: writer, mib: index, index, value: segmentEntry }),
  of<Step & { do: 'page' }>(6, { do: fc.constant('page'), by: writer, mib: index, entry: pageEntry }),
  of<Step & { do: 'guest' }>(4, {
    do: fc.constant('guest'),
    name: fc.constantFrom('IPTE', 'IDTE', 'CSPG', 'SSKE', 'store'),
    mib: index,
    entry: pageEntry,
  }),
  of<Step & { do: 'run' }>(2, {
    do: fc.constant('run'),
    // Primary, secondary and home space, 24-bit addresses, and DAT off.
    psw: fc.constantFrom(
      DAT64,
      DAT64,
      DAT64 | 0x8000_0000_0000n,
      DAT64 | 0xc000_0000_0000n,
      DAT64 & ~0xffff_ffffn,
      REAL64,
    ),
    asce,
    cr0,
    prefix: fc.constantFrom(NO_MEMORY, NO_MEMORY, 0, 2 * PAGE, 34 * PAGE, MIB),
  }),
  of<Step & { do: 'sregs' }>(1, { do: fc.constant('sregs'), asce, cr0 }),
  of<Step & { do: 'keys' }>(2, {
    do: fc.constant('keys'),
    pfn: frame,
    keys: fc.array(fc.constantFrom(0, 0x10, 0x18, 0x90), { minLength: 1, maxLength: 40 }),
  }),
  of<Step & { do: 'bytes' }>(2, {
    do: fc.constant('bytes'),
    by: writer,
    offset: fc.integer({ min: 0, max: HOST_BYTES - 1 }),
    value: fc.integer({ min: 0, max: 255 }),
  }),
  of<Step & { do: 'protect' }>(3, {
    do: fc.constant('protect'),
    page: hostPage,
    prot: fc.constantFrom(PROT.NONE, PROT.READ, PROT.READ | PROT.WRITE),
  }),
  of<Step & { do: 'unmap' }>(1, { do: fc.constant('unmap'), page: hostPage }),
  of<Step & { do: 'remap' }>(1, { do: fc.constant('remap'), page: hostPage, from: hostPage }),
  of<Step & { do: 'write' }>(8, { do: fc.constant('write'), ...transfer }),
  of<Step & { do: 'read' }>(16, { do: fc.constant('read'), ...transfer }),
);

/** What is in the pages, each of which is filled with another byte than those around it. */
const CONTENT = Uint8Array.from({ length: HOST_BYTES }, (_, i) => i / PAGE);

/** How user space's memory is made: a mapping of a memfd; one of two; a reservation that the memfd is put into. */
type Host = 'mapping' | 'two mappings' | 'reservation';

/** A piece of an access: where it is, and the page's frame. */
interface Place {
  readonly pfn: number;
  readonly hva: number;
  readonly length: number;
}

/** A guest, and beside it what is known of its slots and of the host's memory. */
class Guest implements AbsoluteMemory {
  hi = 0;
  lo = 0;
  readonly kernel = new EmulatedKernel({ arch: 's390x', release: '6.12' });
  readonly vm: number;
  readonly vcpu: number;
  readonly hva: number;
  readonly slots = new Map<number, { gpa: number; size: number; hva: number; flags: number }>();
  /** Of each page of the host's memory; NONE where nothing is mapped. */
  readonly prot = new Uint8Array(HOST_BYTES / PAGE).fill(PROT.READ | PROT.WRITE);
  readonly cpu = cpuState({ pswMask: DAT64 });
  readonly #memfd: number;
  /** Where views of the memory are taken. */
  readonly #viewed: number;
  readonly #run: DataView;
  #registers: Registers = { psw: DAT64, asce: BigInt(SEGMENTS), cr0: 0n, prefix: NO_MEMORY };

  constructor(host: Host) {
    const { kernel } = this;
    this.vm = kernel.createVm(kernel.openKvm(), 0);
    this.vcpu = kernel.createVcpu(this.vm, 0);
    const area = kernel.mmap(PAGE, PROT.READ | PROT.WRITE, MAP.SHARED, this.vcpu, 0, 0, 0);
    this.#run = new DataView(kernel.view(area, PAGE) as ArrayBuffer);
    this.#memfd = kernel.memfdCreate('guest', HOST_BYTES, 0);
    const map = () => kernel.mmap(HOST_BYTES, PROT.READ | PROT.WRITE, MAP.SHARED, this.#memfd, 0, MIB, 0);
    if (host === 'reservation') {
      this.hva = kernel.mmap(HOST_BYTES, PROT.NONE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, MIB, 0);
      expect(this.putMemory(0, HOST_BYTES, 0)).toBe(0);
    } else this.hva = map();
    this.#viewed = host === 'mapping' ? this.hva : map();
    expect(kernel.writeMemory(this.hva, CONTENT)).toBe(HOST_BYTES);
    for (let mib = 0; mib < 4; mib++) {
      for (let i = 0; i < 512; i++) this.store('call', mib * MIB + SEGMENTS + i * 8, i < 4 ? BigInt(PAGES) : 0x20n);
      // Behind the table it goes on in the same way.
      for (let i = 0; i < 512; i++) this.store('call', mib * MIB + PAGES + i * 8, firstEntry(i));
      this.store('call', mib * MIB + REGION_THIRD, BigInt(SEGMENTS) | 4n);
    }
    this.slot({ id: 0, gpa: 0, offset: 0, size: 2, flags: 0 });
    this.slot({ id: 1, gpa: 2, offset: 2, size: 1, flags: MEM.LOG_DIRTY_PAGES });
    this.run(this.#registers);
  }

  /** Shows a part of the memfd in a reservation. */
  putMemory(offset: number, length: number, from: number): number {
    const prot = PROT.READ | PROT.WRITE;
    return this.kernel.mmapFixed(this.hva + offset, length, prot, MAP.SHARED, this.#memfd, from);
  }

  slot({ id, gpa, offset, size: mebibytes, flags }: Slot): void {
    const hva = this.hva + Math.min(offset, 4 - mebibytes) * MIB;
    const wanted = { gpa: gpa * MIB, size: mebibytes * MIB, hva, flags };
    const result = this.kernel.setUserMemoryRegion(this.vm, id, flags, wanted.gpa, wanted.size, hva);
    if (result !== 0) return;
    if (mebibytes === 0) this.slots.delete(id);
    else this.slots.set(id, wanted);
  }

  /** KVM_RUN, which takes the registers. */
  run(registers: Registers): void {
    this.#registers = registers;
    const { psw, prefix } = registers;
    this.#run.setBigUint64(KVM_RUN_S390X.psw_mask, psw);
    this.#run.setBigUint64(KVM_RUN_S390X.s, BigInt(prefix));
    this.#controlRegisters((n, value) => this.#run.setBigUint64(KVM_RUN_S390X.crs + 8 * n, value));
    this.#run.setBigUint64(KVM_RUN_S390X.kvm_dirty_regs, BigInt(KVM_SYNC.PREFIX | KVM_SYNC.CRS));
    this.cpu.pswMaskHi = Number(psw >> 32n);
    this.cpu.pswMaskLo = Number(psw & 0xffff_ffffn);
    this.cpu.prefixPfn = prefix / PAGE;
    expect([EFAULT, EINTR]).toContain(this.kernel.run(this.vcpu, 0));
  }

  /** SET_SREGS, which counts at once. */
  sregs(registers: Pick<Registers, 'asce' | 'cr0'>): void {
    this.#registers = { ...this.#registers, ...registers };
    const bytes = Buffer.alloc(192);
    this.#controlRegisters((n, value) => bytes.writeBigUInt64BE(value, 64 + 8 * n));
    expect(this.kernel.setSregs(this.vcpu, bytes)).toBe(0);
  }

  /** CR0, and another space in each register for an ASCE. */
  #controlRegisters(set: (n: number, value: bigint) => void): void {
    const { asce: primary, cr0: bits } = this.#registers;
    for (const [n, value] of [
      [0, bits],
      [1, primary],
      [7, BigInt(MIB + SEGMENTS)],
      [13, BigInt(REGION_THIRD) | 7n],
    ] as const) {
      set(n, value);
      this.cpu.cr[2 * n] = Number(value >> 32n);
      this.cpu.cr[2 * n + 1] = Number(value & 0xffff_ffffn);
    }
  }

  /** A guest with DAT off does something to a table or a frame, if there is memory for its prefix. */
  guest({ name, mib, entry: { index: page, value } }: Step & { do: 'guest' }): void {
    const before = this.#registers;
    const segments = BigInt(mib * MIB + SEGMENTS);
    const pages = BigInt(mib * MIB + PAGES);
    const at = pages + BigInt(page * 8);
    const old = Buffer.alloc(8);
    const hva = this.hostOf(Number(at >> 12n));
    if (hva !== undefined) this.kernel.readMemory(hva + Number(at & 0xfffn), old);
    const operation = {
      IPTE: instruction('IPTE', pages, BigInt(page * PAGE)),
      IDTE: instruction('IDTE', segments, BigInt((page & 3) * MIB)),
      CSPG: instruction('CSPG', old.readBigUInt64BE(), value, at),
      SSKE: instruction('SSKE', value & 0xf8n, BigInt(mib * MIB + page * PAGE)),
      store: store(Number(at), 8, value),
    }[name]!;
    const program = function* (): GuestProgram {
      try {
        yield operation;
      } catch {
        // A program interruption: the guest goes on.
      }
      yield spin;
    };
    this.kernel.loadGuest(this.vcpu, program());
    this.run({ ...before, psw: REAL64, prefix: 3 * MIB - 2 * PAGE });
    this.run(before);
  }

  /** A doubleword of the host's, through a view of the memory where there can be one. */
  store(by: Writer, offset: number, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value);
    this.put(by, offset, bytes);
  }

  put(by: Writer, offset: number, bytes: Uint8Array): void {
    const view = by === 'view' ? this.kernel.view(this.#viewed, HOST_BYTES) : -1;
    if (typeof view === 'number') this.kernel.writeMemory(this.hva + offset, bytes);
    else new Uint8Array(view).set(bytes, offset);
  }

  hostOf(pfn: number): number | undefined {
    for (const { gpa, size: length, hva } of this.slots.values()) {
      if (pfn * PAGE >= gpa && pfn * PAGE < gpa + length) return hva + pfn * PAGE - gpa;
    }
    return undefined;
  }

  protOf(hva: number): number {
    return this.prot[Math.floor((hva - this.hva) / PAGE)]!;
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

  /** Where the bytes of an access are, or the code of its first page that doesn't translate. */
  placesOf(from: number, length: number, isStore: boolean): Place[] | number {
    const places: Place[] = [];
    for (let at = from; at < from + length; at = (Math.floor(at / PAGE) + 1) * PAGE) {
      const found = translate(this.cpu, this, at, { access: isStore ? 'store' : 'fetch' });
      if (found.code !== 0 || !('absolute' in found)) return found.code;
      const part = Math.min(PAGE - (at % PAGE), from + length - at);
      const pfn = Number(found.absolute >> 12n);
      places.push({ pfn, hva: this.hostOf(pfn)! + (at % PAGE), length: part });
    }
    return places;
  }

  /** −1 where keys aren't in use, or user space has nothing mapped. */
  keyOf(pfn: number): number {
    const key = new Uint8Array(1);
    return this.kernel.s390x!.getSkeys(this.vm, pfn, 1, 0, key) === 0 ? key[0]! : -1;
  }

  /** Whether the host and the storage key let a page be accessed. */
  permits({ pfn, hva }: Place, isStore: boolean, accessKey: number): boolean {
    if ((this.protOf(hva) & (isStore ? PROT.WRITE : PROT.READ)) === 0) return false;
    return keyPermits(accessKey, Math.max(0, this.keyOf(pfn)), isStore);
  }

  memOp(op: number, { address: from, size: length, key }: Transfer, bytes: Uint8Array): number {
    return this.kernel.s390x!.memOp(this.vcpu, op, from, length, MEMOP_FLAG.SKEY, bytes, 0, key, null, 0);
  }

  bytesAt({ hva, length }: Place): Buffer {
    const found = Buffer.alloc(length);
    this.kernel.readMemory(hva, found);
    return found;
  }

  read(transfer: Transfer): void {
    const places = this.placesOf(transfer.address, transfer.size, false);
    const isPermitted = typeof places === 'number' || places.every((place) => this.permits(place, false, transfer.key));
    const bytes = Buffer.alloc(transfer.size, 0xee);
    const result = this.memOp(MEMOP.LOGICAL_READ, transfer, bytes);
    expect(result).toBe(typeof places === 'number' ? places : isPermitted ? 0 : PROTECTION);
    if (typeof places === 'number' || !isPermitted) {
      expect(bytes.every((byte) => byte === 0xee)).toBe(true);
      return;
    }
    this.expectAccessed(places, REFERENCE);
    expect(bytes.equals(Buffer.concat(places.map((place) => this.bytesAt(place))))).toBe(true);
  }

  write(transfer: Transfer, seed: number): void {
    const places = this.placesOf(transfer.address, transfer.size, true);
    const forbidden =
      typeof places === 'number' ? 0 : places.findIndex((place) => !this.permits(place, true, transfer.key));
    const result = this.memOp(MEMOP.LOGICAL_WRITE, transfer, Buffer.alloc(transfer.size, seed));
    expect(result).toBe(typeof places === 'number' ? places : forbidden < 0 ? 0 : PROTECTION);
    if (typeof places === 'number') return;
    // What precedes a page that may not be stored into stays stored.
    const stored = forbidden < 0 ? places : places.slice(0, forbidden);
    this.expectAccessed(stored, REFERENCE | CHANGE);
    this.expectDirty(stored);
    for (const place of stored) {
      if ((this.protOf(place.hva) & PROT.READ) !== 0) {
        expect(this.bytesAt(place).every((byte) => byte === seed)).toBe(true);
      }
    }
  }

  expectAccessed(places: readonly Place[], bits: number): void {
    for (const { pfn } of places) {
      const key = this.keyOf(pfn);
      if (key >= 0) expect(key & bits).toBe(bits);
    }
  }

  expectDirty(places: readonly Place[]): void {
    for (const [id, { gpa, size: length, flags }] of this.slots) {
      if ((flags & MEM.LOG_DIRTY_PAGES) === 0) continue;
      const bitmap = new Uint8Array(length / PAGE / 8);
      expect(this.kernel.getDirtyLog(this.vm, id, bitmap)).toBe(0);
      for (const { pfn } of places) {
        const page = pfn - gpa / PAGE;
        if (page >= 0 && page < length / PAGE) expect((bitmap[page >> 3]! >> (page & 7)) & 1).toBe(1);
      }
    }
  }

  protect(page: number, prot: number): void {
    if (this.kernel.mprotect(this.hva + page * PAGE, PAGE, prot) === 0) this.prot[page] = prot;
  }

  unmap(page: number): void {
    if (this.kernel.munmap(this.hva + page * PAGE, PAGE) === 0) this.prot[page] = PROT.NONE;
  }

  remap(page: number, from: number): void {
    if (this.putMemory(page * PAGE, PAGE, from * PAGE) === 0) this.prot[page] = PROT.READ | PROT.WRITE;
  }

  apply(one: Step, nth: number): void {
    switch (one.do) {
      case 'slot':
        this.slot(one);
        break;
      case 'segment':
        this.store(one.by, one.mib * MIB + SEGMENTS + one.index * 8, one.value);
        break;
      case 'page':
        this.store(one.by, one.mib * MIB + PAGES + one.entry.index * 8, one.entry.value);
        break;
      case 'guest':
        this.guest(one);
        break;
      case 'run':
        this.run(one);
        break;
      case 'sregs':
        this.sregs(one);
        break;
      case 'keys':
        this.kernel.s390x!.setSkeys(this.vm, one.pfn, one.keys.length, 0, Uint8Array.from(one.keys));
        break;
      case 'bytes':
        this.put(one.by, one.offset, Uint8Array.of(one.value));
        break;
      case 'protect':
        this.protect(one.page, one.prot);
        break;
      case 'unmap':
        this.unmap(one.page);
        break;
      case 'remap':
        this.remap(one.page, one.from);
        break;
      case 'write':
        this.write(one, nth & 0xff);
        break;
      case 'read':
        this.read(one);
        break;
    }
  }
}

it('answers as a walk that remembers nothing', () => {
  const hosts = fc.constantFrom<Host>('mapping', 'two mappings', 'reservation');
  fc.assert(
    fc.property(fc.array(step, { minLength: 5, maxLength: 60 }), hosts, (steps, host) => {
      const guest = new Guest(host);
      for (const [nth, one] of steps.entries()) guest.apply(one, nth);
      // What was remembered while the steps went on is asked once more.
      for (let at = 0; at < 4 * MIB; at += MIB) {
        for (let page = 0; page < 10; page++) guest.read({ address: at + page * PAGE, size: 16, key: 0 });
      }
    }),
    { numRuns: 300 },
  );
}, 60_000);
