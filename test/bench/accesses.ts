import type { KvmCalls } from '../../lib/calls/kvm-calls.ts';
import { Mapping } from '../../lib/memory/mapping.ts';
import { AddressSpace } from '../../lib/sharing/address-space.ts';
import { type Bench, type Benchmark, nativeCalls, randomU32, requireEqual } from './benchmark.ts';
import { type Case, goingOn, repeat } from './measure.ts';

const PAGE = 4096;
/** Addresses that are read, over and over again. */
const ADDRESSES = 0x1_0000;
/** Slots lie two pages apart, one page each, over so many pages of host memory: what is measured is the lookup. */
const SLOT_DISTANCE = 2 * PAGE;
const HOST_PAGES = 16;

interface Table {
  readonly gpas: Float64Array;
  /** The same for C: the addresses, and its own table of slots. */
  readonly wideGpas: BigUint64Array;
  readonly slots: BigUint64Array;
}

interface Regions extends Disposable {
  readonly gpas: Float64Array;
  /** For the others: the same addresses, where the regions begin, what is in them, and C's table. */
  readonly wideGpas: BigUint64Array;
  readonly bases: BigUint64Array;
  readonly content: Uint8Array;
  readonly slots: BigUint64Array;
}

/** Fills an address space with slots, and makes the addresses of random, aligned pieces of `size` bytes in them. */
function fill(space: AddressSpace, ram: Mapping, count: number, size: number, addresses: number): Table {
  const slots = new BigUint64Array(3 * count);
  for (let index = 0; index < count; index++) {
    const gpa = index * SLOT_DISTANCE;
    const offset = (index % HOST_PAGES) * PAGE;
    space.addRam(gpa, ram, { offset, size: PAGE });
    slots.set([BigInt(gpa), BigInt(gpa + PAGE), BigInt(ram.hva + offset)], 3 * index);
  }
  const random = randomU32();
  const gpas = Float64Array.from(
    { length: addresses },
    () => (random() % count) * SLOT_DISTANCE + (random() % (PAGE / size)) * size,
  );
  return { gpas, slots, wideGpas: BigUint64Array.from(gpas, BigInt) };
}

function mapRandom(calls: KvmCalls): Mapping {
  const ram = Mapping.anonymous(calls, HOST_PAGES * PAGE);
  ram.write(0, new Uint8Array(Uint32Array.from({ length: ram.size / 4 }, randomU32()).buffer));
  return ram;
}

/** Regions of a page, each a mapping of its own with content of its own, two pages apart. */
function fillWithMappings(space: AddressSpace, count: number): Regions {
  const calls = nativeCalls();
  const content = new Uint8Array(Uint32Array.from({ length: (count * PAGE) / 4 }, randomU32()).buffer);
  // Numbers below 2^53, little-endian: what readU64Number can read.
  for (let byte = 6; byte < content.length; byte += 8) content.fill(0, byte, byte + 2);
  const bases = new BigUint64Array(count);
  const slots = new BigUint64Array(3 * count);
  const mappings: Mapping[] = [];
  for (let index = 0; index < count; index++) {
    const gpa = index * SLOT_DISTANCE;
    const ram = Mapping.anonymous(calls, PAGE);
    mappings.push(ram);
    ram.write(0, content.subarray(index * PAGE, (index + 1) * PAGE));
    space.addRam(gpa, ram);
    bases[index] = BigInt(gpa);
    slots.set([BigInt(gpa), BigInt(gpa + PAGE), BigInt(ram.hva)], 3 * index);
  }
  const random = randomU32(7);
  const gpas = Float64Array.from(
    { length: ADDRESSES },
    () => (random() % count) * SLOT_DISTANCE + (random() % 512) * 8,
  );
  const close = (): void => {
    for (const each of [space, ...mappings]) each.close();
  };
  return { gpas, slots, bases, content, wideGpas: BigUint64Array.from(gpas, BigInt), [Symbol.dispose]: close };
}

