import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { AddressSpace, Mapping, Reservation, TrackedWrites } from '../../../lib/index.ts';
import { EmulatedKernel, ERRNO, type KvmCalls, type UserfaultfdCalls } from '../../../lib/raw.ts';
import { loadStores } from '../handles/guests.ts';
import { runNode } from '../native/real.ts';
import { requireRoot, trackingKernel, UFFD_KERNELS } from './uffd-host.ts';

const PAGES = 64;

const kinds = {
  anonymous: (calls: KvmCalls) => Mapping.anonymous(calls, PAGES * calls.pageSize),
  memfd: (calls: KvmCalls) => Mapping.memfd(calls, PAGES * calls.pageSize),
};

/** The numbers of the pages that were written. */
function pagesOf(writes: TrackedWrites): number[] {
  const { pageSize } = writes.mapping.calls;
  const pages: number[] = [];
  writes.collect().forEachPage((offset) => pages.push(offset / pageSize));
  return pages;
}

describe.each(UFFD_KERNELS)('$name', ({ callsOf, kvmOf, isReal }) => {
  describe.each(['anonymous', 'memfd'] as const)('writes to %s memory', (kind) => {
    it('are seen whoever makes them, and each once; reads are not', (test) => {
      const calls = callsOf(test);
      const page = calls.pageSize;
      using ram = kinds[kind](calls);
      using space = new AddressSpace({ littleEndian: true, pageSize: page });
      space.addRam(0, ram);
      ram.write(3 * page, new Uint8Array(8));
      using writes = new TrackedWrites(ram);
      expect(pagesOf(writes)).toEqual([]);

      space.writeU8(page, 1); // typed access
      const slice = space.slice(0, PAGES * page);
      slice[2 * page] = 1; // a view of the memory itself
      const random = openSync('/dev/urandom', 'r');
      readSync(random, slice, 4 * page, page, null); // a system call
      closeSync(random);
      ram.write(6 * page - 1, new Uint8Array([1, 1])); // both sides of a seam
      ram.read(8 * page, new Uint8Array(page));
      expect(slice[9 * page]).toBe(0);
      expect(space.readU8(3 * page)).toBe(0);
      expect(pagesOf(writes)).toEqual([1, 2, 4, 5, 6]);
      expect(writes.runs()).toEqual([
        { offset: page, length: 2 * page },
        { offset: 4 * page, length: 3 * page },
      ]);
      expect([writes.count, [...writes.bitmap]]).toEqual([5, [0b111_0110, 0, 0, 0, 0, 0, 0, 0]]);

      expect(pagesOf(writes)).toEqual([]);
      // The same value once more: only the real kernel hears of that.
      slice[2 * page] = isReal ? 1 : 2;
      slice[PAGES * page - 1] = 1;
      expect(pagesOf(writes)).toEqual([2, PAGES - 1]);
    });

    it('are pages that the mapping gave back, too', (test) => {
      const calls = callsOf(test);
      const page = calls.pageSize;
      using ram = kinds[kind](calls);
      ram.write(0, new Uint8Array(PAGES * page).fill(7));
      using writes = new TrackedWrites(ram);
      ram.discard(4 * page, 2 * page);
      expect(pagesOf(writes)).toEqual([4, 5]);
      ram.unmapPart(10 * page, page);
      expect(pagesOf(writes)).toEqual([10]);
      ram.write(11 * page, new Uint8Array(1));
      expect(pagesOf(writes)).toEqual([11]);
      ram.write(12 * page + 1, new Uint8Array(0));
      expect(pagesOf(writes)).toEqual([]);
    });

    it("are a guest's too", async (test) => {
      const kvm = kvmOf(test);
      const page = kvm.pageSize;
      using ram = kinds[kind](kvm.calls);
      using vm = kvm.createVm();
      vm.memory.addRam(0, ram);
      using vcpu = vm.createVcpu();
      loadStores(kvm, vm, vcpu, [20 * page, 22 * page + 5, 20 * page + 1]);
      using writes = new TrackedWrites(ram);
      await vcpu.run();
      expect(pagesOf(writes)).toEqual([20, 22]);
      loadStores(kvm, vm, vcpu, [22 * page]);
      pagesOf(writes);
      await vcpu.run();
      expect(pagesOf(writes)).toEqual([22]);
    });
  });

  describe('tracking writes', () => {
    it('is for files, too', (test) => {
      const calls = callsOf(test);
      const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-tracked-'));
      test.onTestFinished(() => rmSync(folder, { recursive: true }));
      writeFileSync(join(folder, 'file'), new Uint8Array(4 * calls.pageSize));
      using file = Mapping.file(calls, join(folder, 'file'));
      using writes = new TrackedWrites(file);
      file.read(0, new Uint8Array(2 * calls.pageSize));
      file.write(3 * calls.pageSize, new Uint8Array([1]));
      expect(pagesOf(writes)).toEqual([3]);
    });

    it('ends with close, in any order with the mapping, and leaves the memory as it was', (test) => {
      const calls = callsOf(test);
      const page = calls.pageSize;
      const ram = kinds.anonymous(calls);
      const writes = new TrackedWrites(ram);
      expect(ram.pins).toBe(1);
      ram.write(page, new Uint8Array([1]));
      ram.close();
      expect(pagesOf(writes)).toEqual([1]);
      expect(inspect(writes)).toContain('1 page collected');
      writes.close();
      writes.close();
      expect([writes.closed, writes.count, ram.pins]).toEqual([true, 1, 0]);
      expect(() => writes.collect()).toThrow(
        expect.objectContaining({ code: 'EBADF', explanation: expect.stringContaining('closed') }),
      );
      expect(() => new TrackedWrites(ram)).toThrow(expect.objectContaining({ code: 'EBADF' }));
      using again = kinds.anonymous(calls);
      new TrackedWrites(again).close();
      using second = new TrackedWrites(again);
      again.write(0, new Uint8Array([1]));
      expect(pagesOf(second)).toEqual([0]);
    });

    it('is for one at a time, and for memory that the kernel can do it for', (test) => {
      const calls = callsOf(test);
      using ram = kinds.anonymous(calls);
      using _writes = new TrackedWrites(ram);
      expect(() => new TrackedWrites(ram)).toThrow(
        expect.objectContaining({ code: 'EBUSY', explanation: expect.stringContaining('another userfaultfd') }),
      );
      expect(ram.pins).toBe(1);
      using reserved = Reservation.make(calls, calls.pageSize, {});
      expect(() => new TrackedWrites(reserved)).toThrow(
        expect.objectContaining({ code: 'EINVAL', explanation: expect.stringContaining('this is a reservation') }),
      );
      expect(() => new TrackedWrites({} as Mapping)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }));
    });
  });
});

