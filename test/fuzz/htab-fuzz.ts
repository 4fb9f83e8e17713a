import { type HtabLoops, LARGE_SIZES, plainHtabLoops } from '../../lib/arch/ppc64/model/htab-loops.ts';
import { applyHtabStream, encodeHtabStream, Htab, HtabStreamError } from '../../lib/arch/ppc64/model/index.ts';
import { EmulatedKernel } from '../../lib/backends/emulated.ts';
import type { NativeLoad } from '../../lib/backends/native.ts';
import { HTAB, MAP, PROT } from '../../lib/uapi/flags.ts';
import { expectOfCodec, MEMORY_PAGES, type Slots, writeAsKvm } from './htab-oracle.ts';
import { HTAB_ENTRIES, type MadeStream, makeHtabStream, STREAM_KINDS } from './htab-stream-maker.ts';
import { Random } from './random.ts';

const ORDER = 18;

export interface HtabFuzzOptions {
  readonly seed: number;
  readonly streams: number;
  /** The addon's loops, to hold them against those in TypeScript. */
  readonly addon?: HtabLoops | undefined;
  readonly progress?: (done: number) => void;
}

export interface HtabFuzzResult {
  readonly streams: number;
  /** How many of which kind, and of those how many the codec and the kernel took. */
  readonly kinds: ReadonlyMap<string, { made: number; decoded: number; written: number }>;
  /** How often the codec had which problem, and write(2) which errno. */
  readonly problems: ReadonlyMap<string, number>;
  readonly errnos: ReadonlyMap<number, number>;
  /** What the slowest stream took, in all. */
  readonly slowestMs: number;
}

/** The addon's loops of the codec, if it is there. */
export function addonHtabLoops(loaded: NativeLoad): HtabLoops | undefined {
  return 'htab' in loaded ? loaded.htab : undefined;
}

export function describeHtabFuzz({ streams, kinds, problems, errnos, slowestMs }: HtabFuzzResult): string {
  const sorted = <K>(counts: ReadonlyMap<K, number>): string =>
    [...counts]
      .sort(([, a], [, b]) => b - a)
      .map(([what, count]) => `${what} ${count}`)
      .join(', ');
  const lines = [...kinds].map(
    ([kind, { made, decoded, written }]) => `  ${kind}: ${made}, decoded ${decoded}, written ${written}`,
  );
  return [
    `${streams} HTAB streams, the slowest in ${slowestMs.toFixed(0)} ms; nothing that should not be`,
    ...lines,
    `  problems: ${sorted(problems)}`,
    `  errnos: ${sorted(errnos)}`,
  ].join('\n');
}

/** Puts random streams through the codec and into an emulated kernel; throws at the first that does what it must not. */
export function fuzzHtabStreams({ seed, streams, addon, progress }: HtabFuzzOptions): HtabFuzzResult {
  const codec = new CodecUnderTest(addon);
  const kernel = new KernelUnderTest();
  const kinds = new Map(STREAM_KINDS.map((kind) => [kind as string, { made: 0, decoded: 0, written: 0 }]));
  const problems = new Map<string, number>();
  const errnos = new Map<number, number>();
  let slowestMs = 0;
  for (let i = 0; i < streams; i++) {
    // Each stream has a seed of its own, so that one can be looked at without those before it.
    const stream = makeHtabStream(new Random(seed + i));
    const start = performance.now();
    let problem: string | undefined;
    let result: number;
    try {
      problem = codec.take(stream);
      // Tables are compared whole now and then: what happens where nobody expects it must not go unseen.
      if (i % 64 === 0) codec.encode();
      result = kernel.take(stream.bytes);
      if (i % 256 === 0) kernel.compareWhole();
    } catch (error) {
      const hex = Buffer.from(stream.bytes).toString('hex');
      throw new Error(`seed ${seed}, stream ${i} (${stream.kind}, ${hex}): ${(error as Error).message}`, {
        cause: error,
      });
    }
    slowestMs = Math.max(slowestMs, performance.now() - start);
    const counts = kinds.get(stream.kind)!;
    counts.made++;
    if (problem === undefined) counts.decoded++;
    else problems.set(problem, (problems.get(problem) ?? 0) + 1);
    if (result >= 0) counts.written++;
    else errnos.set(-result, (errnos.get(-result) ?? 0) + 1);
    if (i % 10_000 === 0) progress?.(i);
  }
  kernel.compareWhole();
  return { streams, kinds, problems, errnos, slowestMs };
}

