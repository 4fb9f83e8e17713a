import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';

/** Places that are written: at each offset, of so many bytes (1, 2, 4 or 8), one of some values after the other, or anything. */
export type Places = readonly (readonly [
  offset: number,
  bytes: 1 | 2 | 4 | 8,
  values?: readonly (number | bigint)[] | undefined,
])[];

/** Memory that another thread can have: a SharedArrayBuffer, or a file of the addon's. */
export type FlippedMemory = SharedArrayBuffer | { readonly fd: number; readonly size: number };

const PROGRAM = `
const { workerData: { memory, addon, places, control } } = require('node:worker_threads');
let buffer = memory;
if (!(memory instanceof SharedArrayBuffer)) {
  const calls = require(addon);
  const own = calls.sharing.duplicate(memory.fd);
  const hva = calls.mmap(memory.size, 3, 1, own, 0, 0, 0);
  buffer = calls.window(hva, memory.size);
}
const view = new DataView(buffer);
let seed = 88172645463325252n;
const random = () => {
  seed ^= BigInt.asUintN(64, seed << 13n);
  seed ^= seed >> 7n;
  seed ^= BigInt.asUintN(64, seed << 17n);
  return seed;
};
for (let round = 0; Atomics.load(control, 0) === 0; round++) {
  for (const [offset, bytes, values] of places) {
    const value = values === undefined ? random() : BigInt(values[round % values.length]);
    if (bytes === 8) view.setBigUint64(offset, BigInt.asUintN(64, value), true);
    else if (bytes === 4) view.setUint32(offset, Number(value & 0xffffffffn), true);
    else if (bytes === 2) view.setUint16(offset, Number(value & 0xffffn), true);
    else view.setUint8(offset, Number(value & 0xffn));
  }
  Atomics.add(control, 1, 1);
}`;

/** How long something is done while another thread writes, in milliseconds; and how often that must have written. */
const WHILE_MS = 200;
const ROUNDS = 200;
/** On a busy machine the two take turns that are longer than that. */
const PATIENCE_MS = 10_000;

/**
 * Does something again and again while another thread writes to memory that it reads. Goes on until both have had their turns and
 * there is `enough`. @returns how often, and how often that has written meanwhile
 */
export async function whileFlipping(
  memory: FlippedMemory,
  places: Places,
  attempt: () => void,
  enough: () => boolean = () => true,
): Promise<{ readonly attempts: number; readonly rounds: number }> {
  const control = new Int32Array(new SharedArrayBuffer(8));
  const built = fileURLToPath(new URL('../../build/Release/kvm_bridge.node', import.meta.url));
  const addon = process.env.KVM_BRIDGE_ADDON ?? built;
  const worker = new Worker(PROGRAM, { eval: true, workerData: { memory, addon, places, control } });
  const ended = new Promise((resolve, reject) => worker.once('exit', resolve).once('error', reject));
  try {
    const rounds = (): number => Atomics.load(control, 1);
    while (rounds() === 0) await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 1))]);
    let attempts = 0;
    const start = performance.now();
    const past = (ms: number): boolean => performance.now() > start + ms;
    for (; !past(WHILE_MS) || rounds() < ROUNDS || !enough(); attempts++) {
      if (past(PATIENCE_MS)) break;
      attempt();
      // Now and then a turn of the loop, in which what waits for it is done.
      if (attempts % 256 === 255) await new Promise((resolve) => setImmediate(resolve));
    }
    return { attempts, rounds: rounds() };
  } finally {
    Atomics.store(control, 0, 1);
    await ended;
  }
}
