import { EmulatedKernel } from '../../lib/backends/emulated.ts';
import { checked } from '../../lib/calls/checked.ts';
import type { KvmCalls } from '../../lib/calls/kvm-calls.ts';
import { Kvm } from '../../lib/handles/kvm.ts';
import { type Bench, type Benchmark, randomU32, requireEqual } from './benchmark.ts';
import { type Case, repeat } from './measure.ts';

/** Frames of one `pagesInto`: no more than a cache holds. */
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
          // As doubles, which these sums don't make inexact: to wrap each time would take longer than the listing.
          let ofBatch = 0;
          for (let i = 0; i < length; i++) ofBatch += batch[i]!;
          sum = (sum + ofBatch) | 0;
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
          { name: 'C runs', run: (n) => c.dirtyRuns(bitmap, bitmap.length, n, result) },
        ],
        comparisons: [
          { of: 'forEachPage', to: 'C pages' },
          { of: 'pagesInto', to: 'C pages', goal: 1.5 },
          { of: 'forEachRun', to: 'C runs', goal: 1.3 },
        ],
      };
    }
  },
};
