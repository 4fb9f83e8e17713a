import type { EmulatedKernel } from '../../backends/emulated.ts';
import { bytesOfText } from '../../calls/format.ts';
import type { PlacedSlots } from '../../calls/guest-stores.ts';
import type { TraceCall, TracePieces } from '../../calls/trace-file.ts';
import { spin } from '../../emulated/guest.ts';
import { KvmRun, type VcpuExit } from '../../handles/kvm-run.ts';
import { type Arch, isLittleEndianHost } from '../../uapi/arch.ts';
import { errnoName } from '../../uapi/errno.ts';
import { DIRTY_GFN, DIRTY_LOG_PAGE_OFFSET } from '../../uapi/flags.ts';
import { KVM_DIRTY_GFN } from '../../uapi/structs.ts';
import { exitText, guestOf, MOST_BYTES, opOf } from './guest.ts';

/** Memory that a vCPU shares with user space, as the trace has it. */
interface Area {
  readonly name: string;
  readonly vcpu: string;
  readonly hva: number;
  readonly bytes: Uint8Array;
  /** It shows the vCPU's dirty ring. */
  readonly isRing: boolean;
}

/** What came of a run: nothing to say, a difference, or why it was not compared. */
export type RunOutcome =
  | { readonly recorded: string; readonly emulated: string }
  | { readonly notCompared: string }
  | undefined;

/** Bytes of such memory that are looked at: the largest dirty ring has 1 MiB. */
const MOST_AREA = 0x10_0000;

/** Where a guest's addresses are not those of its memory. */
const TRANSLATING: ReadonlySet<Arch> = new Set<Arch>(['s390x', 'ppc64']);

/**
 * Runs of a trace. Its guest is not here: a scripted one stores what that one stored, and leaves with the exit that it left with.
 * Where a guest's addresses are translated, or no scripted guest has such an exit, what the run did is taken from the trace.
 */
export class RunReplay {
  /** A guest stored what nobody looked at. */
  memoryUnknown = false;
  readonly #kernel: EmulatedKernel;
  readonly #slots: PlacedSlots;
  readonly #traced: Arch;
  readonly #little: boolean;
  readonly #areas = new Map<string, Area>();
  readonly #vms = new Map<string, string>();
  readonly #ran = new Set<string>();
  #runs = 0;
  /** After how many runs a log or an eventfd was read. */
  readonly #readAfter = new Map<string, number>();
  readonly #believed = new Set<string>();
  readonly #racing = new Set<string>();

  /** @param traced the architecture of the trace */
  constructor(kernel: EmulatedKernel, slots: PlacedSlots, traced: Arch) {
    this.#kernel = kernel;
    this.#traced = traced;
    this.#slots = slots;
    this.#little = isLittleEndianHost(kernel.arch);
  }

  created(vm: string, vcpu: string): void {
    this.#vms.set(vcpu, vm);
  }

  /** @param offset of what is mapped, in what `fd` names */
  mapped(name: string, fd: string, hva: number, length: number, offset: number): void {
    if (!this.#vms.has(fd)) return;
    const isRing = offset >= DIRTY_LOG_PAGE_OFFSET * this.#kernel.pageSize;
    this.#areas.set(name, { name, vcpu: fd, hva, bytes: new Uint8Array(Math.min(length, MOST_AREA)), isRing });
  }

  hasRun(vcpu: string): boolean {
    return this.#ran.has(vcpu);
  }

  get anyHasRun(): boolean {
    return this.#ran.size > 0;
  }

  /** Whether a guest ran since a log or an eventfd was read. */
  ranSinceLog(log: string): boolean {
    return this.#runs > (this.#readAfter.get(log) ?? 0);
  }

  logRead(log: string): void {
    this.#readAfter.set(log, this.#runs);
  }

  /** What guests of the VM do is taken from the trace from now on: what the kernel did for them is not all seen. */
  believe(vm: string): void {
    this.#believed.add(vm);
  }

  isBelieved(vm: string): boolean {
    return this.#believed.has(vm);
  }

  /** Whether a log of the VM was read during a run: what the guest had stored by then is not known. */
  isRacing(vm: string): boolean {
    return this.#racing.has(vm);
  }

  /** Something was asked of the VM while this vCPU was inside its guest. */
  races(vcpu: string): void {
    this.#racing.add(this.#vms.get(vcpu) ?? '');
  }

  replay(name: string, vcpu: number, run: TraceCall): RunOutcome {
    this.#put(run.before);
    const stores = run.stores ?? [];
    if (run.stores === null) this.memoryUnknown = true;
    this.#ran.add(name);
    this.#runs++;
    try {
      return run.result === '0' ? this.#exits(name, vcpu, run, stores) : this.#fails(vcpu, run, stores);
    } finally {
      this.#put(run.after);
    }
  }

  /** The run area of a vCPU: the one with kvm_run, which is mapped first. */
  #runArea(vcpu: string): Area | undefined {
    return [...this.#areas.values()].find((area) => area.vcpu === vcpu);
  }

  #put(changes: TraceCall['after']): void {
    for (const [name, pieces] of Object.entries(changes ?? {})) {
      const area = this.#areas.get(name);
      if (area === undefined) continue;
      for (const [offset, text] of pieces) {
        const bytes = bytesOfText(text, area.bytes.length - offset);
        area.bytes.set(bytes, offset);
        this.#kernel.writeMemory(area.hva + offset, bytes);
      }
    }
  }

