import { hex } from '../../base/errors.ts';
import { counted } from '../../base/text.ts';
import { bytesOfText, lengthOfText } from '../../calls/format.ts';
import type { TraceCall, TraceHead, TraceValue } from '../../calls/trace-file.ts';
import { DIRTY_LOG_PAGE_OFFSET } from '../../uapi/flags.ts';
import { TraceFileError, type TraceLine } from '../replay/read-trace.ts';
import type { MemoryData, RegionData, ReportData, TableData } from './data.ts';
import { heatOf, layer, type PageRun } from './layers.ts';
import { TracedRings } from './traced-rings.ts';

/** So many bytes of an argument at most: a bitmap of 8 TiB of guest memory. */
const MOST_BYTES = 2 ** 28;
/** Runs of pages, pages with keys and pages with stores that are noted altogether: a page shows no more. */
const MOST_PAGES = 2 ** 22;
/** Rows of single passes; the heat is of all. */
const MOST_PASSES = 24;

interface Slot {
  readonly gpa: number;
  readonly size: number;
}

/** A VM of a trace, as the calls have left it. */
class TracedVm {
  readonly slots = new Map<number, Slot>();
  /** Every place at which there was a slot, by what it is called. */
  readonly regions = new Map<string, RegionData>();
  readonly passes: PageRun[][] = [];
  readonly keys = new Map<number, number>();
  readonly stored = new Set<number>();
  readonly rings: TracedRings;
  readonly #asked = new Set<number>();
  readonly #note: () => void;

  /** @param note called for each thing that is noted */
  constructor(note: () => void) {
    this.#note = note;
    this.rings = new TracedRings(note, MOST_BYTES);
  }

  setSlot(slot: number, gpa: number, size: number): void {
    this.slots.delete(slot);
    if (size === 0) return;
    this.slots.set(slot, { gpa, size });
    const name = slot < 0x1_0000 ? `slot ${slot}` : `slot ${slot & 0xffff} of address space ${slot >>> 16}`;
    this.regions.set(`${name} ${gpa} ${size}`, { gpa, size, name });
  }

  /** A slot that is asked for again begins a pass. */
  dirty(slot: number, bitmap: Uint8Array, pageSize: number): void {
    const at = this.slots.get(slot);
    if (at === undefined) return;
    if (this.passes.length === 0 || this.#asked.has(slot)) {
      this.passes.push([]);
      this.#asked.clear();
    }
    this.#asked.add(slot);
    const pass = this.passes.at(-1)!;
    for (const [first, count] of setBits(bitmap)) {
      this.#note();
      pass.push([at.gpa / pageSize + first, count, 1]);
    }
  }

  /** Each reset of the rings is a pass: what was taken from them since the last. */
  ringsReset(pageSize: number): void {
    const pages = new Set<number>();
    for (const [slot, page] of this.rings.harvested()) {
      const at = this.slots.get(slot);
      // As the kernel does with entries of slots that are gone.
      if (at !== undefined && page < at.size / pageSize) pages.add(at.gpa / pageSize + page);
    }
    this.passes.push([...pages].map((page): PageRun => [page, 1, 1]));
    this.#asked.clear();
  }
}

/** Runs of set bits; the bitmaps of KVM are little-endian on every host. */
function* setBits(bitmap: Uint8Array): Generator<readonly [first: number, count: number]> {
  let from = -1;
  for (let byte = 0; byte <= bitmap.length; byte++) {
    const bits = bitmap[byte] ?? 0;
    if (from < 0 ? bits === 0 : bits === 0xff) continue;
    for (let bit = 0; bit < 8; bit++) {
      const isSet = (bits & (1 << bit)) !== 0;
      if (isSet === from >= 0) continue;
      if (isSet) from = 8 * byte + bit;
      else {
        yield [from, 8 * byte + bit - from];
        from = -1;
      }
    }
  }
}

/** What the calls of a trace say of the memory of its VMs: slots, dirty passes, storage keys, the guest's stores. */
export async function reportOfTrace(lines: AsyncIterable<TraceLine>, name: string): Promise<ReportData> {
  const reading = new Reading();
  for await (const { line, head, event } of lines) {
    if (head !== undefined) reading.head = head;
    try {
      if (event !== undefined) reading.take(event);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      throw new TraceFileError(`line ${line}: ${error.message}`);
    }
  }
  return reading.report(name);
}

class Reading {
  head: TraceHead | undefined;
  readonly #vms = new Map<string, TracedVm>();
  /** The VM of each vCPU. */
  readonly #vmOf = new Map<string, string>();
  #noted = 0;
  readonly #counts = new Map<string, { calls: number; errors: Map<string, number> }>();

  take(call: TraceCall): void {
    this.#count(call);
    const { args, result = '', stores } = call;
    const vm = this.#vmOf.get(String(args[0])) ?? String(args[0]);
    for (const [gpa, bytes] of stores ?? []) this.#stored(vm, gpa, bytes);
    const rings = this.#vms.get(vm)?.rings;
    rings?.changed(call.before);
    this.#made(call, vm, result);
    rings?.changed(call.after);
  }

