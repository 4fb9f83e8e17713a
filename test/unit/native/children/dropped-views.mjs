// Views come and go with the garbage collector, in every order with munmap, and nothing is left of them.
import { readFileSync } from 'node:fs';
import { calls } from './addon.mjs';

const LENGTH = 0x10000;
const turn = () => new Promise((resolve) => setImmediate(resolve));
const mappings = () => readFileSync('/proc/self/maps', 'utf8').split('\n').length;

async function round(count) {
  for (let i = 0; i < count; i++) {
    const hva = calls.mmap(LENGTH, 3, 0x22, -1, 0, 0, 0);
    new Uint8Array(calls.view(hva, LENGTH))[1] = 1;
    if (i % 7 === 0) globalThis.gc();
    if (i % 21 === 0) await turn();
    if (new Uint8Array(calls.view(hva, LENGTH))[1] !== 1) throw new Error('the bytes are gone');
    if (calls.munmap(hva, LENGTH) !== 0) throw new Error('munmap');
  }
  globalThis.gc();
  await turn();
  globalThis.gc();
  await turn();
}

await round(50);
const before = mappings();
await round(300);
const after = mappings();
if (after > before + 20) throw new Error(`${before} mappings became ${after}`);
