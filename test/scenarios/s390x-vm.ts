import type { U64 } from '../../lib/base/u64.ts';
import { MAP, MEMOP, MEMOP_FLAG, PROT } from '../../lib/uapi/flags.ts';
import { KVM_RUN_S390X, KVM_SYNC } from '../../lib/uapi/structs.ts';
import type { Scenario, ScenarioHost } from './scenario.ts';

export const MIB = 0x10_0000;

/** PSW masks: DAT on or off, and the addressing mode. */
export const PSW = {
  DAT: 0x0400_0000_0000_0000n,
  SECONDARY: 0x0000_8000_0000_0000n,
  HOME: 0x0000_c000_0000_0000n,
  MODE_31: 0x8000_0000n,
  MODE_64: 0x1_8000_0000n,
  /** No addressing mode at all. */
  MODE_INVALID: 0x1_0000_0000n,
} as const;
export const DAT_64 = PSW.DAT | PSW.MODE_64;

/** Where there is never a memslot: with the prefix there, KVM_RUN takes over the registers and then gives EFAULT. */
const NO_MEMORY = 0x7f00_0000;

export interface MemOpOptions {
  readonly flags?: U64;
  readonly ar?: number;
  readonly key?: number;
  readonly buf?: Uint8Array | null;
  readonly old?: Uint8Array | null;
  readonly sidaOffset?: number;
}

/** A scenario for s390x alone. */
export function s390xScenario(name: string, run: (s: ScenarioHost) => void): Scenario {
  return { name, arches: ['s390x'], run };
}

/** A pattern: 64 bytes of which each differs from its neighbours, then runs, which recordings show shorter. */
export function pattern(length: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => ((i < 64 ? i * 7 : i >> 9) + seed) & 0xff);
}

/** A VM with one vCPU, and MEM_OP and storage keys on it. Memory comes when it is asked for. */
export class S390xVm {
  readonly vm: number;
  readonly vcpu: number;
  /** Where kvm_run is mapped. */
  readonly area: number;
  readonly #s: ScenarioHost;

  constructor(s: ScenarioHost, prepare: (vm: number) => void = () => {}) {
    this.#s = s;
    const { kvm, vm } = s.vm();
    this.vm = vm;
    prepare(vm);
    this.vcpu = s.calls.createVcpu(vm, 0);
    const size = s.calls.getVcpuMmapSize(kvm, 0);
    this.area = s.calls.mmap(size, PROT.READ | PROT.WRITE, MAP.SHARED, this.vcpu, 0, 0, 0);
  }

  get s390x() {
    return this.#s.calls.s390x!;
  }

  /** New memory of so many MiB behind a slot; its host address. */
  memory(mebibytes: number, gpa: U64 = 0, slot = 0, flags = 0): number {
    const hva = this.#s.memory(mebibytes);
    this.slot(hva, mebibytes, gpa, slot, flags);
    return hva;
  }

  slot(hva: number, mebibytes: number, gpa: U64 = 0, slot = 0, flags = 0): number {
    return this.#s.calls.setUserMemoryRegion(this.vm, slot, flags, gpa, mebibytes * MIB, hva);
  }

  /** Makes PSW mask, control registers and prefix those of the vCPU: all of them, as KVM_RUN does. */
  latch(mask: bigint, cr: Readonly<Record<number, bigint>> = {}, prefix = NO_MEMORY): number {
    const { calls } = this.#s;
    const { psw_mask, kvm_dirty_regs, s, crs } = KVM_RUN_S390X;
    calls.writeMemory(this.area + psw_mask, doublewords(mask, 0x1000n));
    calls.writeMemory(this.area + s, doublewords(BigInt(prefix)));
    calls.writeMemory(this.area + crs, doublewords(...Array.from({ length: 16 }, (_, n) => cr[n] ?? 0n)));
    calls.writeMemory(this.area + kvm_dirty_regs, doublewords(BigInt(KVM_SYNC.PREFIX | KVM_SYNC.CRS)));
    return calls.run(this.vcpu, 100);
  }

  /** SET_SREGS with these control registers, and no access registers. */
  setControlRegisters(cr: Readonly<Record<number, bigint>>): void {
    const values = Array.from({ length: 16 }, (_, n) => cr[n] ?? 0n);
    this.#s.calls.setSregs(this.vcpu, Buffer.concat([Buffer.alloc(64), doublewords(...values)]));
  }

  memOp(fd: number, op: number, gaddr: U64, size: number, options: MemOpOptions = {}): number {
    const { flags = 0, ar = 0, key = 0, old = null, sidaOffset = 0 } = options;
    const writes = op === MEMOP.LOGICAL_WRITE || op === MEMOP.ABSOLUTE_WRITE;
    const buf = options.buf !== undefined ? options.buf : writes ? pattern(size) : new Uint8Array(size);
    return this.s390x.memOp(fd, op, gaddr, size, flags, buf, ar, key, old, sidaOffset);
  }

  read(gaddr: U64, size: number, options?: MemOpOptions): number {
    return this.memOp(this.vcpu, MEMOP.LOGICAL_READ, gaddr, size, options);
  }

  write(gaddr: U64, size: number, options?: MemOpOptions): number {
    return this.memOp(this.vcpu, MEMOP.LOGICAL_WRITE, gaddr, size, options);
  }

  absoluteRead(gaddr: U64, size: number, options?: MemOpOptions): number {
    return this.memOp(this.vm, MEMOP.ABSOLUTE_READ, gaddr, size, options);
  }

  absoluteWrite(gaddr: U64, size: number, options?: MemOpOptions): number {
    return this.memOp(this.vm, MEMOP.ABSOLUTE_WRITE, gaddr, size, options);
  }

  compareExchange(gaddr: U64, old: Uint8Array | null, buf: Uint8Array, options: MemOpOptions = {}): number {
    return this.memOp(this.vm, MEMOP.ABSOLUTE_CMPXCHG, gaddr, buf.length, { ...options, old, buf });
  }

  /** CHECK_ONLY of every kind, which the kernel decides by itself. */
  checks(gaddr: number, size: number, key: number): void {
    const options: MemOpOptions = { flags: MEMOP_FLAG.SKEY | MEMOP_FLAG.CHECK_ONLY, key };
    this.read(gaddr, size, options);
    this.write(gaddr, size, options);
    this.absoluteRead(gaddr, size, options);
    this.absoluteWrite(gaddr, size, options);
  }

  getKeys(gfn: U64, count: number): number {
    return this.s390x.getSkeys(this.vm, gfn, count, 0, new Uint8Array(count));
  }

  setKeys(gfn: U64, ...keys: readonly number[]): number {
    return this.s390x.setSkeys(this.vm, gfn, keys.length, 0, Uint8Array.from(keys));
  }

  /** Stores doublewords into memory from the host. */
  store(hva: number, ...values: readonly bigint[]): void {
    this.#s.calls.writeMemory(hva, doublewords(...values));
  }

  load(hva: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    this.#s.calls.readMemory(hva, bytes);
    return bytes;
  }
}

/** Big-endian doublewords, as the architecture keeps them. */
export function doublewords(...values: readonly bigint[]): Buffer {
  const bytes = Buffer.alloc(values.length * 8);
  for (const [i, value] of values.entries()) bytes.writeBigUInt64BE(value, i * 8);
  return bytes;
}
