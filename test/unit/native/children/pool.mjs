// Memory goes while a thread of Node's pool writes to a view of it: nothing crashes, and nothing of others is written.
import { execFileSync } from 'node:child_process';
import { randomFill } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, read, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { calls } from './addon.mjs';

const RW = 3;
const PRIVATE = 0x22;
const EBUSY = -16;
const LENGTH = 64 << 20;

function equal(actual, expected, what) {
  if (actual !== expected) throw new Error(`${what}: ${actual} instead of ${expected}`);
}

const map = (length) => calls.mmap(length, RW, PRIVATE, -1, 0, 0, 0);
const viewOf = (hva, length) => new Uint8Array(calls.view(hva, length));

async function collect() {
  for (let i = 0; i < 4; i++) {
    globalThis.gc();
    await delay(1);
  }
}

/** While random bytes are being written to all of a mapping. */
async function whileFilling(act) {
  const hva = map(LENGTH);
  const filling = promisify(randomFill)(viewOf(hva, LENGTH));
  await delay(3);
  await act(hva);
  await filling;
  return hva;
}

/** fs.read of a FIFO waits for somebody to write; what comes then must not land in a mapping made meanwhile. */
async function fifo() {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
  const path = join(folder, 'fifo');
  execFileSync('mkfifo', [path]);
  const fd = openSync(path, 'r+');
  const hva = map(0x10000);
  const reading = promisify(read)(fd, viewOf(hva, 0x10000), 0, 0x10000, null);
  await delay(20);
  equal(calls.munmap(hva, 0x10000), 0, 'munmap');
  await collect();
  const others = Array.from({ length: 64 }, () => map(0x10000));
  writeSync(fd, new Uint8Array(0x8000).fill(0xee));
  await reading;
  const bytes = new Uint8Array(0x10000);
  for (const other of others) {
    equal(calls.readMemory(other, bytes), bytes.length, 'readMemory');
    if (bytes.some((byte) => byte !== 0)) throw new Error('another mapping was written to');
  }
  closeSync(fd);
  rmSync(folder, { recursive: true });
  return hva;
}

/** A worker that is terminated while the pool writes. */
async function end() {
  const worker = new Worker(
    `import(${JSON.stringify(new URL('addon.mjs', import.meta.url).href)}).then(({ calls }) => {
      const hva = calls.mmap(${LENGTH}, 3, 0x22, -1, 0, 0, 0);
      require('node:crypto').randomFill(new Uint8Array(calls.view(hva, ${LENGTH})), () => {});
      require('node:worker_threads').parentPort.postMessage(hva);
    });`,
    { eval: true },
  );
  await new Promise((resolve) => worker.once('message', resolve));
  await worker.terminate();
}

switch (process.argv[2]) {
  case 'munmap':
    for (let i = 0; i < 3; i++) await whileFilling((hva) => equal(calls.munmap(hva, LENGTH), 0, 'munmap'));
    break;
  case 'part': {
    const hva = await whileFilling((at) => {
      equal(calls.munmap(at, LENGTH / 2), 0, 'munmap of a part');
      // What is unmapped is no memory any more, whoever may still be writing there.
      equal(calls.readMemory(at, new Uint8Array(8)), -14, 'readMemory');
    });
    equal(calls.munmap(hva, LENGTH), 0, 'munmap');
    break;
  }
  case 'mprotect': {
    const hva = await whileFilling((at) => equal(calls.mprotect(at, LENGTH, 1), EBUSY, 'mprotect'));
    equal(calls.mprotect(hva, LENGTH, 1), EBUSY, 'before the collector knows');
    await collect();
    equal(calls.mprotect(hva, LENGTH, 1), 0, 'mprotect');
    break;
  }
  case 'fifo':
    await fifo();
    break;
  case 'end':
    await end();
    break;
  default:
    throw new Error('how?');
}
