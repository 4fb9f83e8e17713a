import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RangeTable } from '../../lib/base/range-table.ts';
import { type AddressSpace, Kvm, type MemoryRegion } from '../../lib/index.ts';
import {
  type BitmapLoops,
  countBits,
  forEachBit,
  forEachBitRun,
  plainBitmapLoops,
} from '../../lib/memory/bitmap-loops.ts';
import { DirtyBitmap } from '../../lib/memory/dirty-bitmap.ts';
import { advance, exactGpa, joinGpa, splitGpa } from '../../lib/memory/gpa.ts';
import { putValue, takeValue } from '../../lib/memory/mmio-bus.ts';
import { PageSet } from '../../lib/memory/page-set.ts';
import { EmulatedKernel } from '../../lib/raw.ts';
import { loopsOfBoth } from '../unit/addon-loops.ts';

const PAGE = 4096;
const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });

describe('split addresses', () => {
  it('are exact over 64 bits, however they are moved on', () => {
    fc.assert(
      fc.property(u64, fc.array(fc.integer({ min: 0, max: 2 ** 40 }), { maxLength: 8 }), (gpa, steps) => {
        const at = splitGpa(gpa);
        let expected = gpa;
        for (const step of steps) {
          if (expected + BigInt(step) >= 1n << 64n) break;
          advance(at, step);
          expected += BigInt(step);
          expect(BigInt(joinGpa(at))).toBe(expected);
          expect(at.page % PAGE).toBe(0);
          expect(at.rest).toBeLessThan(PAGE);
        }
      }),
    );
  });

  it('are one double only where that is exact', () => {
    fc.assert(
      fc.property(u64, (gpa) => {
        let value: number;
        try {
          value = exactGpa(gpa);
        } catch (error) {
          expect(error).toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
          expect(BigInt(Number(gpa)) === gpa && gpa % 4096n === 0n).toBe(false);
          return;
        }
        expect(BigInt(value)).toBe(gpa);
      }),
    );
  });
});

describe('the range table', () => {
  // Clusters of very different spacing, so that buckets are empty, full and uneven.
  const layout = fc.uniqueArray(
    fc.oneof(
      fc.integer({ min: 0, max: 64 }),
      fc.integer({ min: 0, max: 2 ** 20 }),
      fc.integer({ min: 0, max: 2 ** 40 }),
    ),
    { minLength: 0, maxLength: 200 },
  );

  it('finds what a plain search finds, before and after it made its index, through insertions and removals', () => {
    fc.assert(
      fc.property(layout, fc.array(fc.nat()), fc.infiniteStream(fc.nat()), (pages, removals, dice) => {
        const rangeTable = new RangeTable<{ start: number; end: number }>();
        const sorted = [...pages].sort((a, b) => a - b);
        const entries = sorted.map((page, i) => {
          const limit = sorted[i + 1] ?? page + 10;
          const length = 1 + (dice.next().value % Math.max(1, Math.min(5, limit - page)));
          return { start: page * PAGE, end: (page + length) * PAGE };
        });
        const plain = (at: number) => entries.find((entry) => at >= entry.start && at < entry.end);
        const probe = (): void => {
          for (const entry of entries) {
            for (const at of [entry.start - 1, entry.start, entry.end - 1, entry.end]) {
              expect(rangeTable.find(at)).toBe(plain(at));
            }
          }
          for (const at of [-1, 0, Number.NaN, 2 ** 53, 2 ** 64]) expect(rangeTable.find(at)).toBe(plain(at));
        };
        for (const entry of [...entries].sort((a, b) => (a.start % 7919) - (b.start % 7919))) rangeTable.insert(entry);
        expect(rangeTable.entries).toEqual(entries);
        probe();
        probe();
        for (const removal of removals) {
          if (entries.length === 0) break;
          const [gone] = entries.splice(removal % entries.length, 1);
          expect(rangeTable.remove(gone!)).toBe(true);
          expect(rangeTable.remove(gone!)).toBe(false);
          probe();
        }
      }),
      { numRuns: 60 },
    );
  });

  it('finds overlaps as a plain search does', () => {
    fc.assert(
      fc.property(layout, fc.nat(2 ** 20), fc.integer({ min: 1, max: 2 ** 12 }), (pages, start, length) => {
        const rangeTable = new RangeTable<{ start: number; end: number }>();
        for (const page of pages) rangeTable.insert({ start: page, end: page + 1 });
        const found = rangeTable.overlapping(start, start + length);
        expect(found?.start).toBe(
          pages.filter((page) => page >= start && page < start + length).sort((a, b) => a - b)[0],
        );
      }),
    );
  });
});

