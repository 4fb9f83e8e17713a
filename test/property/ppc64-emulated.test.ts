import fc from 'fast-check';
import { expect, it } from 'vitest';
import { SlotSet } from '../../lib/arch/ppc64/emulated/slot-set.ts';
import { applyHtabStream, encodeHtabStream, Htab } from '../../lib/arch/ppc64/model/index.ts';
import { store } from '../../lib/emulated/guest.ts';
import { CAP } from '../../lib/uapi/capabilities.ts';
import { ERRNO } from '../../lib/uapi/errno.ts';
import { chunk, TestVm, vrma } from '../unit/arch/ppc64/emulated/vm.ts';

const bytesRead = (vm: TestVm, fd: number, count: number): Uint8Array => {
  const bytes = Buffer.alloc(count);
  return bytes.subarray(0, vm.ok(vm.kernel.read(fd, bytes)));
};

/** Reads passes into a copy until one has nothing. */
function catchUp(vm: TestVm, fd: number, copy: Htab, count: number): void {
  for (;;) {
    const bytes = bytesRead(vm, fd, count);
    if (bytes.length === 0) return;
    applyHtabStream(copy, bytes);
  }
}

/** All that entries here point to, and little, since the collector has much to do with what is large. */
const MEMORY = 1 << 20;

const ENTRY_V = 0x4000_0001_2345_0001n;
const slots = fc.integer({ min: 0, max: 99 });
const r = fc.constantFrom(0x2010n, 0x5192n, 0x6113n, 0x7000_0000_0010n, 0x1000_0000_0000_9210n);

/** What can change a table while somebody reads it. */
type Action = (vm: TestVm) => void;
const actions: fc.Arbitrary<Action> = fc.oneof(
  fc.tuple(slots, r, fc.boolean()).map<Action>(([slot, word, bolted]) => (vm) => {
    vm.ok(vm.write(slot, [[ENTRY_V | (bolted ? 0x10n : 0n), word]]));
  }),
  fc.tuple(slots, fc.integer({ min: 0, max: 20 })).map<Action>(([slot, count]) => (vm) => {
    vm.ok(vm.write(slot, [], count));
  }),
  fc.tuple(slots, r).map<Action>(([slot, word]) => (vm) => {
    vm.hcall(8, 0n, BigInt(slot), ENTRY_V, word);
  }),
  fc
    .tuple(fc.constantFrom(4, 0x10, 0x14, 0x18), slots, fc.constantFrom(0n, 3n, 0x3106n))
    .map<Action>(([nr, slot, flags]) => (vm) => {
      vm.hcall(nr, flags, BigInt(slot), 0n);
    }),
  fc.constantFrom(0x5000, 0x6000).map<Action>((ea) => (vm) => {
    vm.run(store(ea, 4, 1n));
    if (vm.exit === 0) vm.kernel.run(vm.vcpu, 0);
  }),
  fc.constant<Action>((vm) => {
    vm.dirty();
  }),
  fc.boolean().map<Action>((isThere) => (vm) => {
    // −EINVAL when there is no slot to delete.
    vm.kernel.setUserMemoryRegion(vm.vm, 0, 1, 0, isThere ? vm.memorySize : 0, vm.hva);
  }),
);

it('a copy that takes every pass is the table, whatever happens between the passes', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(actions, fc.boolean()), { minLength: 1, maxLength: 60, size: 'max' }),
      fc.constantFrom(25, 60, 4096),
      fc.constantFrom(4096, 65536),
      (steps, count, pageSize) => {
        const vm = new TestVm({ order: 18, pageSize, memorySize: MEMORY });
        for (const nr of [0x10, 0x14]) vm.ok(vm.kernel.enableCap(vm.vm, CAP.PPC_ENABLE_HCALL, 0, [nr, 1]));
        for (const ea of [0x5000n, 0x6000n]) {
          const [slot, entry] = vrma(18, ea, 0x10n);
          vm.ok(vm.write(slot, [entry]));
        }
        const fd = vm.reader();
        const copy = new Htab(18);
        for (const [act, read] of steps) {
          // GET_DIRTY_LOG and stores need memslot 0 to exist; without it the log is ENOENT.
          if (vm.kernel.getDirtyLog(vm.vm, 0, new Uint8Array(2048)) === -ERRNO.ENOENT) vm.slot(0, 0, vm.memorySize, 1);
          act(vm);
          if (read) catchUp(vm, fd, copy, count);
        }
        catchUp(vm, fd, copy, count);
        const now = new Htab(18);
        applyHtabStream(now, bytesRead(vm, vm.reader(), 1 << 20));
        expect(Buffer.compare(encodeHtabStream(copy), encodeHtabStream(now))).toBe(0);
      },
    ),
    { numRuns: 150 },
  );
}, 60_000);

