// No argument of mmapFixed reaches what isn't reserved, and nothing that happens to a reservation's memory is fatal.
import { ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { calls } from './addon.mjs';

const PAGE = calls.pageSize;
const EINVAL = -22;
const NONE = 0;
const RW = 3;
const SHARED = 1;
const PRIVATE = 0x22;
const PAGES = 16;

const reserve = () => calls.mmap(PAGES * PAGE, NONE, PRIVATE, -1, 0, 0, 0);

function equal(actual, expected, what) {
  if (actual !== expected) throw new Error(`${what}: ${actual} instead of ${expected}`);
}

/** Everything the process has mapped, as [start, end). */
function mapped() {
  const lines = readFileSync('/proc/self/maps', 'utf8').trim().split('\n');
  return lines.map((line) =>
    line
      .split(' ')[0]
      .split('-')
      .map((address) => BigInt(`0x${address}`)),
  );
}

// Over other memory of this process: its code, its stacks, its heap, mappings of ours that are no reservations.
const ram = calls.mmap(4 * PAGE, RW, PRIVATE, -1, 0, 0, 0);
const reservation = reserve();
const [first, last] = [BigInt(reservation), BigInt(reservation + PAGES * PAGE)];
for (const [start, end] of mapped()) {
  for (const at of [start, end - BigInt(PAGE)]) {
    if (at >= first && at < last) continue;
    for (const prot of [NONE, RW]) equal(calls.mmapFixed(at, PAGE, prot, PRIVATE, -1, 0), EINVAL, `over ${at}`);
  }
}
// From the inside across the end, around everything, and with sizes that wrap.
for (const [at, length] of [
  [last - BigInt(PAGE), 2 * PAGE],
  [first - BigInt(PAGE), 2 * PAGE],
  [first - BigInt(PAGE), (PAGES + 2) * PAGE],
  [first, (PAGES + 1) * PAGE],
  [first, PAGES * PAGE + 1],
  [first, 2n ** 64n - 1n],
  [first, 2n ** 63n],
  [first, 0],
  [first + 1n, PAGE],
  [last, PAGE],
]) {
  equal(calls.mmapFixed(at, length, RW, PRIVATE, -1, 0), EINVAL, `${at} for ${length}`);
}
equal(calls.mmapFixed(ram, PAGE, RW, PRIVATE, -1, 0), EINVAL, 'over a mapping of ours');

// The memory behind pieces comes and goes under copies of every kind.
const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
const path = join(folder, 'file');
writeFileSync(path, new Uint8Array(PAGES * PAGE));
const fd = openSync(path, 'r+');
const memfd = calls.memfdCreate('pieces', 4 * PAGE, 0);
const bytes = new Uint8Array(PAGES * PAGE);
let seed = 1;
const random = (below) => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 2 ** 32) * below);
};
for (let round = 0; round < 3000; round++) {
  const offset = random(PAGES);
  const pages = 1 + random(PAGES - offset);
  const [at, length] = [reservation + offset * PAGE, pages * PAGE];
  switch (random(9)) {
    case 0:
      equal(calls.mmapFixed(at, length, RW, PRIVATE, -1, 0), 0, 'anonymous');
      break;
    case 1:
      equal(calls.mmapFixed(at, length, RW, SHARED, fd, offset * PAGE), 0, 'file');
      break;
    case 2:
      equal(calls.mmapFixed(at, length, NONE, PRIVATE, -1, 0), 0, 'nothing');
      break;
    case 3:
      ftruncateSync(fd, random(PAGES) * PAGE);
      break;
    case 4:
      calls.mprotect(at, length, random(4));
      break;
    case 5:
      calls.madvise(at, length, random(2) === 0 ? 4 : 9);
      break;
    case 6:
      // Reaches beyond its end where it is longer than 4 pages, or begins later.
      equal(calls.mmapFixed(at, length, RW, SHARED, memfd, random(4) * PAGE), 0, 'memfd');
      break;
    case 7:
      if (pages < PAGES) equal(calls.munmap(at, length), 0, 'munmap');
      break;
    default:
      calls.mmapFixed(at, length, RW, SHARED, random(20), random(3) * PAGE);
  }
  equal(calls.view(reservation, PAGES * PAGE), -13, 'view');
  const start = reservation + random(PAGES * PAGE);
  calls.readMemory(start, bytes);
  calls.writeMemory(start, bytes.subarray(0, random(3 * PAGE)));
  const hvas = Float64Array.of(start, at, reservation);
  calls.gather(hvas, Uint32Array.of(8, 8, 8), bytes);
  calls.scatter(hvas, Uint32Array.of(8, 8, 8), bytes);
}

// Threads that map all the time never get an address of the reservation, and lose none of theirs.
const worker = new Worker(
  `const { parentPort } = require('node:worker_threads');
   const held = [];
   for (let i = 0; i < 400; i++) {
     held.push(Buffer.alloc(1 << 20, i & 255));
     if (held.length > 20 && !held.shift().equals(Buffer.alloc(1 << 20, (i - 20) & 255))) throw new Error('memory was lost');
   }
   parentPort.postMessage('done');`,
  { eval: true },
);
const done = new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
let over = false;
done.finally(() => {
  over = true;
});
while (!over) {
  for (let i = 0; i < 100; i++) {
    const at = reservation + random(PAGES) * PAGE;
    equal(calls.mmapFixed(at, PAGE, random(2) === 0 ? NONE : RW, PRIVATE, -1, 0), 0, 'beside a thread');
  }
  await new Promise((resolve) => setImmediate(resolve));
}
await done;

equal(calls.munmap(reservation, PAGES * PAGE), 0, 'munmap of all');
equal(calls.mmapFixed(reservation, PAGE, RW, PRIVATE, -1, 0), EINVAL, 'after munmap');
equal(calls.readMemory(ram, new Uint8Array(8)), 8, 'the other mapping');
rmSync(folder, { recursive: true });
