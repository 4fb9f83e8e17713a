import { encodeHpte, encodeSegment, type HpteFields, primaryGroup } from '../../../../../lib/arch/ppc64/model/index.ts';
import { EmulatedKernel } from '../../../../../lib/backends/emulated.ts';
import type { GuestOp, GuestResult } from '../../../../../lib/emulated/guest.ts';
import { CAP } from '../../../../../lib/uapi/capabilities.ts';
import { HTAB, MAP, MEM, PROT } from '../../../../../lib/uapi/flags.ts';
import { KVM_RUN } from '../../../../../lib/uapi/structs.ts';

/** What `read` gave: every chunk with its entries, or a number when it is no stream. */
export interface ReadChunk {
  readonly index: number;
  readonly entries: readonly (readonly [v: bigint, r: bigint])[];
  readonly nInvalid: number;
}

/** One emulated ppc64 VM with memory at 0, driven by the calls alone. */
export class TestVm {
  readonly kernel: EmulatedKernel;
  readonly vm: number;
  readonly hva: number;
  readonly memorySize: number;
  #vcpu = -1;
  #run: DataView | undefined;

  constructor(options: { pageSize?: number; order?: number; memorySize?: number; flags?: number } = {}) {
    this.kernel = new EmulatedKernel({ arch: 'ppc64', pageSize: options.pageSize ?? 4096 });
    this.vm = this.kernel.createVm(this.kernel.openKvm(), 1);
    this.memorySize = options.memorySize ?? 64 << 20;
    this.hva = this.kernel.mmap(
      this.memorySize,
      PROT.READ | PROT.WRITE,
      MAP.PRIVATE | MAP.ANONYMOUS,
      -1,
      0,
      0x100_0000,
      0,
    );
    this.slot(0, 0, this.memorySize, options.flags ?? MEM.LOG_DIRTY_PAGES);
    if (options.order !== undefined) this.ok(this.ppc.allocateHtab(this.vm, options.order));
  }

  get ppc() {
    return this.kernel.ppc64!;
  }

  ok(result: number): number {
    if (result < 0) throw new Error(`a call failed: ${result}`);
    return result;
  }

  slot(id: number, gpa: number, size: number, flags = 0, hva = this.hva): void {
    this.ok(this.kernel.setUserMemoryRegion(this.vm, id, flags, gpa, size, hva));
  }

  reader(flags = 0, start = 0): number {
    return this.ok(this.ppc.getHtabFd(this.vm, flags, start));
  }

  /** read(2), parsed. */
  read(fd: number, count = 65536): ReadChunk[] {
    const bytes = Buffer.alloc(count);
    const length = this.ok(this.kernel.read(fd, bytes));
    const chunks: ReadChunk[] = [];
    for (let at = 0; at < length; ) {
      const index = bytes.readUInt32LE(at);
      const nValid = bytes.readUInt16LE(at + 4);
      const nInvalid = bytes.readUInt16LE(at + 6);
      at += 8;
      const entries: [bigint, bigint][] = [];
      for (let i = 0; i < nValid; i++, at += 16) {
        entries.push([bytes.readBigUInt64BE(at), bytes.readBigUInt64BE(at + 8)]);
      }
      chunks.push({ index, entries, nInvalid });
    }
    return chunks;
  }

  /** write(2) of one chunk to a new descriptor. */
  write(index: number, entries: readonly (readonly [v: bigint, r: bigint])[], nInvalid = 0): number {
    return this.writeBytes(chunk(index, entries, nInvalid));
  }

  writeBytes(bytes: Uint8Array): number {
    const fd = this.reader(HTAB.WRITE);
    const result = this.kernel.write(fd, bytes);
    this.kernel.close(fd);
    return result;
  }

  /** H_READ without side effects on marks: what the guest sees in a slot. */
  guestView(slot: number): readonly bigint[] {
    return this.hcall(0xc, 0n, BigInt(slot)).slice(1);
  }

  /** Runs one hypercall of the guest's and gives r3 (signed), r4 …. */
  hcall(nr: number, ...args: bigint[]): bigint[] {
    const [result] = this.run({ op: 'hypercall', nr, args });
    if (!Array.isArray(result)) throw new Error('the hypercall was not answered');
    const [r3, ...others] = result as bigint[];
    return [BigInt.asIntN(64, r3!), ...others];
  }

  /** Runs guest operations until the guest spins or leaves; their results. */
  run(...ops: GuestOp[]): GuestResult[] {
    const results: GuestResult[] = [];
    this.kernel.loadGuest(
      this.vcpu,
      (function* () {
        for (const op of ops) results.push(yield op);
        yield { op: 'spin' } as const;
      })(),
    );
    this.exit = this.kernel.run(this.vcpu, 0);
    return results;
  }

  /** What the last KVM_RUN returned; −EINTR when the guest got to its end. */
  exit = 0;