describe('dirty bitmaps', () => {
  const words = fc.uint32Array({ minLength: 0, maxLength: 80 }).map((random) => {
    // Runs of empty and of full words are what the scan skips.
    for (let i = 0; i < random.length; i++) {
      if (random[i]! % 4 === 0) random[i] = 0;
      else if (random[i]! % 4 === 1) random[i] = 0xffff_ffff;
      else if (random[i]! % 4 === 2) random[i] = 1 << (random[i]! >>> 27);
    }
    return random;
  });
  const plainBits = (of: Uint32Array): number[] => {
    const bytes = new Uint8Array(of.buffer, of.byteOffset, of.byteLength);
    return [...bytes].flatMap((byte, i) =>
      [0, 1, 2, 3, 4, 5, 6, 7].filter((b) => byte & (1 << b)).map((b) => i * 8 + b),
    );
  };

  /** Runs of the bits that a plain loop finds, from a bit on. */
  const plainRuns = (bits: readonly number[]): [first: number, count: number][] => {
    const runs: [number, number][] = [];
    for (const bit of bits) {
      const last = runs.at(-1);
      if (last !== undefined && last[0] + last[1] === bit) last[1]++;
      else runs.push([bit, 1]);
    }
    return runs;
  };
  const LOOPS = loopsOfBoth<BitmapLoops>(plainBitmapLoops, ({ bitmaps }) => bitmaps);

  describe.each(LOOPS)('loops %s', (_name, loops) => {
    it('scan bit by bit and run by run as a plain loop does', () => {
      fc.assert(
        fc.property(words, (of) => {
          const bits = plainBits(of);
          const seen: number[] = [];
          forEachBit(of, 0, (bit) => seen.push(bit));
          expect(seen).toEqual(bits);
          expect(countBits(of)).toBe(bits.length);
          const runs: [number, number][] = [];
          forEachBitRun(loops, of, 0, new Float64Array(4), (first, count) => runs.push([first, count]));
          expect(runs).toEqual(plainRuns(bits));
        }),
      );
    });

    it('list from any bit on, into arrays of any length, at any place in them', () => {
      fc.assert(
        fc.property(words, fc.nat(80 * 32), fc.nat(200), fc.nat(20), (of, from, length, at) => {
          const into = new Float64Array(at + length).fill(-1);
          const base = 2 ** 40;
          const bits = plainBits(of)
            .filter((bit) => bit >= from)
            .slice(0, length);
          expect(loops.list(of, base, from, into, at)).toBe(at + bits.length);
          expect([...into.subarray(at, at + bits.length)]).toEqual(bits.map((bit) => base + bit));
          expect(into.subarray(0, at).every((value) => value === -1)).toBe(true);
        }),
      );
    });

    it('list runs likewise, and go on with a run across the seam between two bitmaps', () => {
      fc.assert(
        fc.property(words, words, fc.nat(80 * 32), fc.nat(60), (low, high, from, room) => {
          const into = new Float64Array(2 * room).fill(-1);
          const base = 2 ** 40;
          const seam = base + low.length * 32;
          const middle = loops.listRuns(low, base, from, into, 0);
          const end = loops.listRuns(high, seam, 0, into, middle);
          const bits = [
            ...plainBits(low).filter((bit) => bit >= from),
            ...plainBits(high).map((bit) => low.length * 32 + bit),
          ];
          const runs = plainRuns(bits).slice(0, room);
          expect(end).toBe(2 * runs.length);
          expect([...into.subarray(0, end)]).toEqual(runs.flatMap(([first, count]) => [base + first, count]));
        }),
      );
    });
  });

  it('give CLEAR_DIRTY_LOG the bits of a range and no others', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 500 }), fc.nat(), fc.nat(), (npages, a, b) => {
        const first = a % npages;
        const end = first + 1 + (b % (npages - first));
        const bitmap = new DirtyBitmap(new EmulatedKernel({ arch: 'x86_64' }), npages);
        for (let page = 0; page < npages; page += 1 + (page % 3)) bitmap.set(page);
        const before = bitmap.bytes.slice();
        const { firstPage, numPages, bits } = bitmap.part(first, end);
        expect(firstPage % 64).toBe(0);
        expect(numPages % 64 === 0 || firstPage + numPages === npages).toBe(true);
        expect(bits.length).toBe(Math.ceil(numPages / 64) * 8);
        for (let page = firstPage; page < firstPage + bits.length * 8; page++) {
          const bit = (bits[(page - firstPage) >> 3]! >> (page & 7)) & 1;
          const was = page < npages ? (before[page >> 3]! >> (page & 7)) & 1 : 0;
          expect(bit).toBe(page >= first && page < end ? was : 0);
        }
        expect(bitmap.bytes).toEqual(before);
      }),
    );
  });

  it('sets of pages hold what was added', () => {
    const ranges = fc.array(fc.tuple(fc.nat(2 ** 18), fc.nat(200)), { maxLength: 20 });
    fc.assert(
      fc.property(ranges, fc.array(fc.nat(2 ** 48)), (added, single) => {
        const pages = new PageSet();
        const plain = new Set<number>(single);
        for (const gfn of single) pages.add(gfn);
        for (const [first, count] of added) {
          pages.addRange(first, first + count);
          for (let i = 0; i < count; i++) plain.add(first + i);
        }
        const seen: number[] = [];
        pages.forEach((gfn) => {
          seen.push(gfn);
        });
        expect(new Set(seen)).toEqual(plain);
        expect(seen.length).toBe(plain.size);
      }),
    );
  });
});

