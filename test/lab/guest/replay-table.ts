import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import {
  applyHtabStream,
  decodeHtabStream,
  diffHtabs,
  type Htab,
  htabChunks,
} from '../../../lib/arch/ppc64/model/index.ts';
import type { KvmCalls } from '../../../lib/calls/kvm-calls.ts';
import { HTAB, MAP, PROT } from '../../../lib/uapi/flags.ts';
import { GUEST_ROOT } from '../job.ts';

/*
 * Puts the captured table of a running Linux into a kernel through the HTAB fd, and reads it back: the first table, and
 * what the second one changes in it.
 */

export const CAPTURE = 'test/captures/ppc64-hpt-linux-6.12';
const READ_BYTES = 65536;

/** What the guest's addresses lead to while its table is there. */
export interface ReplayMemory {
  readonly name: string;
  /** Size of the one memslot; pages beyond it are MMIO. */
  readonly bytes: number;
  /** As much of it as was written before, so that the host has page tables for it. */
  readonly touched: number;
}

/** The memory of the captured guest, as it would be restored, and too little of it. */
export const MEMORIES: readonly ReplayMemory[] = [
  { name: 'all memory, untouched', bytes: 512 << 20, touched: 0 },
  { name: 'an eighth of it, in use', bytes: 64 << 20, touched: 64 << 20 },
];

/** What one kernel did. */
export interface Replay {
  /** What each write(2) of a chunk gave. */
  readonly writes: readonly number[];
  /** What was read after the table was written, after the changes, and after the memslot was gone. */
  readonly passes: readonly Buffer[];
}

export interface ReplayedTable {
  readonly memory: string;
  readonly chunks: number;
  readonly refused: number;
  readonly bytes: readonly number[];
  /** Slots that differ from the table that was written, after the first pass and after the second. */
  readonly differences: readonly number[];
  /** The first thing in which the emulated kernel differs from this one. */
  readonly emulated: string | undefined;
}

const captured = (name: string): Buffer => gunzipSync(readFileSync(join(GUEST_ROOT, CAPTURE, name)));

/** The chunks of a stream, each with its header. */
function chunksOf(stream: Buffer): readonly Buffer[] {
  return Array.from(htabChunks(stream), ({ offset, end }) => stream.subarray(offset, end));
}

function replay(calls: KvmCalls, { bytes, touched }: ReplayMemory, order: number, streams: readonly Buffer[]): Replay {
  const kvm = calls.openKvm();
  const vm = calls.createVm(kvm, 0);
  const hva = calls.mmap(bytes, PROT.READ | PROT.WRITE, MAP.SHARED | MAP.ANONYMOUS | MAP.NORESERVE, -1, 0, 0, 0);
  const piece = new Uint8Array(1 << 20).fill(0x60);
  for (let at = 0; at < touched; at += piece.length) calls.writeMemory(hva + at, piece);
  const ppc64 = calls.ppc64!;
  const refused = calls.setUserMemoryRegion(vm, 0, 0, 0, bytes, hva) || ppc64.allocateHtab(vm, order);
  if (refused !== 0) throw new Error(`the VM cannot be set up: ${refused}`);
  const reader = ppc64.getHtabFd(vm, 0, 0);
  const writer = ppc64.getHtabFd(vm, HTAB.WRITE, 0);
  const writes: number[] = [];
  const passes: Buffer[] = [];
  for (const stream of streams) {
    for (const chunk of chunksOf(stream)) writes.push(calls.write(writer, chunk));
    passes.push(drain(calls, reader));
  }
  calls.setUserMemoryRegion(vm, 0, 0, 0, 0, 0);
  passes.push(drain(calls, reader));
  for (const fd of [writer, reader, vm, kvm]) calls.close(fd);
  calls.munmap(hva, bytes);
  return { writes, passes };
}

function drain(calls: KvmCalls, reader: number): Buffer {
  const parts: Buffer[] = [];
  for (;;) {
    const part = Buffer.alloc(READ_BYTES);
    const read = calls.read(reader, part);
    if (read < 0) throw new Error(`read gave ${read}`);
    if (read === 0) return Buffer.concat(parts);
    parts.push(part.subarray(0, read));
  }
}

/** The first thing that two kernels did differently. */
function firstDifference(real: Replay, other: Replay): string | undefined {
  const write = real.writes.findIndex((result, i) => result !== other.writes[i]);
  if (write >= 0) return `write ${write}: real ${real.writes[write]}, emulated ${other.writes[write]}`;
  for (const [i, pass] of real.passes.entries()) {
    const emulated = other.passes[i]!;
    if (pass.equals(emulated)) continue;
    const at = pass.findIndex((byte, offset) => byte !== emulated[offset]);
    return `pass ${i}, byte ${at} of ${pass.length} and ${emulated.length}: ${hex(pass, at)} and ${hex(emulated, at)}`;
  }
  return undefined;
}

const hex = (bytes: Buffer, at: number): string => bytes.toString('hex', at - (at % 8), at + 24);

/** Replays the capture on the real kernel and on the emulated one, with each kind of memory. */
export function replayTable(real: KvmCalls, emulated: KvmCalls, progress: (text: string) => void): ReplayedTable[] {
  const streams = [captured('htab.stream.gz'), captured('htab2.delta.stream.gz')];
  const tables = [decodeHtabStream(streams[0]!), decodeHtabStream(streams[0]!)] as const;
  applyHtabStream(tables[1], streams[1]!);
  return MEMORIES.map((memory) => {
    progress(`a captured table: ${memory.name}`);
    const done = replay(real, memory, tables[0].order, streams);
    const table = decodeHtabStream(done.passes[0]!);
    const differences = [count(table, tables[0])];
    applyHtabStream(table, done.passes[1]!);
    differences.push(count(table, tables[1]));
    return {
      memory: memory.name,
      chunks: done.writes.length,
      refused: done.writes.filter((result) => result < 0).length,
      bytes: done.passes.map(({ length }) => length),
      differences,
      emulated: firstDifference(done, replay(emulated, memory, tables[0].order, streams)),
    };
  });
}

const count = (table: Htab, source: Htab): number => [...diffHtabs(table, source)].length;
