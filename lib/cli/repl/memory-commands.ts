import { hex } from '../../base/errors.ts';
import { counted, humanSize, table } from '../../base/text.ts';
import type { U64 } from '../../base/u64.ts';
import { MemoryRegion } from '../../memory/region.ts';
import { MEM } from '../../uapi/flags.ts';
import { type DotCommand, DotUsageError, numberOf, type Prompt, wordsOf } from './dot-command.ts';
import { dump, dumpFormat } from './dump.ts';
import { bytesOf, find } from './find-command.ts';
import { virtualToPhysical } from './walk.ts';

const span = (start: U64, size: U64): readonly [string, string] => [hex(start), hex(BigInt(start) + BigInt(size) - 1n)];

const mem: DotCommand = {
  help: 'The memory map: regions, what is behind them, and the holes',
  run(_, { session: { vm }, tableWidth }) {
    const regions = [...vm.memory.regions()].map((region) => ({ at: BigInt(region.start), row: regionRow(region) }));
    if (regions.length === 0) return 'there are no regions: vm.memory.addRam(0, kvm.mapAnonymous(16 << 20)) makes one';
    const [last] = [...vm.memory.regions()].slice(-1);
    const holes = [...vm.memory.holes(last!.end)].map(({ gpa, size }) => ({
      at: BigInt(gpa),
      row: [...span(gpa, size), humanSize(Number(size)), 'hole', '', ''],
    }));
    const rows = [...regions, ...holes].sort((a, b) => (a.at < b.at ? -1 : 1)).map(({ row }) => row);
    return table(['first', 'last', 'size', 'kind', 'behind it', 'name'], rows, tableWidth);
  },
};

function regionRow(
  region: MemoryRegion | { readonly start: number; readonly size: number; readonly name?: string | undefined },
): string[] {
  const place = [...span(region.start, region.size), humanSize(region.size)];
  if (!(region instanceof MemoryRegion)) return [...place, 'mmio', 'handlers', region.name ?? ''];
  const kind = `${region.kind}${region.readOnly ? ', read-only' : ''}`;
  return [...place, kind, `${region.mapping.kind} at ${hex(region.hva)}`, region.name ?? ''];
}

const slots: DotCommand = {
  help: 'The memslots, as the kernel has them',
  run(_, { session: { kvm, vm }, tableWidth }) {
    const rows = [...vm.memslots].map(({ asId, id, baseGfn, npages, hva, flags }) => [
      asId === 0 ? `${id}` : `${asId}:${id}`,
      ...span(BigInt(baseGfn) * BigInt(kvm.pageSize), BigInt(npages) * BigInt(kvm.pageSize)),
      humanSize(npages * kvm.pageSize),
      hex(hva),
      Object.entries(MEM)
        .flatMap(([name, bit]) => ((flags & bit) === 0 ? [] : [name]))
        .join(' | ') || '-',
    ]);
    if (rows.length === 0) return 'there are no memslots';
    return table(['slot', 'first', 'last', 'size', 'hva', 'flags'], rows, tableWidth);
  },
};

/** Bytes of memory that are dumped at once. */
const MOST_SHOWN = 1 << 20;

function examine(argument: string, prompt: Prompt, locate: (address: bigint, prompt: Prompt) => bigint): string {
  const [first = '', ...rest] = wordsOf(argument);
  const hasFormat = first.startsWith('/');
  const format = dumpFormat(hasFormat ? first : '');
  if (format === undefined)
    throw new DotUsageError(`the format is /COUNT from 1 on, one of x d u c s, one of b h w g, not ${first}`);
  const address = numberOf((hasFormat ? rest : [first, ...rest]).join(' '), 'the address', prompt);
  const { memory } = prompt.session.vm;
  const asked = format.count * format.size;
  if (asked > MOST_SHOWN) {
    throw new DotUsageError(
      `it shows no more than ${humanSize(MOST_SHOWN)} at once, and ${first} is ${humanSize(asked)}`,
    );
  }
  const pages: Uint8Array[] = [];
  // Neighbouring virtual pages may be anywhere.
  for (let done = 0; done < asked; ) {
    const at = address + BigInt(done);
    const inPage = 4096 - Number(at & 4095n);
    const bytes = new Uint8Array(Math.min(inPage, asked - done));
    const got = memory.read(locate(at, prompt), bytes);
    pages.push(bytes.subarray(0, got));
    done += bytes.length;
    if (got < bytes.length) break;
  }
  const bytes = Buffer.concat(pages);
  if (bytes.length === 0) throw new DotUsageError(`there is no memory at ${hex(address)}`);
  const text = dump(address, bytes, format, memory.littleEndian, prompt.tableWidth);
  return bytes.length < asked && format.letter !== 's'
    ? `${text}\nand no memory from ${hex(address + BigInt(bytes.length))} on`
    : text;
}

const xp: DotCommand = {
  usage: '[/FMT] ADDRESS',
  help: 'Memory at a guest physical address: .xp/16xb 0x1000',
  run: (argument, prompt) => examine(argument, prompt, (address) => address),
};

const x: DotCommand = {
  usage: '[/FMT] ADDRESS',
  help: 'Memory at a virtual address of the first vCPU',
  run: (argument, prompt) => examine(argument, prompt, virtualToPhysical),
};

const poke: DotCommand = {
  usage: 'ADDRESS BYTES|NUMBER[/SIZE]|"TEXT"',
  help: 'Writes at a guest physical address: .poke 0x1000 0xcafe/4',
  run(argument, prompt) {
    const [address = '', ...rest] = wordsOf(argument);
    const at = numberOf(address, 'the address', prompt);
    const { memory } = prompt.session.vm;
    const bytes = bytesOf(rest, memory.littleEndian, prompt);
    memory.writeExact(at, bytes);
    return `${counted(bytes.length, 'byte')} at ${hex(at)}`;
  },
};

const dirty: DotCommand = {
  usage: '[stop]',
  help: 'What was written since the last .dirty; the first one starts the log',
  words: () => ['stop'],
  run(argument, { session: { kvm, vm } }) {
    if (argument !== '' && argument !== 'stop')
      throw new DotUsageError(`.dirty or .dirty stop, not .dirty ${argument}`);
    if (argument === 'stop') {
      vm.dirtyPages.stop();
      return 'stopped';
    }
    if (!vm.dirtyPages.started) {
      vm.dirtyPages.start();
      return 'started: what is written from now on is dirty';
    }
    const runs = vm.dirtyPages.collect().runs();
    if (runs.length === 0) return 'nothing was written';
    const rows = runs.map(({ gfn, npages }) => {
      const size = npages * kvm.pageSize;
      return [...span(BigInt(gfn) * BigInt(kvm.pageSize), size), `${npages}`, humanSize(size)];
    });
    return table(['first', 'last', 'pages', 'size'], rows);
  },
};

export const MEMORY_COMMANDS: Readonly<Record<string, DotCommand>> = { mem, slots, x, xp, poke, find, dirty };