  #exits(name: string, vcpu: number, run: TraceCall, stores: TracePieces): RunOutcome {
    const area = this.#runArea(name);
    if (area === undefined) return this.#take(vcpu, stores, 'runs whose kvm_run is not mapped');
    const recorded = exitOf(bytesAfter(area, run), this.#traced);
    const op = opOf(recorded, this.#little);
    const vm = this.#vms.get(name) ?? '';
    if (recorded.reason === 'DIRTY_RING_FULL') this.believe(vm);
    const { arch } = this.#kernel;
    if (op === undefined || this.#traced !== arch || TRANSLATING.has(arch) || this.isBelieved(vm)) {
      return this.#take(vcpu, stores, `runs that end with ${exitText(recorded).split(' ')[0]}`);
    }
    this.#kernel.loadGuest(vcpu, guestOf(stores, op, this.#little));
    const result = this.#kernel.run(vcpu, 0);
    const now = new Uint8Array(area.bytes.length);
    this.#kernel.readMemory(area.hva, now);
    const emulated =
      result < 0 ? `-${errnoName(result)}` : `${result}, exit ${exitText(exitOf(now, this.#kernel.arch))}`;
    const expected = `0, exit ${exitText(recorded)}`;
    if (this.#ringsHaveMore(name, run)) this.believe(vm);
    return emulated === expected ? undefined : { recorded: expected, emulated };
  }

  /** Whether the run put more into the vCPU's dirty ring than a guest that stores the same: there are kernels where loads do. */
  #ringsHaveMore(vcpu: string, run: TraceCall): boolean {
    return [...this.#areas.values()].some((area) => {
      if (area.vcpu !== vcpu || !area.isRing) return false;
      const now = new Uint8Array(area.bytes.length);
      this.#kernel.readMemory(area.hva, now);
      return this.#dirtyEntries(bytesAfter(area, run)) > this.#dirtyEntries(now);
    });
  }

  #dirtyEntries(ring: Uint8Array): number {
    const view = new DataView(ring.buffer);
    let count = 0;
    for (let at = KVM_DIRTY_GFN.flags; at + 4 <= ring.length; at += KVM_DIRTY_GFN.size) {
      if (view.getUint32(at, this.#little) === DIRTY_GFN.DIRTY) count++;
    }
    return count;
  }

  /** A run that was interrupted, or that the kernel refused. */
  #fails(vcpu: number, run: TraceCall, stores: TracePieces): RunOutcome {
    const recorded = String(run.result);
    if (recorded === '-EFAULT' && this.#kernel.arch !== 's390x') {
      return this.#take(vcpu, stores, 'runs that met memory which the host lacks');
    }
    if (recorded === '-EINTR' && !TRANSLATING.has(this.#kernel.arch))
      this.#kernel.loadGuest(vcpu, guestOf(stores, spin, this.#little));
    const result = this.#kernel.run(vcpu, 0);
    const emulated = result < 0 ? `-${errnoName(result)}` : String(result);
    return emulated === recorded ? undefined : { recorded, emulated };
  }

  /** What the guest did is believed. */
  #take(vcpu: number, stores: TracePieces, notCompared: string): RunOutcome {
    for (const [gpa, text] of stores) {
      const bytes = bytesOfText(text, MOST_BYTES);
      for (const slot of this.#slots.of(vcpu)) {
        if (gpa >= slot.gpa && gpa + bytes.length <= slot.gpa + slot.size) {
          this.#kernel.writeMemory(slot.hva + gpa - slot.gpa, bytes);
        }
      }
    }
    return { notCompared };
  }
}

/** What an area has once a run has changed parts of it. */
function bytesAfter({ name, bytes }: Area, { after }: TraceCall): Uint8Array {
  const changed = bytes.slice();
  for (const [offset, text] of after?.[name] ?? []) changed.set(bytesOfText(text, bytes.length - offset), offset);
  return changed;
}

function exitOf(bytes: Uint8Array, arch: Arch): VcpuExit {
  return new KvmRun(bytes.slice().buffer, arch).exit();
}
