/** The mapped parts of an address space, as ranges with attributes. */

import {
  checkAtLeast,
  checkBigU64,
  checkBoolean,
  checkInteger,
  checkObject,
  checkOptions,
  checkSignal,
  toU64,
} from '../../../base/arguments.ts';
import { outOfRange } from '../../../base/errors.ts';
import { ASCE_REAL_SPACE } from './asce.ts';
import { DatResult, walkTables } from './dat.ts';
import { checkFeatures, spanShift } from './dat-entries.ts';
import { type AbsoluteMemory, checkMemory } from './memory.ts';
import { PREFIX_MASK, prefixed } from './prefix.ts';
import { PGM_ASCE_TYPE } from './program-interruption.ts';
import { addressOf, hex64, highHalf, lowHalf, PFN_LIMIT } from './u64.ts';

/** A run of mapped frames that is contiguous in virtual and absolute addresses, with equal attributes. */
export interface MappedRange {
  /** First virtual address. */
  readonly va: bigint;
  /** Bytes. */
  readonly length: bigint;
  /** Absolute address of the first byte. */
  readonly absolute: bigint;
  /** Bytes of each frame: 4096, 1 MiB or 2 GiB. */
  readonly frameSize: number;
  /** DAT protection from any level. */
  readonly protection: boolean;
  /** Instruction-execution protection. */
  readonly iep: boolean;
}

/** What beside the tables decides about the ranges. */
export interface RangeOptions {
  /** The DAT features in force, as `featuresOf` or `datFeatures` gives them. */
  readonly features: number;
  /** Prefix register of the CPU that looks; default 0: absolute addresses are the real ones of the tables. */
  readonly prefix?: number | bigint;
  /** Walks, each of which finds a frame or how much is unmapped, after which it ends with a RangeError: corrupt tables may need 2^52. */
  readonly maxWalks?: number;
  /** Looked at before every walk. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Every frame that the ASCE maps, in ascending order of virtual addresses: ranges of one frame each.
 * @throws RangeError ERR_OUT_OF_RANGE when `maxWalks` are not enough; the signal's reason
 */
export function mappedFrames(
  memory: AbsoluteMemory,
  asce: number | bigint,
  options: RangeOptions,
): Generator<MappedRange, void> {
  return framesOf(checkMemory(memory), toU64(asce, 'asce'), checkRangeOptions(options));
}

/** What is given, checked, before anything is looked for. */
function checkRangeOptions(options: RangeOptions) {
  const {
    features,
    prefix = 0,
    maxWalks = Number.POSITIVE_INFINITY,
    signal,
  } = checkOptions(options, { features: true, prefix: true, maxWalks: true, signal: true });
  checkFeatures(features, 'options.features');
  const wide = toU64(prefix, 'options.prefix');
  if ((wide & ~BigInt(PREFIX_MASK)) !== 0n) throw outOfRange('options.prefix', 'a multiple of 8 KiB below 2 GiB', wide);
  checkAtLeast(maxWalks, 'options.maxWalks', 1);
  checkSignal(signal, 'options.signal');
  return { features, prefixPfn: Number(wide >> 12n), maxWalks, signal };
}

function* framesOf(
  memory: AbsoluteMemory,
  asce: bigint,
  options: ReturnType<typeof checkRangeOptions>,
): Generator<MappedRange, void> {
  const hi = highHalf(asce);
  const lo = lowHalf(asce);
  if ((lo & ASCE_REAL_SPACE) !== 0) return;
  const result = new DatResult();
  const { signal, prefixPfn, maxWalks } = options;
  let page = 0;
  for (let walks = 0; page < PFN_LIMIT; walks++) {
    signal?.throwIfAborted();
    if (walks >= maxWalks) {
      throw outOfRange('maxWalks', `enough for the tables, which lead on at ${hex64(addressOf(page))}`, maxWalks);
    }
    const vaLo = ((page % 0x10_0000) << 12) >>> 0;
    const code = walkTables(memory, hi, lo, Math.floor(page / 0x10_0000), vaLo, options.features, result);
    if (code === PGM_ASCE_TYPE) return;
    if (code === 0) {
      yield {
        va: addressOf(page),
        length: 1n << BigInt(result.frameShift),
        absolute: addressOf(result.absolute ? result.pfn : prefixed(result.pfn, prefixPfn)),
        frameSize: 2 ** result.frameShift,
        protection: result.protection,
        iep: result.iep,
      };
    }
    // A walk that ends at an entry ends there for everything the entry spans.
    page += 2 ** (spanShift(result.level) - 12);
  }
}

/**
 * The address space that an ASCE designates, as ranges in ascending order. A real space, where nothing is translated,
 * has none. Before it throws as {@link mappedFrames} does it gives what was found until then.
 */
export function mappedRanges(
  memory: AbsoluteMemory,
  asce: number | bigint,
  options: RangeOptions,
): Generator<MappedRange, void> {
  return merged(mappedFrames(memory, asce, options));
}

function* merged(frames: Generator<MappedRange, void>): Generator<MappedRange, void> {
  let current: MappedRange | undefined;
  for (;;) {
    let next: IteratorResult<MappedRange, void>;
    try {
      next = frames.next();
    } catch (error) {
      if (current !== undefined) yield current;
      throw error;
    }
    if (next.done === true) break;
    const frame = next.value;
    if (current !== undefined && continues(current, frame)) {
      current = { ...current, length: current.length + frame.length };
      continue;
    }
    if (current !== undefined) yield current;
    current = frame;
  }
  if (current !== undefined) yield current;
}

function continues(range: MappedRange, frame: MappedRange): boolean {
  return (
    range.va + range.length === frame.va &&
    range.absolute + range.length === frame.absolute &&
    range.frameSize === frame.frameSize &&
    range.protection === frame.protection &&
    range.iep === frame.iep
  );
}

/** A range in one line: `va .. last  absolute  size  frame size  rwx`. */
export function formatRange(range: MappedRange): string {
  const { va, length, absolute, frameSize, protection, iep } = checkObject(range, 'range');
  for (const [name, value] of Object.entries({ va, absolute })) checkBigU64(value, `range.${name}`);
  if (checkBigU64(length, 'range.length') === 0n) throw outOfRange('range.length', 'more than 0', length);
  checkInteger(frameSize, 'range.frameSize', 1, Number.MAX_SAFE_INTEGER);
  for (const [name, value] of Object.entries({ protection, iep })) checkBoolean(value, `range.${name}`);
  const last = va + length - 1n;
  const size = formatSize(length).padStart(9);
  const frame = formatSize(BigInt(frameSize)).padStart(5);
  const may = `r${protection ? '-' : 'w'}${iep ? '-' : 'x'}`;
  return `${hex64(va)}-${hex64(last)} -> ${hex64(absolute)} ${size} ${frame} ${may}`;
}

function formatSize(bytes: bigint): string {
  for (const [shift, unit] of [
    [30n, 'GiB'],
    [20n, 'MiB'],
    [10n, 'KiB'],
  ] as const) {
    if (bytes % (1n << shift) === 0n) return `${bytes >> shift} ${unit}`;
  }
  return `${bytes} B`;
}
