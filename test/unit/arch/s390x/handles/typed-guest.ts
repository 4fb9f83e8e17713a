import { Kvm, type Vcpu, type Vm } from '../../../../../lib/index.ts';

export const MIB = 0x10_0000;
export const DAT_64 = 0x0400_0001_8000_0000n;
export const REAL_64 = 0x1_8000_0000n;

/** Where the tables are, and the frame that page 0 of segment 1 maps to. */
export const TABLES = { SEGMENTS: 0x10_0000, PAGES: 0x11_0000, DATA: 0x18_0000 } as const;

/** Where there is no memory: KVM_RUN with the prefix there takes the registers and gives EFAULT. */
const NO_MEMORY = 0x7f00_0000n;

/** A typed VM of an emulated s390x host, with memory and a vCPU. */
export class TypedGuest {
  readonly kvm: Kvm;
  readonly vm: Vm;
  readonly vcpu: Vcpu;
  /** Lines of the trace, one per call. */
  readonly trace: string[] = [];

  constructor(options: { release?: string; mebibytes?: number; prepare?: (vm: Vm) => void } = {}) {
    const { release = '6.12', mebibytes = 4, prepare } = options;
    this.kvm = Kvm.open({ backend: 'emulated', arch: 's390x', release, trace: (line) => this.trace.push(line) });
    this.vm = this.kvm.createVm();
    prepare?.(this.vm);
    this.vm.memory.addRam(0, this.kvm.mapAnonymous(mebibytes * MIB));
    this.vcpu = this.vm.createVcpu();
  }

  /** Guest memory as the host sees it. */
  peek(gpa: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    this.vm.memory.read(gpa, bytes);
    return bytes;
  }

  /** Calls of one name since the trace was last cleared. */
  calls(name: string): string[] {
    return this.trace.filter((line) => line.startsWith(`${name}(`));
  }

  /** Makes these the vCPU's registers. */
  latch(mask: bigint, cr: Readonly<Record<number, bigint>> = {}, prefix = NO_MEMORY): void {
    const control = Array.from({ length: 16 }, (_, n) => [`cr${n}`, cr[n] ?? 0n]);
    this.vcpu.s390x.setRegs({ pswMask: mask, prefix, ...Object.fromEntries(control) });
    this.kvm.calls.run(this.vcpu.fd, 0);
  }

  /** DAT on: segment 1 has a page table, whose pages map to the frames from DATA on; all else is invalid. */
  translate(pages: readonly { readonly frame: number; readonly bits?: bigint }[]): void {
    const { memory } = this.vm;
    for (let i = 0; i < 2048; i++) memory.writeU64(TABLES.SEGMENTS + i * 8, 0x20n);
    for (let i = 0; i < 256; i++) memory.writeU64(TABLES.PAGES + i * 8, 0x400n);
    memory.writeU64(TABLES.SEGMENTS + 8, BigInt(TABLES.PAGES));
    for (const [i, { frame, bits = 0n }] of pages.entries()) {
      memory.writeU64(TABLES.PAGES + i * 8, BigInt(frame) | bits);
    }
    this.latch(DAT_64, { 1: BigInt(TABLES.SEGMENTS) | 3n });
  }

  close(): void {
    this.vm.close();
    this.kvm.close();
  }
}
