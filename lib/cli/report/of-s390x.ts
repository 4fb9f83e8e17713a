import {
  type AbsoluteMemory,
  decodeAsce,
  describeEntry,
  realToAbsolutePfn,
  type TableLevel,
} from '../../arch/s390x/model/index.ts';
import { hex } from '../../base/errors.ts';
import { fromHalves } from '../../base/u64.ts';
import type { NodeData, SpaceData } from './data.ts';

/** Levels from above, with what one entry spans. */
const LEVELS = [
  ['R1', 53n],
  ['R2', 42n],
  ['R3', 31n],
  ['S', 20n],
  ['P', 12n],
] as const satisfies readonly (readonly [TableLevel, bigint])[];

const DESIGNATED = { 'region-first': 0, 'region-second': 1, 'region-third': 2, segment: 3 } as const;

const INVALID = { P: 0x400n, other: 0x20n };

/** So many entries at most: tables that a guest made can lead on without end. */
const MOST_NODES = 200_000;

interface Table {
  readonly level: number;
  readonly origin: bigint;
  /** Parts of 512 entries that there are. */
  readonly first: number;
  readonly last: number;
  /** First virtual address that it is for. */
  readonly va: bigint;
}

/** Whose tables they are. */
export interface Tables {
  readonly memory: AbsoluteMemory;
  /** The DAT features in force, as `datFeatures` gives them. */
  readonly features: number;
  /** Prefix register of the CPU that looks. */
  readonly prefix: bigint;
}

/** The address space that an ASCE designates, with its tables' entries. */
export function spaceOf(name: string, asce: bigint, tables: Tables): SpaceData {
  const { designation, origin, tableLength } = decodeAsce(asce);
  if (designation === 'real-space') return { name, nodes: [], cut: 'A real space: nothing is translated.' };
  const walk = new Walk(tables);
  const nodes = walk.table({ level: DESIGNATED[designation], origin, first: 0, last: tableLength, va: 0n });
  return {
    name,
    nodes,
    ...(walk.left > 0 ? {} : { cut: `The tables have more than ${MOST_NODES} valid entries; these are the first.` }),
  };
}

class Walk {
  left = MOST_NODES;
  readonly #tables: Tables;
  readonly #prefixPfn: number;

  constructor(tables: Tables) {
    this.#tables = tables;
    this.#prefixPfn = Number(tables.prefix >> 12n);
  }

  table({ level, origin, first, last, va }: Table): NodeData[] {
    const [name, shift] = LEVELS[level]!;
    const nodes: NodeData[] = [];
    const end = name === 'P' ? 256 : (last + 1) * 512;
    for (let index = name === 'P' ? 0 : first * 512; index < end && this.left > 0; index++) {
      const at = origin + 8n * BigInt(index);
      const entry = this.#read(at);
      const from = va + (BigInt(index) << shift);
      if (entry === undefined) {
        // What isn't there ends the table, as far as one can look.
        nodes.push({
          va: hex(from),
          size: hex(1n << shift),
          level: name,
          says: `the table at ${hex(at)} cannot be read`,
        });
        break;
      }
      if ((entry & (name === 'P' ? INVALID.P : INVALID.other)) !== 0n) continue;
      this.left--;
      this.#add(nodes, this.#node(level, entry, from));
    }
    return nodes;
  }

  #node(level: number, entry: bigint, va: bigint): NodeData {
    const [name, shift] = LEVELS[level]!;
    const node = {
      va: hex(va),
      size: hex(1n << shift),
      level: name,
      says: describeEntry(name, entry, this.#tables.features),
      entry: hex(entry),
    };
    const isFrame = name === 'P' || / frame at /.test(node.says);
    if (isFrame) return { ...node, pa: this.#frame(name, Number(entry >> shift) * 2 ** Number(shift)) };
    const below = level + 1;
    const isPageTable = LEVELS[below]![0] === 'P';
    const nodes = this.table({
      level: below,
      origin: isPageTable ? entry & ~0x7ffn : entry & ~0xfffn,
      first: isPageTable ? 0 : Number((entry >> 6n) & 3n),
      last: isPageTable ? 0 : Number(entry & 3n),
      va,
    });
    return { ...node, nodes };
  }

  /** Large frames are absolute, pages real. */
  #frame(level: TableLevel, address: number): number {
    return level === 'P' ? realToAbsolutePfn(address / 4096, this.#prefixPfn) * 4096 : address;
  }

  /** Pages that follow one another here and there, with equal bits, are one line. */
  #add(nodes: NodeData[], node: NodeData): void {
    const last = nodes.at(-1);
    const bits = (each: NodeData) => BigInt(each.entry ?? 0) & 0xfffn;
    if (
      last?.pa === undefined ||
      node.pa === undefined ||
      last.level !== node.level ||
      bits(last) !== bits(node) ||
      BigInt(last.va) + BigInt(last.size) !== BigInt(node.va) ||
      last.pa + Number(last.size) !== node.pa
    ) {
      nodes.push(node);
      return;
    }
    nodes[nodes.length - 1] = { ...last, size: hex(BigInt(last.size) + BigInt(node.size)) };
  }

  #read(at: bigint): bigint | undefined {
    const { memory } = this.#tables;
    if (memory.readDoubleword(Number(at >> 12n), Number(at & 0xfffn)) !== 0) return undefined;
    return fromHalves(memory.hi, memory.lo);
  }
}