  get vcpu(): number {
    if (this.#vcpu < 0) {
      this.#vcpu = this.ok(this.kernel.createVcpu(this.vm, 0));
      this.ok(this.kernel.enableCap(this.#vcpu, CAP.PPC_PAPR, 0, []));
    }
    return this.#vcpu;
  }

  get runArea(): DataView {
    if (this.#run === undefined) {
      const size = this.kernel.pageSize;
      const hva = this.kernel.mmap(size, PROT.READ | PROT.WRITE, MAP.SHARED, this.vcpu, 0, 0, 0);
      const view = this.kernel.view(hva, size);
      if (typeof view === 'number') throw new Error(`no view of kvm_run: ${view}`);
      this.#run = new DataView(view);
    }
    return this.#run;
  }

  get exitReason(): number {
    return this.runArea.getUint32(KVM_RUN.exit_reason, true);
  }

  setMsr(msr: bigint): void {
    const regs = Buffer.alloc(392);
    this.ok(this.kernel.getRegs(this.vcpu, regs));
    regs.writeBigUInt64LE(msr, 40);
    this.ok(this.kernel.setRegs(this.vcpu, regs));
  }

  /** Dirty pages of slot 0. */
  dirty(slot = 0): number[] {
    const bitmap = Buffer.alloc(Math.ceil(this.memorySize / this.kernel.pageSize / 64) * 8);
    this.ok(this.kernel.getDirtyLog(this.vm, slot, bitmap));
    const pages: number[] = [];
    for (let page = 0; page < bitmap.length * 8; page++) if (bitmap[page >> 3]! & (1 << (page & 7))) pages.push(page);
    return pages;
  }
}

/** One chunk of the stream, by hand. */
export function chunk(index: number, entries: readonly (readonly [v: bigint, r: bigint])[], nInvalid = 0): Buffer {
  const bytes = Buffer.alloc(8 + entries.length * 16);
  bytes.writeUInt32LE(index);
  bytes.writeUInt16LE(entries.length, 4);
  bytes.writeUInt16LE(nInvalid, 6);
  entries.forEach(([v, r], i) => {
    bytes.writeBigUInt64BE(v, 8 + i * 16);
    bytes.writeBigUInt64BE(r, 16 + i * 16);
  });
  return bytes;
}

/** Slot and doublewords of a VRMA entry for a real-mode address, as the lab makes them. */
export function vrma(order: number, ea: bigint, extra: bigint, place = 0): [slot: number, entry: [bigint, bigint]] {
  const vsid = 0x1ff_ffffn;
  const group = ((ea >> 12n) ^ vsid ^ (vsid << 25n)) & ((1n << BigInt(order - 7)) - 1n);
  return [Number(group) * 8 + place, [0x4001_ffff_ff00_0011n | ((ea >> 16n) & ~0x7fn), ea | extra | 2n]];
}

const SEGMENT = encodeSegment({ ea: 0x1000_0000, vsid: 0x1234, segmentSize: '256M', kp: true });

/** An effective address of a segment of 256 MiB, and the slot of the entry that maps its page to 0x8000. */
export const RELOCATED = { ea: 0x1000_3010, slot: primaryGroup(SEGMENT, 0x3000, 18) * 8 + 4 } as const;

/** MSR with IR, DR and ME. */
export const MSR = 0x8000_0000_0000_0031n;

/** A VM whose guest has relocation on, that segment and that entry; Kp is set, Ks is clear. */
export function relocatedVm(entry: Partial<HpteFields>, state: { msr?: bigint; amr?: bigint } = {}): TestVm {
  const vm = new TestVm({ order: 18 });
  const { v, r } = encodeHpte({ vsid: 0x1234, segmentSize: '256M', offset: 0x3000, ra: 0x8000, ...entry });
  vm.ok(vm.write(RELOCATED.slot, [[v, r]]));
  const sregs = Buffer.alloc(1232);
  vm.ok(vm.kernel.getSregs(vm.vcpu, sregs));
  sregs.writeBigUInt64LE(SEGMENT.esidWord, 16);
  sregs.writeBigUInt64LE(SEGMENT.vsidWord, 24);
  vm.ok(vm.kernel.setSregs(vm.vcpu, sregs));
  vm.setMsr(state.msr ?? MSR);
  if (state.amr !== undefined) {
    const amr = Buffer.alloc(8);
    amr.writeBigUInt64LE(state.amr);
    vm.ok(vm.kernel.setOneReg(vm.vcpu, 0x1030_0000_0000_000en, amr));
  }
  return vm;
}

/** A VM whose guest has entries of its own for real mode: the pages given, R and C clear. */
export function realModeVm(pages: readonly bigint[], pageSize = 4096): TestVm {
  const vm = new TestVm({ order: 18, pageSize });
  for (const ea of pages) {
    const [slot, entry] = vrma(18, ea, 0x10n);
    vm.ok(vm.write(slot, [entry]));
  }
  return vm;
}

/** A VM with a table of order 18 that counts as set up, and an entry that is bolted and one that isn't. */
export function resizableVm(): TestVm {
  const vm = new TestVm({ order: 18 });
  const [slot, entry] = vrma(18, 0x1000n, 0x10n);
  vm.write(slot, [entry]);
  vm.write(9, [[0x4000_0001_2345_8001n, 0x2010n]]);
  return vm;
}

export const prepare = (vm: TestVm, order: number, flags = 0): number => vm.ppc.resizeHptPrepare(vm.vm, flags, order);

export const commit = (vm: TestVm, order: number, flags = 0): number => vm.ppc.resizeHptCommit(vm.vm, flags, order);

/** Slots with an entry. */
export const valid = (vm: TestVm): number[] =>
  vm.read(vm.reader(), 1 << 20).flatMap(({ index, entries }) => entries.map((_, i) => index + i));
