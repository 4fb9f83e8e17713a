import type { KvmCalls } from './kvm-calls.ts';
import { changedPieces } from './shared-areas.ts';
import type { TracePieces } from './trace-file.ts';

/** A memslot, as it was set. */
export interface PlacedSlot {
  readonly gpa: number;
  readonly size: number;
  readonly hva: number;
}

/** Which memslots VMs have, and which vCPUs, as calls that went well tell. */
export class PlacedSlots {
  readonly #slots = new Map<number, Map<number, PlacedSlot>>();
  readonly #vmOfVcpu = new Map<number, number>();

  /** Hears of a call that gave a number ≥ 0. */
  heard(name: string, args: readonly unknown[], value: number): void {
    if (name === 'createVcpu') this.#vmOfVcpu.set(value, args[0] as number);
    if (name === 'close') {
      this.#slots.delete(args[0] as number);
      this.#vmOfVcpu.delete(args[0] as number);
    }
    if (!name.startsWith('setUserMemoryRegion')) return;
    const [vm, id, , gpa, size, hva] = args.map(Number) as [number, number, number, number, number, number];
    const slots = this.#slots.get(vm) ?? new Map<number, PlacedSlot>();
    this.#slots.set(vm, slots);
    if (size === 0) slots.delete(id);
    else slots.set(id, { gpa, size, hva });
  }

  vmOf(vcpu: number): number | undefined {
    return this.#vmOfVcpu.get(vcpu);
  }

  /** The memslots of a vCPU's VM. */
  of(vcpu: number): readonly PlacedSlot[] {
    return [...(this.#slots.get(this.#vmOfVcpu.get(vcpu) ?? -1)?.values() ?? [])];
  }
}

/** A VM with more memory than this is not compared before and after a run. */
const MOST_FOLLOWED = 64 << 20;
const PAGE = 4096;

/** The memory of memslots, as it was. */
export type MemoryBefore = ReadonlyMap<PlacedSlot, Uint8Array> | undefined;

/** The memory of a VM's slots before a run; undefined where it is too much. */
export function memoryBefore(calls: KvmCalls, slots: readonly PlacedSlot[]): MemoryBefore {
  if (slots.reduce((sum, { size }) => sum + size, 0) > MOST_FOLLOWED) return undefined;
  return new Map(slots.map((slot) => [slot, readSlot(calls, slot)]));
}

/** What the run changed in it, by guest physical address; null where that was too much to be looked at. */
export function storesSince(calls: KvmCalls, before: MemoryBefore): TracePieces | null {
  if (before === undefined) return null;
  return [...before].flatMap(([slot, then]) => {
    const now = readSlot(calls, slot);
    if (Buffer.compare(then, now) === 0) return [];
    const pages = Array.from({ length: slot.size / PAGE }, (_, page) => page * PAGE);
    return pages.flatMap((at) =>
      changedPieces(then.subarray(at, at + PAGE), now.subarray(at, at + PAGE), slot.gpa + at),
    );
  });
}

/** What cannot be read is zero. */
function readSlot(calls: KvmCalls, { hva, size }: PlacedSlot): Uint8Array {
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; ) {
    const got = calls.readMemory(hva + at, bytes.subarray(at));
    at += got > 0 ? got : PAGE - (at % PAGE);
  }
  return bytes;
}
