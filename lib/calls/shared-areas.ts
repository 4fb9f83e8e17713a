import { textOfBytes } from './format.ts';
import type { KvmCalls } from './kvm-calls.ts';
import type { TracePieces } from './trace-file.ts';

/** Equal bytes between two changes that are worth two pieces. */
const GAP = 16;

/** Where two arrays of one length differ, as pieces of the second. */
export function changedPieces(before: Uint8Array, after: Uint8Array, base = 0): [offset: number, bytes: string][] {
  const pieces: [number, string][] = [];
  if (Buffer.compare(before, after) === 0) return pieces;
  for (let at = 0; at < after.length; at++) {
    if (before[at] === after[at]) continue;
    let end = at + 1;
    for (let i = end; i < after.length && i < end + GAP; i++) if (before[i] !== after[i]) end = i + 1;
    pieces.push([base + at, textOfBytes(after.subarray(at, end))]);
    at = end;
  }
  return pieces;
}

interface Area {
  readonly name: string;
  readonly vcpu: number;
  readonly hva: number;
  readonly last: Uint8Array;
}

/** What vCPUs share with user space by mappings of their descriptors: kvm_run, the dirty ring. */
export class SharedAreas {
  readonly #calls: KvmCalls;
  readonly #areas: Area[] = [];

  constructor(calls: KvmCalls) {
    this.#calls = calls;
  }

  mapped(name: string, vcpu: number, hva: number, length: number): void {
    this.#areas.push({ name, vcpu, hva, last: new Uint8Array(length) });
  }

  unmapped(hva: number): void {
    const index = this.#areas.findIndex((area) => area.hva === hva);
    if (index >= 0) this.#areas.splice(index, 1);
  }

  /** Whether an address is in one of them. */
  has(hva: number): boolean {
    return this.#areas.some((area) => hva >= area.hva && hva < area.hva + area.last.length);
  }

  /** What has changed since it was asked last, of the vCPUs' areas: only those that changed. */
  changes(isConcerned: (vcpu: number) => boolean): Record<string, TracePieces> {
    const found: Record<string, TracePieces> = {};
    for (const { name, vcpu, hva, last } of this.#areas) {
      if (!isConcerned(vcpu)) continue;
      const now = new Uint8Array(last.length);
      if (this.#calls.readMemory(hva, now) !== now.length) continue;
      const pieces = changedPieces(last, now);
      if (pieces.length > 0) found[name] = pieces;
      last.set(now);
    }
    return found;
  }
}
