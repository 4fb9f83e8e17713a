import { emulationOf } from '../../../../lib/backends/emulation.ts';
import { recorded } from '../../../../lib/calls/trace-recorder.ts';
import { cli } from '../../../../lib/cli/cli.ts';
import type { Difference } from '../../../../lib/cli/replay/compare.ts';
import type { KvmCalls } from '../../../../lib/raw.ts';
import { EmulatedKernel, type EmulatedKernelOptions } from '../../../../lib/raw.ts';
import { emulatedGuestLoader } from '../../../scenarios/guests/emulated.ts';
import { type GuestLoader, record, type Scenario } from '../../../scenarios/scenario.ts';
import { fakeIo } from '../fake-io.ts';

/** The trace of a scenario on a kernel. */
export async function traceOf(
  scenario: Scenario,
  calls: KvmCalls,
  loader: (noted: KvmCalls) => GuestLoader,
): Promise<string[]> {
  const lines: string[] = [];
  const noted = recorded(calls, (line) => lines.push(line), { ...emulationOf(calls) });
  await record(scenario, noted, loader(noted));
  return lines;
}

/** The trace of a scenario on an emulated kernel. */
export function emulatedTrace(scenario: Scenario, options: EmulatedKernelOptions): Promise<string[]> {
  const kernel = new EmulatedKernel(options);
  return traceOf(scenario, kernel, (noted) => emulatedGuestLoader(kernel, noted));
}

/** `kvm-bridge replay -` on lines. */
export async function replayed(lines: readonly string[], ...options: string[]) {
  const io = fakeIo({ input: lines.join('\n') });
  const status = await cli(['replay', ...options, '-'], io);
  return { status, out: io.out(), err: io.err() };
}

/** Where the replay of a trace differs, a line each. */
export async function differencesOf(lines: readonly string[]): Promise<string> {
  const { out } = await replayed(lines, '--json');
  const { replays } = JSON.parse(out) as { replays: { differences: Difference[] }[] };
  return replays
    .flatMap(({ differences }) => differences)
    .map(({ line, call, recorded, emulated }) => `${line}: ${call} = ${recorded}, not ${emulated}`)
    .join('\n');
}