  /** What a call did that succeeded. */
  #made(call: TraceCall, vm: string, result: string): void {
    if (result.startsWith('-')) return;
    const { args } = call;
    if (call.call === 'createVcpu') this.#vmOf.set(result, vm);
    else if (call.call === 'mmap') this.#mapped(args, result);
    else if (call.call === 'munmap') for (const { rings } of this.#vms.values()) rings.unmapped(String(args[0]));
    else if (call.call === 'resetDirtyRings') this.#vm(vm).ringsReset(this.#pageSize);
    else if (call.call === 'setUserMemoryRegion' || call.call === 'setUserMemoryRegion2') {
      this.#vm(vm).setSlot(integer(args[1]), integer(args[3]), integer(args[4]));
    } else if (call.call === 'getDirtyLog') {
      const bitmap = bytesOf(call.filled?.bitmap);
      if (bitmap !== undefined) this.#vm(vm).dirty(integer(args[1]), bitmap, this.#pageSize);
    } else if (call.call === 'setSkeys' || (call.call === 'getSkeys' && result === '0')) {
      const keys = bytesOf(call.call === 'setSkeys' ? args[4] : call.filled?.keys);
      const [first, count] = [integer(args[1]), integer(args[2])];
      // The array may be longer than what is set or got.
      for (const [i, key] of keys?.subarray(0, count).entries() ?? []) {
        this.#note();
        this.#vm(vm).keys.set(first + i, key);
      }
    }
  }

  report(name: string): ReportData {
    const { head } = this;
    const vms = [...this.#vms].sort(([, a], [, b]) => b.regions.size - a.regions.size);
    const [shown] = vms;
    const about = [
      ...(head === undefined ? [] : [`A trace of the ${head.backend} kernel, ${head.arch} ${head.release}`]),
      `${counted(vms.length, 'VM')}${vms.length > 1 ? `, of which ${shown![0]} is shown: it had the most slots` : ''}`,
      ...(shown === undefined ? [] : passesText(shown[1].passes.length)),
    ];
    return {
      title: name,
      about,
      pageSize: this.#pageSize,
      ...(shown === undefined || shown[1].regions.size === 0 ? {} : { memory: memoryOf(shown[1]) }),
      spaces: [],
      tables: [this.#callTable()],
    };
  }

  get #pageSize(): number {
    return this.head?.pageSize ?? 4096;
  }

  #vm(name: string): TracedVm {
    const known = this.#vms.get(name);
    if (known !== undefined) return known;
    const made = new TracedVm(() => this.#note());
    this.#vms.set(name, made);
    return made;
  }

  /** A mapping may be a vCPU's dirty ring. */
  #mapped(args: TraceCall['args'], name: string): void {
    const vm = this.#vmOf.get(String(args[3]));
    if (vm === undefined || integer(args[4]) !== DIRTY_LOG_PAGE_OFFSET * this.#pageSize) return;
    this.#vm(vm).rings.mapped(name);
  }

  #stored(vm: string, gpa: number, bytes: string): void {
    const { stored } = this.#vm(vm);
    const last = Math.floor((gpa + lengthOfText(bytes, MOST_BYTES) - 1) / this.#pageSize);
    for (let page = Math.floor(gpa / this.#pageSize); page <= last; page++) {
      this.#note();
      stored.add(page);
    }
  }

  /** @throws SyntaxError when it is too much */
  #note(): void {
    if (++this.#noted > MOST_PAGES) throw new SyntaxError(`the trace tells of more than ${MOST_PAGES} pages`);
  }

  #count({ call, result, begins }: TraceCall): void {
    if (begins !== undefined) return;
    const entry = this.#counts.get(call) ?? { calls: 0, errors: new Map<string, number>() };
    this.#counts.set(call, entry);
    entry.calls++;
    if (result?.startsWith('-') === true) entry.errors.set(result, (entry.errors.get(result) ?? 0) + 1);
  }

  #callTable(): TableData {
    const rows = [...this.#counts]
      .sort(([, a], [, b]) => b.calls - a.calls)
      .map(([name, { calls, errors }]) => [
        name,
        calls,
        [...errors].map(([error, count]) => `${error}: ${count}`).join(', '),
      ]);
    return { name: 'Calls', head: ['call', 'times', 'errors'], rows };
  }
}

const passesText = (passes: number): string[] =>
  passes > MOST_PASSES ? [`${passes} passes of dirty pages; the last ${MOST_PASSES} have rows of their own`] : [];

function memoryOf(vm: TracedVm): MemoryData {
  const regions = [...vm.regions.values()];
  const end = regions.reduce((most, { gpa, size }) => Math.max(most, gpa + size), 0);
  const first = Math.max(0, vm.passes.length - MOST_PASSES);
  const sorted = (runs: readonly PageRun[]): PageRun[] => [...runs].sort(([a], [b]) => a - b);
  const pages = (all: Iterable<number>): PageRun[] => sorted([...all].map((page): PageRun => [page, 1, 1]));
  return {
    end,
    regions: regions.map((region) => ({ ...region, name: `${region.name} at ${hex(region.gpa)}` })),
    layers: [
      ...(vm.passes.length > 1 ? [layer('dirty, all passes', 'heat', heatOf(vm.passes))] : []),
      ...vm.passes.slice(first).map((runs, i) => layer(`dirty, pass ${first + i + 1}`, 'count', sorted(runs))),
      ...(vm.stored.size === 0 ? [] : [layer('stored by the guest', 'count', pages(vm.stored))]),
      ...(vm.keys.size === 0
        ? []
        : [layer('storage keys', 'key', sorted([...vm.keys].map(([page, key]): PageRun => [page, 1, key])))]),
    ],
  };
}

function integer(value: TraceValue | undefined): number {
  const integer = typeof value === 'number' || typeof value === 'string' ? Number(value) : Number.NaN;
  if (integer >= 0 && integer <= 2 ** 64 && integer % 1 === 0) return integer;
  throw new SyntaxError(`${JSON.stringify(value)} is no address, size or number`);
}

function bytesOf(value: TraceValue | undefined): Uint8Array | undefined {
  return typeof value === 'string' ? bytesOfText(value, MOST_BYTES) : undefined;
}