describe('tracking writes', () => {
  it('says what a kernel lacks', (test) => {
    const calls = trackingKernel(test);
    const older = (answers: object): Mapping =>
      kinds.anonymous({ ...calls, uffd: Object.assign({ ...calls.uffd }, answers) as UserfaultfdCalls });
    expect(() => new TrackedWrites(older({ uffdApi: () => -ERRNO.EINVAL }))).toThrow(
      expect.objectContaining({
        code: 'EINVAL',
        explanation: expect.stringContaining(
          `WP_ASYNC needs Linux 6.7 or later on x86_64, 6.10 or later on aarch64; this is ${calls.release}`,
        ),
      }),
    );
    expect(() => new TrackedWrites(older({ userfaultfd: () => -ERRNO.ENOSYS }))).toThrow(
      expect.objectContaining({ code: 'ENOSYS', explanation: expect.stringContaining('CONFIG_USERFAULTFD') }),
    );
    for (const options of [{ arch: 'ppc64' }, { arch: 'x86_64', release: '6.6' }] as const) {
      using emulated = Mapping.anonymous(new EmulatedKernel(options), 65536);
      expect(() => new TrackedWrites(emulated)).toThrow(
        expect.objectContaining({ code: 'EINVAL', explanation: expect.stringContaining(`on ${options.arch}`) }),
      );
    }
  });

  it('names /dev/userfaultfd to a user without the right', (test) => {
    const calls = trackingKernel(test);
    requireRoot(test);
    const child = runNode([
      '--import',
      new URL('../../typescript/register.mjs', import.meta.url).href,
      '--input-type=module',
      '-e',
      `import { Mapping, TrackedWrites } from ${JSON.stringify(new URL('../../../lib/index.ts', import.meta.url))};
       import { loadNative } from ${JSON.stringify(new URL('../../../lib/raw.ts', import.meta.url))};
       const { calls } = loadNative();
       const ram = Mapping.anonymous(calls, ${calls.pageSize});
       process.setgid(65534);
       process.setuid(65534);
       try { new TrackedWrites(ram); } catch (error) { console.log(error.code, error.syscall, error.explanation); }`,
    ]);
    expect(child.stdout + child.stderr).toMatch(
      /^EPERM userfaultfd .*\/dev\/userfaultfd.*vm\.unprivileged_userfaultfd is 0/,
    );
  });
});
