import { checkCallback, checkInteger, checkOptions, checkSignal } from '../../../base/arguments.ts';
import type { HtabReader, HtabWriter } from './htab-fd.ts';

export interface HtabCopyOptions {
  /** A pass that tells of at most so many slots is followed by the last one; 256 unless given. */
  readonly settled?: number;
  /** However much still changes, the last pass comes after so many; 30 unless given. */
  readonly maxPasses?: number;
  /** Stops the source's vCPUs. Called once, before the last pass. */
  readonly stop?: (() => void | Promise<void>) | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Told of every pass when it is over. */
  readonly onPass?: ((pass: HtabCopyPass) => void) | undefined;
}

type CheckedCopyOptions = HtabCopyOptions & { readonly settled: number; readonly maxPasses: number };

/** One pass of a copy. */
export interface HtabCopyPass {
  /** 0 is the whole table. */
  readonly pass: number;
  /** Slots that it told of. */
  readonly slots: number;
  /** Bytes of stream. */
  readonly bytes: number;
  /** The vCPUs were stopped before it, and nothing changes any more. */
  readonly last: boolean;
}

/** The options of a copy, each looked at once. */
export function checkCopyOptions(options: HtabCopyOptions): CheckedCopyOptions {
  const {
    settled = 256,
    maxPasses = 30,
    stop,
    signal,
    onPass,
  } = checkOptions(options, { settled: true, maxPasses: true, stop: true, signal: true, onPass: true });
  checkInteger(settled, 'options.settled', 0, Number.MAX_SAFE_INTEGER);
  checkInteger(maxPasses, 'options.maxPasses', 1, Number.MAX_SAFE_INTEGER);
  return {
    settled,
    maxPasses,
    stop: checkCallback(stop, 'options.stop'),
    signal: checkSignal(signal, 'options.signal'),
    onPass: checkCallback(onPass, 'options.onPass'),
  };
}

/**
 * Copies pass after pass until little changes, and then once more when the vCPUs are stopped.
 * @param isStale whether one of the tables is another one by now
 * @returns undefined when it is, and nothing that was copied counts
 */
export async function copyPasses(
  reader: HtabReader,
  writer: HtabWriter,
  isStale: () => boolean,
  options: CheckedCopyOptions,
): Promise<readonly HtabCopyPass[] | undefined> {
  const { stop, signal, onPass, settled, maxPasses } = options;
  const passes: HtabCopyPass[] = [];
  for (let last = false; ; ) {
    const copied = await copyPass(reader, writer, isStale, signal);
    if (copied === undefined) return undefined;
    const { slots, bytes } = copied;
    const pass: HtabCopyPass = { pass: passes.length, slots, bytes, last };
    passes.push(pass);
    onPass?.(pass);
    if (isStale()) return undefined;
    if (last) return passes;
    // The first pass tells of everything, so that nothing follows from it.
    if ((passes.length > 1 && slots <= settled) || passes.length >= maxPasses) {
      signal?.throwIfAborted();
      await stop?.();
      last = true;
    }
  }
}

async function copyPass(
  reader: HtabReader,
  writer: HtabWriter,
  isStale: () => boolean,
  signal: AbortSignal | undefined,
): Promise<Pick<HtabCopyPass, 'slots' | 'bytes'> | undefined> {
  let slots = 0;
  let bytes = 0;
  try {
    for await (const chunk of reader.chunks({ signal })) {
      if (isStale()) return undefined;
      writer.write(chunk.bytes);
      slots += chunk.slots;
      bytes += chunk.bytes.length;
    }
  } catch (error) {
    if (isStale()) return undefined;
    throw error;
  }
  return isStale() ? undefined : { slots, bytes };
}
