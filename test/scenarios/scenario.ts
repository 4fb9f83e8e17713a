import type { KvmCalls } from '../../lib/calls/kvm-calls.ts';
import type { TraceObserver } from '../../lib/calls/names.ts';
import { traced } from '../../lib/calls/recorder.ts';
import type { GuestProgram } from '../../lib/emulated/guest.ts';
import type { Arch } from '../../lib/uapi/arch.ts';
import { MAP, PROT } from '../../lib/uapi/flags.ts';

/**
 * A deterministic function over KvmCalls: the same calls in the same order, whatever they return, unless they return
 * something else. What it leaves open is closed for it.
 */
export interface Scenario {
  /** `topic/what-is-tried`; also the recording's file name. */
  readonly name: string;
  /** Where it can be carried out at all. What a kernel lacks there is part of the answer. */
  readonly arches: readonly Arch[];
  /** Whether it runs guest code; a host that can't run guests leaves it out. */
  readonly runsGuest?: boolean;
  /**
   * The guest must run on the processor: KVM's instruction emulator looks at pending requests only now and then, so
   * that exits come late where it runs the guest (kvm_pvm in real mode).
   */
  readonly needsProcessor?: boolean;
  /**
   * A vCPU of s390x with everything that it needs to run is entered. Where the processor has no SIE (QEMU's TCG), kernels up to 6.19 turn that
   * into an exception of the guest; from 7.0 on the process that did it is killed by SIGSEGV.
   */
  readonly entersSie?: boolean;
  readonly run: (s: ScenarioHost) => void | Promise<void>;
}

/** The arches whose memory side every generic scenario is for. */
export const EVERYWHERE: readonly Arch[] = ['x86_64', 's390x', 'ppc64', 'aarch64', 'riscv64'];

/** What guest code a scenario's vCPU executes: machine code for real kernels, a program for the emulated one. */
export interface GuestLoader {
  /** A vCPU was made that is going to run guest code. */
  created?(vm: number, vcpu: number): void;
  /** Makes the vCPU execute `ops` from the next KVM_RUN on. `codeGpa` is a page of a slot that the code may occupy. */
  load(vm: number, vcpu: number, codeHva: number, codeGpa: number, ops: readonly ScriptOp[]): void;
}

/** Where a guest without ports stores to pause, and where it stores last. */
export const PAUSE_ADDRESS = 0xe000_0000;
export const DONE_ADDRESS = 0xe000_1000;
/** The port that x86 writes to pause. */
export const PAUSE_PORT = 0x10;

/** A guest operation whose operands are known beforehand, so that it can be assembled. */
export type ScriptOp =
  | { readonly op: 'store'; readonly address: number; readonly size: 1 | 2 | 4; readonly value: number }
  /** Loads, and stores what came back. */
  | { readonly op: 'copy'; readonly from: number; readonly to: number; readonly size: 1 | 2 | 4 }
  | { readonly op: 'out'; readonly port: number; readonly size: 1 | 2 | 4; readonly value: number }
  /** Reads a port, and stores what came back. */
  | { readonly op: 'in'; readonly port: number; readonly to: number; readonly size: 1 | 2 | 4 }
  /** x86_64: units from memory to a port, or from a port to memory, in one instruction. */
  | {
      readonly op: 'outs';
      readonly port: number;
      readonly size: 1 | 2 | 4;
      readonly from: number;
      readonly count: number;
    }
  | { readonly op: 'ins'; readonly port: number; readonly size: 1 | 2 | 4; readonly to: number; readonly count: number }
  /** x86_64: adds to what is in memory, in one instruction. */
  | { readonly op: 'add'; readonly address: number; readonly size: 1 | 2 | 4; readonly value: number }
  /** ppc64: a hypercall, and `results` doublewords of its registers from r3 on, stored at `to`. */
  | {
      readonly op: 'hypercall';
      readonly nr: number;
      readonly args: readonly bigint[];
      readonly to: number;
      readonly results: number;
    }
  /**
   * ppc64: one instruction at `at`, with some of r3 to r8 set before; then the vector of the interrupt that it ended in, or
   * 0, DAR, DSISR and r3 to r8 as doublewords stored at `to`.
   */
  | {
      readonly op: 'execute';
      readonly at: number;
      readonly word: number;
      readonly gprs: Readonly<Record<number, bigint>>;
      readonly to: number;
    }
  /** An exit that means nothing: the scenario looks around, and the guest goes on when it is run again. */
  | { readonly op: 'pause' }
  /** The last exit: x86 halts, others store to a place without memory. */
  | { readonly op: 'done' }
  | { readonly op: 'spin' };