export const randomReads: Benchmark = {
  name: 'random-reads',
  needsKvm: false,
  *cases({ comparators: { c }, vmMemory, sizes }: Bench): Generator<Case> {
    for (const count of sizes([1, 8, 64, 512, 4096])) {
      const space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
      using regions = fillWithMappings(space, count);
      const { gpas, wideGpas, slots, bases, content } = regions;
      using rust = vmMemory?.open(bases, PAGE, content);
      const readNumber = (from: number, n: number): number => {
        let sum = 0;
        let at = from;
        for (let i = 0; i < n; i++) {
          sum = (sum + space.readU32(gpas[at]!)) | 0;
          if (++at === ADDRESSES) at = 0;
        }
        return sum;
      };
      const readBigint = (from: number, n: number): bigint => {
        let sum = 0n;
        let at = from;
        for (let i = 0; i < n; i++) {
          sum = BigInt.asUintN(64, sum + space.readU64(gpas[at]!));
          if (++at === ADDRESSES) at = 0;
        }
        return sum;
      };
      const readWide = (from: number, n: number): number => {
        let sum = 0;
        let at = from;
        for (let i = 0; i < n; i++) {
          sum += space.readU64Number(gpas[at]!);
          if (++at === ADDRESSES) at = 0;
        }
        return sum;
      };
      const sum = new BigUint64Array(1);
      // C and Rust begin anywhere, and come to the end of a list of this length.
      const wideTwice = BigUint64Array.from([...wideGpas, ...wideGpas]);
      const wideFrom = (from: number) => wideTwice.subarray(from, from + ADDRESSES);
      const inC = (from: number, n: number): void => c.readU64(slots, count, wideFrom(from), ADDRESSES, n, sum);
      inC(0, ADDRESSES);
      const [expected] = sum;
      requireEqual(readBigint(0, ADDRESSES), expected!, 'the sum of what was read');
      rust?.readU64(wideGpas, ADDRESSES, sum);
      requireEqual(sum[0]!, expected!, 'the sum of what Rust read');
      yield {
        title: `random reads over ${count} region${count === 1 ? '' : 's'}, each a mapping of its own`,
        meter: 'cpu',
        per: 'read',
        contenders: [
          { name: 'readU32', run: goingOn(ADDRESSES, readNumber) },
          { name: 'readU64', run: goingOn(ADDRESSES, readBigint) },
          { name: 'readU64Number', run: goingOn(ADDRESSES, readWide) },
          { name: 'C', run: goingOn(ADDRESSES, inC) },
          ...(rust === undefined
            ? []
            : [{ name: 'vm-memory', run: goingOn(ADDRESSES, (from, n) => rust.readU64(wideFrom(from), n, sum)) }]),
        ],
        comparisons: [
          ...(rust === undefined ? [] : [{ of: 'readU32', to: 'vm-memory', goal: 1 }]),
          { of: 'readU32', to: 'C' },
          { of: 'readU64', to: 'C' },
          { of: 'readU64Number', to: 'C' },
        ],
      };
    }
  },
};

/** Pieces of one call, and how many such calls there are before the first comes again: no processor learns them by heart. */
const PIECES = 1024;
const PIECE_SETS = 16;

