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
  return [...before].flatMap(([slot, then]) => storesIn(calls, slot, then));
}

/** So many bytes are looked at together, for all slots at the same place. */
const now = new Uint8Array(64 * PAGE);

function storesIn(calls: KvmCalls, slot: PlacedSlot, then: Uint8Array): TracePieces {
  const pieces: TracePieces[number][] = [];
  for (let at = 0; at < then.length; at += now.length) {
    const before = then.subarray(at, at + now.length);
    const after = now.subarray(0, before.length);
    readInto(calls, slot.hva + at, after);
    if (Buffer.compare(before, after) === 0) continue;
    for (let page = 0; page < after.length; page += PAGE) {
      const part = (bytes: Uint8Array): Uint8Array => bytes.subarray(page, page + PAGE);
      pieces.push(...changedPieces(part(before), part(after), slot.gpa + at + page));
    }
  }
  return pieces;
}

function readSlot(calls: KvmCalls, { hva, size }: PlacedSlot): Uint8Array {
  const bytes = Buffer.allocUnsafeSlow(size);
  readInto(calls, hva, bytes);
  return bytes;
}

/** What cannot be read is zero. */
function readInto(calls: KvmCalls, hva: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) {
    const got = calls.readMemory(hva + at, bytes.subarray(at));
    if (got > 0) at += got;
    else {
      const end = at + PAGE - (at % PAGE);
      bytes.fill(0, at, end);
      at = end;
    }
  }
}
