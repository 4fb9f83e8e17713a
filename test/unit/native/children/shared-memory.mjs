// What a call is given is changed by another thread meanwhile: what was checked is what is used.
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { calls } from './addon.mjs';

const RW = 3;
const PRIVATE = 0x22;
const LENGTH = 16 * calls.pageSize;
const SET_USER_MEMORY_REGION = 0x4020ae46;
const rounds = Number(process.argv[3]);
/** On a busy machine the other thread may not have had its turn by then: go on until it had. */
const patience = performance.now() + 20_000;
const goOn = (i, seen) => i < rounds || (Object.keys(seen).length < 2 && performance.now() < patience);

/** A thread that writes one of two values to a place, in turn, until it is told to stop. */
async function flipping(buffer, index, values) {
  const stop = new Int32Array(new SharedArrayBuffer(8));
  const worker = new Worker(
    `const { workerData: { buffer, index, values, stop } } = require('node:worker_threads');
    const words = new BigUint64Array(buffer);
    for (let i = 0; Atomics.load(stop, 0) === 0; i++) {
      Atomics.store(words, index, values[i & 1]);
      if (i === 0) Atomics.store(stop, 1, 1);
    }`,
    { eval: true, workerData: { buffer, index, values, stop } },
  );
  while (Atomics.load(stop, 1) === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  return () => {
    Atomics.store(stop, 0, 1);
    return new Promise((resolve) => worker.once('exit', resolve));
  };
}

/** A memslot through ioctlUnchecked, whose host address changes between a mapping of ours and the stack: that is where the fake KVM says EXDEV. */
async function slots() {
  const vm = calls.createVm(calls.openKvm(), 0);
  const ours = calls.mmap(LENGTH, RW, PRIVATE, -1, 0, 0, 0);
  const [, stack] = /^([0-9a-f]+)-.*\[stack\]$/m.exec(readFileSync('/proc/self/maps', 'utf8'));
  const buffer = new SharedArrayBuffer(32);
  const words = new BigUint64Array(buffer);
  words[2] = BigInt(calls.pageSize);
  const stop = await flipping(buffer, 3, [BigInt(ours), BigInt(`0x${stack}`)]);
  const seen = {};
  for (let i = 0; goOn(i, seen); i++) {
    const result = calls.ioctlUnchecked(vm, SET_USER_MEMORY_REGION, new Uint8Array(buffer));
    seen[result] = (seen[result] ?? 0) + 1;
  }
  await stop();
  return seen;
}

/** A stream whose header speaks of slots inside the table and outside of it in turn. */
async function htab() {
  const entries = 64;
  const table = new Uint8Array(3 * 16 * entries).fill(0xaa);
  const middle = table.subarray(16 * entries, 32 * entries);
  const buffer = new SharedArrayBuffer(8);
  const stop = await flipping(buffer, 0, [1n << 48n, (BigInt(entries) << 48n) | BigInt(entries / 2)]);
  const seen = {};
  for (let i = 0; goOn(i, seen); i++) {
    const result = calls.htab.apply(middle, new Uint8Array(buffer), 1, new Uint8Array(256));
    seen[result] = (seen[result] ?? 0) + 1;
    if (table.some((byte, at) => (at < 16 * entries || at >= 32 * entries) && byte !== 0xaa)) {
      throw new Error('what is beside the table was written to');
    }
  }
  await stop();
  return seen;
}

console.log(JSON.stringify(process.argv[2] === 'slots' ? await slots() : await htab()));