function same(what: string, ours: unknown, expected: unknown): void {
  if (ours !== expected) throw new Error(`${what}: ${String(ours)}, expected ${String(expected)}`);
}

const FENCE = 64;
const FENCE_BYTE = 0xa5;

/** Bytes with others on both sides that must stay as they are. */
class Fenced {
  readonly bytes: Uint8Array;
  readonly #all: Uint8Array;

  constructor(length: number) {
    this.#all = new Uint8Array(length + 2 * FENCE).fill(FENCE_BYTE);
    this.bytes = this.#all.subarray(FENCE, FENCE + length);
    this.bytes.fill(0);
  }

  check(what: string): void {
    const fences = [this.#all.subarray(0, FENCE), this.#all.subarray(FENCE + this.bytes.length)];
    if (!fences.every((fence) => fence.every((byte) => byte === FENCE_BYTE))) throw new Error(`${what}: outside of it`);
  }
}

/** One table through all streams, in several copies. */
class CodecUnderTest {
  readonly #expected = new Htab(ORDER);
  /** By applyHtabStream. */
  readonly #memory = new Fenced(2 ** ORDER);
  readonly #table = new Htab(ORDER, this.#memory.bytes);
  /** By the loops of TypeScript's and of the addon's, called directly: the codec takes the latter for long streams only. */
  readonly #loops: readonly { name: string; loops: HtabLoops; memory: Fenced }[];

  constructor(addon: HtabLoops | undefined) {
    const all = { TypeScript: plainHtabLoops, ...(addon === undefined ? {} : { addon }) };
    this.#loops = Object.entries(all).map(([name, loops]) => ({ name, loops, memory: new Fenced(2 ** ORDER) }));
  }

