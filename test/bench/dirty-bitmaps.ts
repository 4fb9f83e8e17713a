import { EmulatedKernel } from '../../lib/backends/emulated.ts';
import { checked } from '../../lib/calls/checked.ts';
import type { KvmCalls } from '../../lib/calls/kvm-calls.ts';
import { Kvm } from '../../lib/handles/kvm.ts';
import { type Bench, type Benchmark, randomU32, requireEqual } from './benchmark.ts';
import { type Case, repeat } from './measure.ts';

/** Numbers of one `pagesInto` or `runsInto`: no more than a cache holds. */
const BATCH = 4096;
const TEBIBYTE = 2 ** 40;
const PAGES = TEBIBYTE / 4096;

/** A bitmap in which each page is dirty with the given probability. */
function randomBitmap(share: number): BigUint64Array {
  const random = randomU32();
  const words = new Uint32Array(PAGES / 32);
  if (share === 0.5) return new BigUint64Array(words.map(random).buffer);
  for (let left = PAGES * share; left > 0; left--) {
    const page = random() % PAGES;
    words[page >>> 5]! |= 1 << (page & 31);
  }
  return new BigUint64Array(words.buffer);
}

/** The emulated kernel, except that the guest of its VMs has dirtied just these pages. */
function kernelWithDirtyPages(bitmap: BigUint64Array): KvmCalls {
  const bytes = new Uint8Array(bitmap.buffer);
  const getDirtyLog: KvmCalls['getDirtyLog'] = (_vm, _slot, into) => {
    into?.set(bytes);
    return 0;
  };
  return { ...checked(new EmulatedKernel({ arch: 'x86_64' })), getDirtyLog };
}

/** As doubles, which these sums don't make inexact; four at a time, since an addition of doubles waits for the one before. */
function sumOf(numbers: Float64Array, length: number): number {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  let i = 0;
  for (; i + 4 <= length; i += 4) {
    a += numbers[i]!;
    b += numbers[i + 1]!;
    c += numbers[i + 2]!;
    d += numbers[i + 3]!;
  }
  for (; i < length; i++) a += numbers[i]!;
  return a + b + c + d;
}

function sumOfProducts(pairs: Float64Array, count: number): number {
  let sum = 0;
  for (let i = 0; i < 2 * count; i += 2) sum = (sum + Math.imul(pairs[i]!, pairs[i + 1]!)) | 0;
  return sum;
}

export const dirtyBitmaps: Benchmark = {
  name: 'dirty-bitmap',
  needsKvm: false,
  *cases({ comparators: { c }, sizes }: Bench): Generator<Case> {
    for (const percent of sizes([0.01, 1, 50])) {
      const bitmap = randomBitmap(percent / 100);
      using kvm = Kvm.open({ calls: kernelWithDirtyPages(bitmap) });
      using vm = kvm.createVm();
      using ram = kvm.mapAnonymous(TEBIBYTE);
      vm.memory.addRam(0, ram);
      using dirty = vm.dirtyPages.start().collect();
      const { count } = dirty;
      let sum = 0;
      const addPages = (): void => {
        sum = 0;
        dirty.forEachPage((gfn) => {
          sum = (sum + gfn) | 0;
        });
      };
      const addRuns = (): void => {
        sum = 0;
        dirty.forEachRun((gfn, npages) => {
          sum = (sum + Math.imul(gfn, npages)) | 0;
        });
      };
      const batch = new Float64Array(BATCH);
      const addBatches = (): void => {
        sum = 0;
        for (let length = dirty.pagesInto(batch); length > 0; length = dirty.pagesInto(batch, batch[length - 1]! + 1)) {
          sum = (sum + sumOf(batch, length)) | 0;
        }
      };
      const addRunBatches = (): void => {
        sum = 0;
        let from = 0;
        for (let runs = dirty.runsInto(batch); runs > 0; runs = dirty.runsInto(batch, from)) {
          sum = (sum + sumOfProducts(batch, runs)) | 0;
          from = batch[2 * runs - 2]! + batch[2 * runs - 1]!;
        }
      };
      const result = new Int32Array(1);
      addPages();
      c.dirtyPages(bitmap, bitmap.length, 1, result);
      requireEqual(sum, result[0]!, 'the sum of the dirty frames');
      addBatches();
      requireEqual(sum, result[0]!, 'the sum of the dirty frames in batches');
      addRuns();
      c.dirtyRuns(bitmap, bitmap.length, 1, result);
      requireEqual(sum, result[0]!, 'the sum over the dirty runs');
      addRunBatches();
      requireEqual(sum, result[0]!, 'the sum over the dirty runs in batches');
      yield {
        title: `dirty pages of a 1 TiB guest, ${percent} % dirty`,
        meter: 'cpu',
        per: 'dirty page',
        times: count,
        contenders: [
          { name: 'forEachPage', run: (n) => repeat(n, addPages) },
          { name: 'pagesInto', run: (n) => repeat(n, addBatches) },
          { name: 'C pages', run: (n) => c.dirtyPages(bitmap, bitmap.length, n, result) },
          { name: 'forEachRun', run: (n) => repeat(n, addRuns) },
          { name: 'runsInto', run: (n) => repeat(n, addRunBatches) },
          { name: 'C runs', run: (n) => c.dirtyRuns(bitmap, bitmap.length, n, result) },
        ],
        comparisons: [
          { of: 'forEachPage', to: 'C pages' },
          { of: 'pagesInto', to: 'C pages', goal: 1.5 },
          { of: 'forEachRun', to: 'C runs' },
          { of: 'runsInto', to: 'C runs', goal: 1.3 },
        ],
      };
    }
  },
};
