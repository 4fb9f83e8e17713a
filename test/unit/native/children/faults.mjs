// The n-th allocation, mmap, … of the addon fails, for every n: nothing crashes, the error is told, nothing is left over.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { calls } from './addon.mjs';

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

function countNow() {
  const mappings = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return {
    descriptors: readdirSync('/proc/self/fd').filter(isNoPipe).length,
    files: mappings.filter((line) => line.includes('/memfd:')).length,
    mappings: mappings.length,
  };
}

function collect() {
  globalThis.gc();
  return turn();
}

/** What may still have to happen before everything is gone: the collector, which takes longer than all the rest, comes last. */
const STEPS = [() => {}, turn, collect, collect, collect];

/** What is left over, in words. */
async function leftOver(before) {
  let left = '';
  for (const step of STEPS) {
    await step();
    const after = countNow();
    // V8's heap grows by about a hundred mappings.
    const slack = { descriptors: 0, files: 0, mappings: 150 };
    const more = Object.keys(slack).filter((what) => after[what] > before[what] + slack[what]);
    if (more.length === 0) return undefined;
    left = more.map((what) => `${before[what]} ${what} became ${after[what]}`).join(', ');
  }
  return left;
}

const [name = 'guests'] = process.argv.slice(2);
const work = (await import('./workloads.mjs')).WORKLOADS[name] ?? (await import('./typed-workloads.mjs'))[name];
for (let i = 0; i < 3; i++) await work();
for (let i = 0; i < 3; i++) await collect();
const before = countNow();
const usual = (await work()).length;
let tried = 0;
for (const [what, kind] of Object.entries(KINDS)) {
  for (let n = 1; ; n++) {
    arm(kind, n);
    const errors = await work().catch((error) => {
      throw new Error(`${what} ${n}: ${error.message}`, { cause: error });
    });
    const happened = counted() >= n;
    arm(0, 0);
    if (!happened) break;
    tried++;
    if (errors.some((error) => !(error > -134 && error < 0))) throw new Error(`${what} ${n}: ${errors}`);
    const left = await leftOver(before);
    if (left !== undefined) throw new Error(`${what} ${n}: ${left}`);
  }
}
const errors = (await work()).length;
console.log(JSON.stringify({ tried, usual, errors }));
