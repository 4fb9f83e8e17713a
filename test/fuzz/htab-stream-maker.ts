import type { Random } from './random.ts';

/** Entries of the table that the streams are for: the smallest there is. */
export const HTAB_ENTRIES = 2 ** 14;

/** What can be wrong with a stream; `valid` ones have nothing wrong. */
export const STREAM_KINDS = [
  'random',
  'valid',
  'overlapping',
  'mutated',
  'truncated',
  'overlong',
  'out-of-range',
  'bad-entry',
] as const;
export type StreamKind = (typeof STREAM_KINDS)[number];

export interface MadeStream {
  readonly kind: StreamKind;
  readonly bytes: Uint8Array;
  /** Whether the headers are little-endian. */
  readonly isLittle: boolean;
}

interface MadeChunk {
  readonly index: number;
  readonly nInvalid: number;
  readonly entries: readonly (readonly [v: bigint, r: bigint])[];
}

/** LP of every large page size, in place. */
const LARGE_PAGES = [0x7n, 0x38n, 0x1n, 0x8n, 0x0n, 0x3n].map((lp) => lp << 12n);

const word = (random: Random): bigint => (BigInt(random.below(2 ** 32)) << 32n) | BigInt(random.below(2 ** 32));

/** An entry that KVM takes; KVM's own bits of V may be set, as a reader sees them. */
function goodEntry(random: Random): [bigint, bigint] {
  const v = (word(random) & 0x7fff_ffff_ffff_fffan) | 1n;
  // Most are small pages at the beginning, where there may be memory.
  const r = random.oneIn(4) ? word(random) : BigInt(random.below(2 ** 21)) | (BigInt(random.below(2)) << 63n);
  return random.oneIn(4) ? [v | 4n, (r & ~0xff000n) | random.pick(LARGE_PAGES)] : [v, r];
}

function badEntry(random: Random): [bigint, bigint] {
  const [v, r] = goodEntry(random);
  return random.pick<[bigint, bigint]>([
    [v & ~1n, r],
    [v | (1n << 63n), r],
    [v | 4n, (r & ~0xff000n) | 0x2000n],
    [word(random), word(random)],
  ]);
}

/** A chunk that fits the table. */
function goodChunk(random: Random, from: number, to: number): MadeChunk {
  const index = from + random.below(to - from);
  const most = HTAB_ENTRIES - index;
  const nValid = Math.min(most, random.oneIn(30) ? random.below(400) : random.below(7));
  const nInvalid = Math.min(most - nValid, random.oneIn(30) ? random.below(HTAB_ENTRIES) : random.below(24));
  return { index, nInvalid, entries: Array.from({ length: nValid }, () => goodEntry(random)) };
}

function write(chunks: readonly MadeChunk[], isLittle: boolean): Uint8Array {
  const bytes = new Uint8Array(chunks.reduce((sum, { entries }) => sum + 8 + entries.length * 16, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const { index, nInvalid, entries } of chunks) {
    view.setUint32(at, index, isLittle);
    view.setUint16(at + 4, entries.length, isLittle);
    view.setUint16(at + 6, nInvalid, isLittle);
    at += 8;
    for (const [v, r] of entries) {
      view.setBigUint64(at, v);
      view.setBigUint64(at + 8, r);
      at += 16;
    }
  }
  return bytes;
}

/** Makes up a stream for a table of {@link HTAB_ENTRIES}. */
export function makeHtabStream(random: Random): MadeStream {
  const kind = random.pick(STREAM_KINDS);
  const isLittle = !random.oneIn(4);
  if (kind === 'random') {
    const bytes = Uint8Array.from(random.bytes(random.below(200)));
    // Half of them begin with a header that a table of this size could have.
    if (random.oneIn(2))
      bytes.set([random.below(256), random.below(64), 0, 0, random.below(4), 0].slice(0, bytes.length));
    return { kind, bytes, isLittle };
  }
  const area: [number, number] = kind === 'overlapping' ? [100, 130] : [0, HTAB_ENTRIES];
  const chunks = Array.from({ length: 1 + random.below(5) }, () => goodChunk(random, ...area));
  const some = random.below(chunks.length);
  if (kind === 'bad-entry') {
    const chunk = chunks[some]!;
    const entries = [...chunk.entries, goodEntry(random)];
    entries[random.below(entries.length)] = badEntry(random);
    const index = Math.min(chunk.index, HTAB_ENTRIES - entries.length);
    chunks[some] = { index, nInvalid: 0, entries };
  } else if (kind === 'out-of-range') {
    const index = random.pick([HTAB_ENTRIES - random.below(4), HTAB_ENTRIES, random.below(2 ** 32), 0xffff_ffff]);
    chunks[some] = {
      entries: random.oneIn(2) ? [] : chunks[some]!.entries,
      index,
      nInvalid: random.pick([0, 1, 4, 0xffff]),
    };
  }
  let bytes = write(chunks, isLittle);
  if (kind === 'mutated') {
    for (let flips = 1 + random.below(3); flips > 0; flips--) bytes[random.below(bytes.length)] = random.below(256);
  } else if (kind === 'truncated') {
    bytes = bytes.subarray(0, random.below(bytes.length));
  } else if (kind === 'overlong') {
    bytes = Uint8Array.from([...bytes, ...random.bytes(1 + random.below(30))]);
  }
  return { kind, bytes, isLittle };
}
