import { expect } from 'vitest';
import { EmulatedKernel } from '../../../../../lib/backends/emulated.ts';
import type { S390xCalls } from '../../../../../lib/calls/kvm-calls.ts';
import { MAP, MEM, MEMOP, MEMOP_FLAG, PROT } from '../../../../../lib/uapi/flags.ts';
import { KVM_RUN_S390X, KVM_SYNC } from '../../../../../lib/uapi/structs.ts';

export const MIB = 0x10_0000;
export const { CHECK_ONLY, INJECT, SKEY } = MEMOP_FLAG;
export const DAT64 = 0x0400_0001_8000_0000n;
export const REAL64 = 0x0000_0001_8000_0000n;

interface MopOptions {
  flags?: number;
  ar?: number;
  key?: number;
  buf?: Uint8Array | null;
  old?: Uint8Array | null;
  sidaOffset?: number;
}

/** An emulated s390x host with one VM, 4 MiB of memory at 0 and one vCPU. */
export class Machine {
  readonly kernel: EmulatedKernel;
  readonly s390x: S390xCalls;
  readonly vm: number;
  readonly vcpu: number;
  readonly hva: number;
  /** Where kvm_run is mapped. */
  readonly runHva: number;
  readonly run: DataView;
  slots = 0;

  constructor(options: { release?: string; cmma?: boolean; flags?: number } = {}) {
    this.kernel = new EmulatedKernel({ arch: 's390x', release: options.release ?? '6.12' });
    this.s390x = this.kernel.s390x!;
    this.vm = this.kernel.createVm(this.kernel.openKvm(), 0);
    if (options.cmma === true) expect(this.kernel.setDeviceAttr(this.vm, 0, 0, null)).toBe(0);
    this.hva = this.map(8 * MIB);
    this.vcpu = this.kernel.createVcpu(this.vm, 0);
    this.runHva = this.kernel.mmap(4096, PROT.READ | PROT.WRITE, MAP.SHARED, this.vcpu, 0, 0, 0);
    this.run = new DataView(this.kernel.view(this.runHva, 4096) as ArrayBuffer);
  }

  map(length: number): number {
    return this.kernel.mmap(length, PROT.READ | PROT.WRITE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, MIB, 0);
  }

  /** A memslot over host memory; returns what the kernel says. */
  slot(id: number, gpa: number, size: number, hva: number, flags = 0): number {
    return this.kernel.setUserMemoryRegion(this.vm, id, flags, gpa, size, hva);
  }

  /** 4 MiB at 0, touched: where user space has no page table, the first key that is set is lost. */
  addMemory(flags = 0): this {
    for (let at = 0; at < 4 * MIB; at += MIB) this.poke(at, new Uint8Array(1));
    expect(this.slot(0, 0, 4 * MIB, this.hva, flags)).toBe(0);
    return this;
  }

  /** The way user space brings a PSW into the hardware: a KVM_RUN that fails for want of a prefix area. */
  latch(psw: bigint, cr: Readonly<Record<number, bigint>> = {}, prefix = 0x7f00_0000): number {
    this.run.setBigUint64(KVM_RUN_S390X.psw_mask, psw);
    this.run.setBigUint64(KVM_RUN_S390X.s, BigInt(prefix));
    for (const [n, value] of Object.entries(cr)) this.run.setBigUint64(KVM_RUN_S390X.crs + 8 * Number(n), value);
    this.run.setBigUint64(KVM_RUN_S390X.kvm_dirty_regs, BigInt(KVM_SYNC.PREFIX | KVM_SYNC.CRS));
    return this.kernel.run(this.vcpu, 0);
  }

  poke(gpa: number, bytes: Uint8Array): void {
    expect(this.kernel.writeMemory(this.hva + gpa, bytes)).toBe(bytes.length);
  }

  pokeDoubleword(gpa: number, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value);
    this.poke(gpa, bytes);
  }

  peek(gpa: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    expect(this.kernel.readMemory(this.hva + gpa, bytes)).toBe(length);
    return bytes;
  }

  mop(fd: number, op: number, gaddr: number | bigint, size: number, options: MopOptions = {}): number {
    const buf = options.buf === undefined ? new Uint8Array(size) : options.buf;
    const { flags = 0, ar = 0, key = 0, old = null, sidaOffset = 0 } = options;
    return this.s390x.memOp(fd, op, gaddr, size, flags, buf, ar, key, old, sidaOffset);
  }

  read(gaddr: number | bigint, size: number, options?: MopOptions): number {
    return this.mop(this.vcpu, MEMOP.LOGICAL_READ, gaddr, size, options);
  }

  write(gaddr: number | bigint, size: number, options?: MopOptions): number {
    return this.mop(this.vcpu, MEMOP.LOGICAL_WRITE, gaddr, size, options);
  }

  absoluteRead(gaddr: number | bigint, size: number, options?: MopOptions): number {
    return this.mop(this.vm, MEMOP.ABSOLUTE_READ, gaddr, size, options);
  }

  absoluteWrite(gaddr: number | bigint, size: number, options?: MopOptions): number {
    return this.mop(this.vm, MEMOP.ABSOLUTE_WRITE, gaddr, size, options);
  }

  exchange(gaddr: number | bigint, size: number, old: Uint8Array | null, buf: Uint8Array | null, key?: number): number {
    const options = key === undefined ? {} : { key, flags: SKEY };
    return this.mop(this.vm, MEMOP.ABSOLUTE_CMPXCHG, gaddr, size, { old, buf, ...options });
  }

  setKeys(gfn: number, ...keys: number[]): number {
    return this.s390x.setSkeys(this.vm, gfn, keys.length, 0, Uint8Array.from(keys));
  }

  keys(gfn: number, count: number): Uint8Array | number {
    const keys = new Uint8Array(count);
    const result = this.s390x.getSkeys(this.vm, gfn, count, 0, keys);
    return result === 0 ? keys : result;
  }

  /** Pages that GET_DIRTY_LOG of slot 0 reports. */
  dirtyPages(): number[] {
    const bitmap = new Uint8Array(128);
    expect(this.kernel.getDirtyLog(this.vm, 0, bitmap)).toBe(0);
    return [...bitmap].flatMap((byte, i) => [...Array(8).keys()].filter((b) => (byte >> b) & 1).map((b) => i * 8 + b));
  }
}

export const LOG = MEM.LOG_DIRTY_PAGES;
