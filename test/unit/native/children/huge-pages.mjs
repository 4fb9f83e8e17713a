// A memfd of huge pages that is mapped twice: its pages are taken out through one mapping, and the pool has no others.
import { readFileSync, writeFileSync } from 'node:fs';
import { calls } from './addon.mjs';

const POOL = '/proc/sys/vm/nr_hugepages';
const HUGE = 2 << 20;
const MFD_HUGETLB = 4;
const MADV_REMOVE = 9;
const EACCES = -13;

const pool = () => Number(readFileSync(POOL, 'utf8'));

function equal(actual, expected, what) {
  if (actual !== expected) throw new Error(`${what}: ${actual} instead of ${expected}`);
}

function tryIt() {
  const memfd = calls.memfdCreate('huge', HUGE, MFD_HUGETLB);
  const [one, other] = [0, 1].map(() => calls.mmap(HUGE, 3, 1, memfd, 0, 0, 0));
  if (one < 0 || other < 0) throw new Error(`mmap: ${one}, ${other}`);
  const bytes = new Uint8Array(4096);
  equal(calls.writeMemory(one, bytes.fill(7)), bytes.length, 'writeMemory');
  for (const hva of [one, other]) equal(calls.view(hva, HUGE), EACCES, 'view');
  equal(calls.madvise(one, HUGE, MADV_REMOVE), 0, 'madvise');
  // The pages went back to the pool, and the pool gives them to nobody.
  writeFileSync(POOL, '0');
  for (const hva of [one, other]) {
    const read = calls.readMemory(hva, bytes);
    if (read !== bytes.length && read >= 0) throw new Error(`readMemory: ${read}`);
  }
}

const before = pool();
try {
  if (before === 0) writeFileSync(POOL, '4');
} catch (error) {
  console.log(`skip: vm.nr_hugepages cannot be set: ${error.message}`);
  process.exit(0);
}
try {
  if (before !== 0) console.log('skip: the huge pages of this host are for others');
  else if (pool() === 0) console.log('skip: this host has no memory for huge pages');
  else tryIt();
} finally {
  writeFileSync(POOL, String(before));
}