/** The same operations as a program for the emulated vCPU. */
export function* scripted(ops: readonly ScriptOp[], arch: Arch): GuestProgram {
  const ports = arch === 'x86_64';
  for (const op of ops) {
    switch (op.op) {
      case 'store':
        yield { op: 'store', address: op.address, size: op.size, value: BigInt(op.value) };
        break;
      case 'copy': {
        const value = (yield { op: 'load', address: op.from, size: op.size }) as bigint;
        yield { op: 'store', address: op.to, size: op.size, value };
        break;
      }
      case 'out':
        yield { op: 'out', port: op.port, size: op.size, value: BigInt(op.value) };
        break;
      case 'in': {
        const value = (yield { op: 'in', port: op.port, size: op.size }) as bigint;
        yield { op: 'store', address: op.to, size: op.size, value };
        break;
      }
      case 'outs':
        yield { op: 'outs', port: op.port, size: op.size, address: op.from, count: op.count };
        break;
      case 'ins':
        yield { op: 'ins', port: op.port, size: op.size, address: op.to, count: op.count };
        break;
      case 'add': {
        const { address, size, value } = op;
        yield { op: 'update', address, size, change: (old) => old + BigInt(value) };
        break;
      }
      case 'hypercall': {
        const registers = (yield { op: 'hypercall', nr: op.nr, args: op.args }) as readonly bigint[];
        for (let i = 0; i < op.results; i++) {
          yield { op: 'store', address: op.to + 8 * i, size: 8, value: registers[i] ?? 0n };
        }
        break;
      }
      case 'execute':
        throw new Error(`what executes instructions loads them: ${op.word.toString(16)}`);
      case 'pause':
        if (ports) yield { op: 'out', port: PAUSE_PORT, size: 1, value: 0n };
        else yield { op: 'store', address: PAUSE_ADDRESS, size: 1, value: 0n };
        break;
      case 'done':
        if (!ports) yield { op: 'store', address: DONE_ADDRESS, size: 1, value: 0n };
        yield { op: ports ? 'halt' : 'spin' };
        break;
      case 'spin':
        yield { op: 'spin' };
        break;
    }
  }
}

/** What a scenario works with: recorded calls, and shorthands made of nothing but such calls. */
export class ScenarioHost {
  readonly calls: KvmCalls;
  readonly #loader: GuestLoader;
  readonly #runAreas = new Map<number, number>();

  constructor(calls: KvmCalls, loader: GuestLoader) {
    this.calls = calls;
    this.#loader = loader;
  }

  get arch(): Arch {
    return this.calls.arch;
  }

  /** Every page-sized thing is a multiple of this: a page, and 1 MiB where slots must be made of such. */
  get unit(): number {
    return this.arch === 's390x' ? 0x10_0000 : this.calls.pageSize;
  }

  /** A new VM of the default type, with the fd it was made with. */
  vm(): { kvm: number; vm: number } {
    const kvm = this.calls.openKvm();
    return { kvm, vm: this.calls.createVm(kvm, 0) };
  }

  /** Anonymous shared memory of `units` units. */
  memory(units: number): number {
    const { unit } = this;
    return this.calls.mmap(
      units * unit,
      PROT.READ | PROT.WRITE,
      MAP.SHARED | MAP.ANONYMOUS | MAP.NORESERVE,
      -1,
      0,
      unit,
      0,
    );
  }

  /** The dirty bitmap of a slot, in a buffer of just the right size. */
  dirtyLog(vm: number, slot: number, npages: number): Uint8Array {
    const bitmap = new Uint8Array(Math.ceil(npages / 64) * 8);
    this.calls.getDirtyLog(vm, slot, bitmap);
    return bitmap;
  }

  /** Remembers where a vCPU's kvm_run is mapped. */
  knowRunArea(vcpu: number, hva: number): void {
    this.#runAreas.set(vcpu, hva);
  }

  runArea(vcpu: number): number {
    return this.#runAreas.get(vcpu)!;
  }

  /** A vCPU that is going to run guest code. */
  vcpu(vm: number): number {
    const vcpu = this.calls.createVcpu(vm, 0);
    this.#loader.created?.(vm, vcpu);
    return vcpu;
  }

  load(vm: number, vcpu: number, codeHva: number, codeGpa: number, ops: readonly ScriptOp[]): void {
    this.#loader.load(vm, vcpu, codeHva, codeGpa, ops);
  }
}

/**
 * Carries a scenario out and returns its recording: one line per call. The loader gets the calls unrecorded, because
 * how a guest gets its code is not the scenario's subject.
 */
export async function record(scenario: Scenario, calls: KvmCalls, loader: GuestLoader): Promise<readonly string[]> {
  const lines: string[] = [];
  const fds = new Set<number>();
  const mappings = new Map<number, number>();
  const observer: TraceObserver = {
    opened: (fd) => fds.add(fd),
    closed: (fd) => fds.delete(fd),
    mapped: (hva, length) => mappings.set(hva, length),
    unmapped: (hva, length) => mappings.get(hva) === length && mappings.delete(hva),
  };
  const noted = traced(calls, (line) => lines.push(line), { observer });
  try {
    await scenario.run(new ScenarioHost(noted, loader));
  } finally {
    for (const fd of [...fds].reverse()) calls.close(fd);
    for (const [hva, length] of mappings) calls.munmap(hva, length);
  }
  return lines;
}
