// The n-th allocation, mmap, … of the addon fails, for every n: nothing crashes, the error is told, nothing is left over.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { calls } from './addon.mjs';
import { WORKLOADS } from './workloads.mjs';

const KINDS = { allocation: 1, mmap: 2, mprotect: 3, mremap: 4, ioctl: 5, other: 6 };
const FAULT = 0x40000000;
const QUERY = 0x20000000;

const arm = (kind, n) => {
  if (calls.eventfd(FAULT + kind * 65536 + n) !== -33)
    throw new Error('the library that makes calls fail is not loaded');
};
const counted = () => -calls.eventfd(QUERY) - 1000;
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Once guarded memory was copied the addon has a pipe for it. */
function isNoPipe(fd) {
  try {
    return !readlinkSync(`/proc/self/fd/${fd}`).startsWith('pipe:');
  } catch {
    // That of the listing itself.
    return false;
  }
}

async function counts() {
  for (let i = 0; i < 3; i++) {
    globalThis.gc();
    await turn();
  }
  return {
    descriptors: readdirSync('/proc/self/fd').filter(isNoPipe).length,
    mappings: readFileSync('/proc/self/maps', 'utf8').split('\n').length,
  };
}

const [name = 'guests'] = process.argv.slice(2);
const work = WORKLOADS[name];
for (let i = 0; i < 3; i++) await work();
const before = await counts();
const usual = (await work()).length;
let tried = 0;
for (const [what, kind] of Object.entries(KINDS)) {
  for (let n = 1; ; n++) {
    arm(kind, n);
    const errors = await work();
    const happened = counted() >= n;
    arm(0, 0);
    if (!happened) break;
    tried++;
    if (errors.some((error) => !(error > -134 && error < 0))) throw new Error(`${what} ${n}: ${errors}`);
    const after = await counts();
    if (after.descriptors > before.descriptors)
      throw new Error(`${what} ${n}: ${after.descriptors} descriptors are open`);
    if (after.mappings > before.mappings + 20) {
      throw new Error(`${what} ${n}: ${before.mappings} mappings became ${after.mappings}`);
    }
  }
}
const errors = (await work()).length;
console.log(JSON.stringify({ tried, usual, errors }));
