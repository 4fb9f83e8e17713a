import { release } from 'node:os';
import type { EmulatedKernelOptions } from '../../lib/backends/emulated.ts';
import { emulationOf } from '../../lib/backends/emulation.ts';
import type { KvmCalls } from '../../lib/calls/kvm-calls.ts';
import { differenceFrom } from './emulated-answer.ts';
import { nativeGuestLoader, noGuestLoader } from './guests/native.ts';
import { applicable, machineName } from './real-host.ts';
import { record } from './scenario.ts';

/** What a real kernel answered to one scenario. */
export interface Taken {
  readonly name: string;
  readonly lines: readonly string[];
  readonly ms: number;
  /** How it differed from the emulated kernel the first time, where it was asked twice. */
  readonly atFirst?: string;
}

/** What a real kernel answered to every scenario that applies to it, and which emulated kernel ought to answer the same. */
export interface TakenSet {
  readonly kernel: string;
  readonly machine: string;
  readonly emulate: EmulatedKernelOptions;
  readonly taken: readonly Taken[];
}

/**
 * Runs every applicable scenario on the real kernel behind `calls`. One whose guest runs and whose answer differs from the
 * emulated kernel's is asked once more: H_ENTER takes the next slot when its only stdcx. on a free one fails, which a timer
 * interrupt makes it do. What differs twice is no such luck.
 * @param only beginnings of names: those scenarios alone, where there are any
 */
export async function takeRecordings(
  calls: KvmCalls,
  progress: (text: string) => void,
  only: readonly string[] = [],
): Promise<TakenSet> {
  const emulate = emulationOf(calls);
  const loader = nativeGuestLoader(calls) ?? noGuestLoader;
  const taken: Taken[] = [];
  for (const scenario of applicable(calls, emulate)) {
    if (only.length > 0 && !only.some((beginning) => scenario.name.startsWith(beginning))) continue;
    progress(scenario.name);
    const start = performance.now();
    let lines = await record(scenario, calls, loader);
    const ms = Math.round(performance.now() - start);
    const atFirst = scenario.runsGuest === true ? await differenceFrom(scenario, emulate, lines) : undefined;
    if (atFirst !== undefined) lines = await record(scenario, calls, loader);
    taken.push({ name: scenario.name, lines, ms, ...(atFirst === undefined ? {} : { atFirst }) });
  }
  return { kernel: release(), machine: machineName(), emulate, taken };
}