it('MMIO values survive the way through the data of an exit', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 8 }), fc.boolean(), (data, littleEndian) => {
      const copy = new Uint8Array(data.length);
      putValue(copy, takeValue(data, littleEndian), littleEndian);
      expect(copy).toEqual(data);
    }),
  );
});

/** What readU8 gives, or the code of its error: many are compared at once. */
function byteOrCode(space: AddressSpace, gpa: number): number | string | undefined {
  try {
    return space.readU8(gpa);
  } catch (error) {
    return (error as { readonly code?: string }).code;
  }
}

describe('an address space', () => {
  const SIZE = 64;
  type Step =
    | { readonly do: 'add'; readonly page: number; readonly pages: number; readonly offset: number }
    | { readonly do: 'remove' | 'move'; readonly which: number; readonly page: number }
    | { readonly do: 'write'; readonly at: number; readonly bytes: Uint8Array }
    | { readonly do: 'read'; readonly at: number; readonly length: number }
    | { readonly do: 'u64'; readonly at: number; readonly value: bigint; readonly little: boolean }
    | { readonly do: 'sweep'; readonly at: number }
    | { readonly do: 'copy'; readonly at: number; readonly to: number; readonly length: number };
  const page = fc.nat(SIZE - 1);
  const at = fc.nat(SIZE * PAGE - 1);
  const step: fc.Arbitrary<Step> = fc.oneof(
    fc.record({ do: fc.constant('add' as const), page, pages: fc.integer({ min: 1, max: 6 }), offset: fc.nat(8) }),
    fc.record({ do: fc.constantFrom('remove' as const, 'move' as const), which: fc.nat(20), page }),
    fc.record({ do: fc.constant('write' as const), at, bytes: fc.uint8Array({ maxLength: 9000 }) }),
    fc.record({ do: fc.constant('read' as const), at, length: fc.nat(9000) }),
    fc.record({ do: fc.constant('u64' as const), at, value: u64, little: fc.boolean() }),
    fc.record({ do: fc.constant('sweep' as const), at }),
    fc.record({ do: fc.constant('copy' as const), at, to: at, length: fc.nat(3000) }),
  );

  /** Pages of the mappings, and which of them each guest page shows. */
  class Model {
    readonly shown = new Map<number, Uint8Array>();

    locate(address: number): [Uint8Array, number] | undefined {
      const bytes = this.shown.get(Math.floor(address / PAGE));
      return bytes === undefined ? undefined : [bytes, address % PAGE];
    }

    readable(address: number, length: number): number {
      for (let i = 0; i < length; i++) if (this.locate(address + i) === undefined) return i;
      return length;
    }

    read(address: number, length: number): number[] {
      return Array.from({ length }, (_, i) => {
        const [bytes, offset] = this.locate(address + i)!;
        return bytes[offset]!;
      });
    }

    write(address: number, from: ArrayLike<number>, length: number): void {
      for (let i = 0; i < length; i++) {
        const [bytes, offset] = this.locate(address + i)!;
        bytes[offset] = from[i]!;
      }
    }
  }

  it('behaves as pages that are looked up one by one', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60, size: 'max' }), (steps) => {
        const space: AddressSpace = kvm.createAddressSpace();
        const model = new Model();
        using ram = kvm.mapAnonymous(16 * PAGE);
        const memory = Array.from({ length: 16 }, () => new Uint8Array(PAGE));
        const regions: { region: MemoryRegion; page: number; pages: number; offset: number }[] = [];
        const show = (first: number, pages: number, offset: number): void => {
          for (let i = 0; i < pages; i++) model.shown.set(first + i, memory[offset + i]!);
        };
        const hide = (first: number, pages: number): void => {
          for (let i = 0; i < pages; i++) model.shown.delete(first + i);
        };
        for (const s of steps) {
          switch (s.do) {
            case 'add': {
              const add = () => space.addRam(s.page * PAGE, ram, { offset: s.offset * PAGE, size: s.pages * PAGE });
              if (Array.from({ length: s.pages }).some((_, i) => model.shown.has(s.page + i))) {
                expect(add).toThrow(expect.objectContaining({ code: 'EEXIST' }));
                break;
              }
              regions.push({ region: add(), page: s.page, pages: s.pages, offset: s.offset });
              show(s.page, s.pages, s.offset);
              break;
            }
            case 'remove': {
              const [gone] = regions.splice(s.which % Math.max(1, regions.length), 1);
              gone?.region.remove();
              if (gone !== undefined) hide(gone.page, gone.pages);
              break;
            }
            case 'move': {
              const moved = regions[s.which % Math.max(1, regions.length)];
              if (moved === undefined) break;
              hide(moved.page, moved.pages);
              const free = !Array.from({ length: moved.pages }).some((_, i) => model.shown.has(s.page + i));
              if (free) {
                moved.region.move(s.page * PAGE);
                moved.page = s.page;
              } else
                expect(() => moved.region.move(s.page * PAGE)).toThrow(expect.objectContaining({ code: 'EEXIST' }));
              show(moved.page, moved.pages, moved.offset);
              break;
            }
            case 'write': {
              const count = model.readable(s.at, s.bytes.length);
              expect(space.write(s.at, s.bytes)).toBe(count);
              model.write(s.at, s.bytes, count);
              break;
            }
            case 'read': {
              const count = model.readable(s.at, s.length);
              const into = new Uint8Array(s.length);
              expect(space.read(s.at, into)).toBe(count);
              expect(Buffer.compare(into.subarray(0, count), Uint8Array.from(model.read(s.at, count)))).toBe(0);
              break;
            }
            case 'u64': {
              if (model.readable(s.at, 8) < 8) {
                expect(() => space.readU64(s.at)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
                break;
              }
              space.writeU64(s.at, s.value, s.little);
              expect(space.readU64(BigInt(s.at), s.little)).toBe(s.value);
              if (s.value < 2n ** 53n) expect(space.readU64Number(s.at, s.little)).toBe(Number(s.value));
              else expect(() => space.readU64Number(s.at, s.little)).toThrow(RangeError);
              const bytes = new Uint8Array(8);
              new DataView(bytes.buffer).setBigUint64(0, s.value, s.little);
              model.write(s.at, bytes, 8);
              break;
            }
            case 'sweep': {
              // From page to page, again and again: until each region is found without a search.
              const addresses = Array.from({ length: 3 * SIZE }, (_, i) => (s.at + i * 7 * PAGE) % (SIZE * PAGE));
              const wanted = addresses.map((gpa) => (model.readable(gpa, 1) === 1 ? model.read(gpa, 1)[0] : 'EFAULT'));
              expect(addresses.map((gpa) => byteOrCode(space, gpa))).toEqual(wanted);
              break;
            }
            case 'copy': {
              const possible =
                model.readable(s.at, s.length) === s.length && model.readable(s.to, s.length) === s.length;
              if (!possible) break;
              // Through two regions the same memory may be meant: then the order of bytes is nobody's promise.
              const pagesOf = (from: number) =>
                new Set(Array.from({ length: s.length }, (_, i) => model.locate(from + i)![0]));
              const shared = [...pagesOf(s.at)].some((bytes) => pagesOf(s.to).has(bytes));
              if (shared && Math.abs(s.at - s.to) >= s.length) break;
              const bytes = model.read(s.at, s.length);
              if (
                shared &&
                regions.some((r) =>
                  regions.some((o) => o !== r && o.offset < r.offset + r.pages && r.offset < o.offset + o.pages),
                )
              )
                break;
              space.copy(s.to, s.at, s.length);
              model.write(s.to, bytes, s.length);
              break;
            }
          }
        }
        for (const shownPage of model.shown.keys()) {
          expect(Buffer.compare(space.readExact(shownPage * PAGE, PAGE), model.shown.get(shownPage)!)).toBe(0);
        }
        space.close();
        expect(ram.pins).toBe(0);
      }),
      { numRuns: 150 },
    );
  });
});
