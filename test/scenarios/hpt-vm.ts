import { setTimeout as sleep } from 'node:timers/promises';
import { HTAB } from '../../lib/uapi/flags.ts';
import type { ScenarioHost } from './scenario.ts';

/** Bytes of memory behind slot 0, at guest physical 0: some pages of it touched, the rest never. */
export const MEMORY_SIZE = 64 << 20;

/** Entries of kinds that behave differently: bolted, plain, in a 256 MiB segment and secondary. Their place fits no hash. */
export const BOLTED = [0x4000_0001_2345_6011n, 0x1192n] as const;
export const PLAIN = [0x4000_0001_2345_8001n, 0x2010n] as const;
export const SECONDARY = [0x0000_0007_6543_2003n, 0x3097n] as const;

export type Entry = readonly [v: bigint, r: bigint];

/** One chunk of the stream. */
export function chunk(index: number, entries: readonly Entry[], nInvalid = 0, nValid = entries.length): Buffer {
  const bytes = Buffer.alloc(8 + entries.length * 16);
  bytes.writeUInt32LE(index);
  bytes.writeUInt16LE(nValid, 4);
  bytes.writeUInt16LE(nInvalid, 6);
  entries.forEach(([v, r], i) => {
    bytes.writeBigUInt64BE(v, 8 + i * 16);
    bytes.writeBigUInt64BE(r, 16 + i * 16);
  });
  return bytes;
}

/** Long enough for a kernel to allocate a small table in the background, also on a slow machine. The emulated one has it at once. */
export async function tableAllocated({ calls }: ScenarioHost): Promise<void> {
  if (calls.backend === 'native') await sleep(1000);
}

/** An entry for real-mode accesses to `ea`, and where it belongs in a table of this order. */
export function vrma(order: number, ea: bigint, place: number): [slot: number, entry: Entry] {
  const vsid = 0x1ff_ffffn;
  const group = ((ea >> 12n) ^ vsid ^ (vsid << 25n)) & ((1n << BigInt(order - 7)) - 1n);
  return [Number(group) * 8 + place, [0x4001_ffff_ff00_0011n | ((ea >> 16n) & ~0x7fn), ea | 0x12n]];
}

/** A VM with memory, and the HPT calls on it. */
export class HptVm {
  readonly vm: number;
  readonly hva: number;
  readonly #s: ScenarioHost;

  constructor(s: ScenarioHost, order?: number, slotFlags = 0) {
    this.#s = s;
    this.vm = s.vm().vm;
    this.hva = s.memory(MEMORY_SIZE / s.unit);
    s.calls.writeMemory(this.hva, new Uint8Array(0x4000).fill(0x60));
    s.calls.setUserMemoryRegion(this.vm, 0, slotFlags, 0, MEMORY_SIZE, this.hva);
    if (order !== undefined) this.ppc.allocateHtab(this.vm, order);
  }

  get ppc() {
    return this.#s.calls.ppc64!;
  }

  reader(flags = 0, start = 0): number {
    return this.ppc.getHtabFd(this.vm, flags, start);
  }

  read(fd: number, count = 65536): number {
    return this.#s.calls.read(fd, new Uint8Array(count));
  }

  /** Reads until there is nothing, but not forever. */
  drain(fd: number, count = 65536): void {
    for (let reads = 0; reads < 40 && this.read(fd, count) > 0; reads++);
  }

  write(...chunks: readonly Uint8Array[]): number {
    const fd = this.reader(HTAB.WRITE);
    const result = this.#s.calls.write(fd, Buffer.concat(chunks));
    this.#s.calls.close(fd);
    return result;
  }

  slot(size: number, flags = 0): void {
    this.#s.calls.setUserMemoryRegion(this.vm, 0, flags, 0, size, this.hva);
  }
}