it('writes of well-formed chunks leave exactly what was written', () => {
  const entries = fc.array(fc.tuple(slots, fc.array(r, { maxLength: 5 }), fc.integer({ min: 0, max: 9 })), {
    maxLength: 30,
    size: 'max',
  });
  fc.assert(
    fc.property(entries, (chunks) => {
      const vm = new TestVm({ order: 18, memorySize: MEMORY });
      const expected = new Htab(18);
      for (const [index, words, nInvalid] of chunks) {
        const bytes = chunk(
          index,
          words.map((word) => [ENTRY_V, word]),
          nInvalid,
        );
        expect(vm.writeBytes(bytes)).toBe(bytes.length);
        applyHtabStream(expected, bytes);
      }
      const now = new Htab(18);
      applyHtabStream(now, bytesRead(vm, vm.reader(), 1 << 20));
      expect(Buffer.compare(encodeHtabStream(now), encodeHtabStream(expected))).toBe(0);
    }),
    { numRuns: 200 },
  );
});

it('hostile writes get an errno of the kernel’s, and the table stays readable', () => {
  const vm = new TestVm({ order: 18 });
  const answers = new Set<number>();
  const nearly = fc
    .record({
      index: fc.oneof(fc.integer({ min: 0, max: 16400 }), fc.integer({ min: 0, max: 0xffff_ffff })),
      nValid: fc.oneof(fc.integer({ min: 0, max: 6 }), fc.integer({ min: 0, max: 0xffff })),
      nInvalid: fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 0xffff })),
      body: fc.uint8Array({ maxLength: 100, size: 'max' }),
    })
    .map(({ index, nValid, nInvalid, body }) => {
      const header = Buffer.alloc(8);
      header.writeUInt32LE(index);
      header.writeUInt16LE(nValid, 4);
      header.writeUInt16LE(nInvalid, 6);
      return new Uint8Array(Buffer.concat([header, body]));
    });
  fc.assert(
    fc.property(fc.oneof(nearly, fc.uint8Array({ maxLength: 120 })), (bytes) => {
      const result = vm.writeBytes(bytes);
      answers.add(Math.min(result, 0));
      // Up to 8 bytes more than there are: the header of a last chunk isn't counted.
      if (result >= 0) expect(result).toBeLessThanOrEqual(bytes.length + 8);
      else expect([-ERRNO.EINVAL, -ERRNO.EIO, -ERRNO.EFAULT]).toContain(result);
    }),
    { numRuns: 5000 },
  );
  expect(answers).toContain(0);
  expect(answers).toContain(-ERRNO.EINVAL);
  const now = new Htab(18);
  applyHtabStream(now, bytesRead(vm, vm.reader(), 1 << 20));
});

it('SlotSet is a set', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 100_000 }),
      fc.array(fc.tuple(fc.nat(), fc.boolean()), { maxLength: 100, size: 'max' }),
      fc.array(fc.nat(), { maxLength: 10 }),
      (size, changes, asked) => {
        const set = new SlotSet(size);
        const model = new Set<number>();
        for (const [value, add] of changes) {
          const slot = value % size;
          if (add) {
            set.add(slot);
            model.add(slot);
          } else {
            set.delete(slot);
            model.delete(slot);
          }
        }
        for (const from of [0, size - 1, ...asked.map((value) => value % size)]) {
          const behind = [...model].filter((slot) => slot >= from);
          expect(set.next(from)).toBe(behind.length === 0 ? -1 : Math.min(...behind));
        }
      },
    ),
    { numRuns: 300 },
  );
});