  /** @returns the problem that the stream has */
  take({ bytes, isLittle }: MadeStream): string | undefined {
    const expected = expectOfCodec(bytes, isLittle);
    if (expected instanceof Map) {
      for (const [slot, [v, r] = [0n, 0n]] of expected) {
        this.#expected.view.setBigUint64(slot * 16, v);
        this.#expected.view.setBigUint64(slot * 16 + 8, r);
      }
    }
    let error: HtabStreamError | undefined;
    try {
      applyHtabStream(this.#table, bytes, { headers: isLittle ? 'little' : 'big' });
    } catch (thrown) {
      if (!(thrown instanceof HtabStreamError)) throw thrown;
      error = thrown;
    }
    same('the problem', error?.problem, expected instanceof Map ? undefined : expected.problem);
    same('its offset', error?.offset, expected instanceof Map ? undefined : expected.offset);
    this.#compare('the codec', this.#memory);
    for (const { name, loops, memory } of this.#loops) {
      const answer = loops.apply(memory.bytes, bytes, Number(isLittle), LARGE_SIZES);
      same(`apply of ${name}`, answer, Number(expected instanceof Map));
      this.#compare(name, memory);
    }
    return error?.problem;
  }

  #compare(what: string, memory: Fenced): void {
    memory.check(what);
    if (Buffer.compare(memory.bytes, this.#expected.bytes) !== 0) throw new Error(`${what}: another table`);
  }

  /** The table as a stream, which must be the same from all, and give the table again. */
  encode(): void {
    const stream = encodeHtabStream(this.#expected);
    const again = new Htab(ORDER);
    applyHtabStream(again, stream);
    same('encoded and decoded', Buffer.compare(again.bytes, this.#expected.bytes), 0);
    for (const { name, loops } of this.#loops) {
      for (const missing of [0, 1, 8, stream.length]) {
        const out = new Fenced(stream.length - missing);
        const length = loops.encode(this.#expected.bytes, 0, HTAB_ENTRIES, 1, 1, out.bytes);
        out.check(`encode of ${name}`);
        if (missing === 0) same(`encode of ${name}`, Buffer.compare(out.bytes, stream), 0);
        same(
          `encode of ${name}, ${missing} bytes missing`,
          missing === 0 ? length : length < 0,
          missing === 0 ? stream.length : true,
        );
      }
    }
  }
}

/** The table of an emulated VM, and what it has to be. */
class KernelUnderTest {
  readonly #kernel = new EmulatedKernel({ arch: 'ppc64', pageSize: 4096 });
  readonly #vm: number;
  readonly #writer: number;
  readonly #reader: number;
  readonly #slots: Slots = new Map();
  readonly #buffer = new Uint8Array(2 ** ORDER + 64);

  constructor() {
    const kernel = this.#kernel;
    this.#vm = kernel.createVm(kernel.openKvm(), 1);
    const size = MEMORY_PAGES * kernel.pageSize;
    const hva = kernel.mmap(size, PROT.READ | PROT.WRITE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, 0, 0);
    same('the memslot', kernel.setUserMemoryRegion(this.#vm, 0, 0, 0, size, hva), 0);
    const ppc64 = kernel.ppc64!;
    same('the table', ppc64.allocateHtab(this.#vm, ORDER), 0);
    this.#writer = ppc64.getHtabFd(this.#vm, HTAB.WRITE, 0);
    this.#reader = ppc64.getHtabFd(this.#vm, 0, 0);
    this.#readPass(this.#reader);
  }

  /** Writes a stream as it is; what a later pass then reports is what the write did, and nothing else. */
  take(bytes: Uint8Array): number {
    const { result, touched } = writeAsKvm(this.#slots, bytes);
    same('write(2)', this.#kernel.write(this.#writer, bytes), result);
    const reported = this.#readPass(this.#reader);
    for (const [slot, entry] of reported) {
      this.#compare(slot, entry);
      if (!touched.has(slot)) throw new Error(`slot ${slot} was reported, and nothing happened to it`);
    }
    for (const slot of touched) if (!reported.has(slot)) throw new Error(`slot ${slot} changed, and was not reported`);
    return result;
  }

  /** The whole table, to a reader of its own. */
  compareWhole(): void {
    const reader = this.#kernel.ppc64!.getHtabFd(this.#vm, 0, 0);
    const all = this.#readPass(reader);
    this.#kernel.close(reader);
    for (let slot = 0; slot < HTAB_ENTRIES; slot++) this.#compare(slot, all.get(slot));
  }

  #compare(slot: number, ours: readonly [v: bigint, r: bigint] | undefined): void {
    const expected = this.#slots.get(slot);
    // A reader sees HVLOCK set.
    same(`V of slot ${slot}`, ours?.[0], expected && expected[0] | 0x40n);
    same(`R of slot ${slot}`, ours?.[1], expected?.[1]);
  }

  /** What a reader reports up to the table's end: slots with their entry, or without. */
  #readPass(reader: number): Map<number, readonly [v: bigint, r: bigint] | undefined> {
    const slots = new Map<number, readonly [v: bigint, r: bigint] | undefined>();
    const view = new DataView(this.#buffer.buffer);
    const length = this.#kernel.read(reader, this.#buffer);
    for (let at = 0; at < length; ) {
      let slot = view.getUint32(at, true);
      const validEnd = slot + view.getUint16(at + 4, true);
      const end = validEnd + view.getUint16(at + 6, true);
      at += 8;
      for (; slot < validEnd; slot++, at += 16) slots.set(slot, [view.getBigUint64(at), view.getBigUint64(at + 8)]);
      for (; slot < end; slot++) slots.set(slot, undefined);
    }
    return slots;
  }
}