export const scatterReads: Benchmark = {
  name: 'scatter-reads',
  needsKvm: false,
  *cases({ comparators: { c }, sizes }: Bench): Generator<Case> {
    const calls = nativeCalls();
    for (const [count, size] of sizes([
      [1, 8],
      [64, 8],
      [64, 64],
      [64, 512],
    ] as const)) {
      using ram = mapRandom(calls);
      using memory = new AddressSpace({ littleEndian: true, pageSize: PAGE });
      const { gpas, wideGpas, slots } = fill(memory, ram, count, size, PIECES * PIECE_SETS);
      const hvas = gpas.map((gpa) => memory.translate(gpa)!.hva);
      const lengths = new Uint32Array(PIECES).fill(size);
      const ours = new Uint8Array(PIECES * size);
      const theirs = new Uint8Array(PIECES * size);
      const setsOf = <T extends Float64Array | BigUint64Array>(all: T): T[] =>
        Array.from({ length: PIECE_SETS }, (_, set) => all.subarray(set * PIECES, (set + 1) * PIECES) as T);
      const gpaSets = setsOf(gpas);
      const hvaSets = setsOf(hvas);
      const wideSets = setsOf(wideGpas);
      const each = (n: number, call: (set: number) => void): void => {
        for (let i = 0; i < n; i++) call(i % PIECE_SETS);
      };
      const singly = (set: number): void => {
        const at = gpaSets[set]!;
        for (let i = 0; i < PIECES; i++) memory.read(at[i]!, ours.subarray(i * size, (i + 1) * size));
      };
      memory.gather(gpaSets[0]!, size, ours);
      c.gather(slots, count, wideSets[0], PIECES, size, theirs, 1);
      requireEqual(Buffer.compare(ours, theirs), 0, 'what was gathered');
      yield {
        title: `${PIECES} pieces of ${size} bytes over ${count} slot${count === 1 ? '' : 's'}`,
        meter: 'cpu',
        per: 'piece',
        times: PIECES,
        contenders: [
          { name: 'gather', run: (n) => each(n, (set) => memory.gather(gpaSets[set]!, size, ours)) },
          { name: 'scatter', run: (n) => each(n, (set) => memory.scatter(gpaSets[set]!, size, ours)) },
          { name: 'raw gather', run: (n) => each(n, (set) => calls.gather(hvaSets[set]!, lengths, ours)) },
          { name: 'read each', run: (n) => each(n, singly) },
          { name: 'C', run: (n) => each(n, (set) => c.gather(slots, count, wideSets[set], PIECES, size, theirs, 1)) },
        ],
        comparisons: [
          { of: 'gather', to: 'C', goal: 1.5 },
          { of: 'scatter', to: 'C', goal: 1.5 },
          { of: 'raw gather', to: 'C' },
          { of: 'read each', to: 'gather' },
        ],
      };
    }
  },
};

export const copies: Benchmark = {
  name: 'copies',
  needsKvm: false,
  *cases({ comparators: { c }, sizes }: Bench): Generator<Case> {
    const gpa = 0x20_0000;
    const largest = 64;
    using ram = Mapping.anonymous(nativeCalls(), largest * 2 ** 20);
    using memory = new AddressSpace({ littleEndian: true, pageSize: PAGE });
    memory.addRam(gpa, ram);
    memory.fill(gpa, ram.size, 0xa5);
    const guest = memory.slice(gpa, ram.size);
    // Not at the same place in a page as the guest's: processors take a store for one to a load that is 4 KiB away.
    const host = new Uint8Array(ram.size + 2048).fill(0x5a).subarray(2048);
    for (const kibibytes of sizes([4, 64, 1024, 16384, 65536])) {
      const size = kibibytes * 1024;
      const into = host.subarray(0, size);
      yield {
        title: `copies of ${kibibytes < 1024 ? `${kibibytes} KiB` : `${kibibytes / 1024} MiB`}`,
        meter: 'cpu',
        per: 'copy',
        contenders: [
          { name: 'read', run: (n) => repeat(n, () => memory.read(gpa, into)) },
          { name: 'memcpy out', run: (n) => c.memcpy(host, guest, size, n) },
          { name: 'write', run: (n) => repeat(n, () => memory.write(gpa, into)) },
          { name: 'memcpy in', run: (n) => c.memcpy(guest, host, size, n) },
        ],
        comparisons: [
          { of: 'read', to: 'memcpy out', goal: kibibytes === 4 ? 1.3 : 1 / 0.95 },
          { of: 'write', to: 'memcpy in', goal: kibibytes === 4 ? 1.3 : 1 / 0.95 },
        ],
      };
    }
  },
};
