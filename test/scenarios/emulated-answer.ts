import { EmulatedKernel, type EmulatedKernelOptions } from '../../lib/backends/emulated.ts';
import { emulatedGuestLoader } from './guests/emulated.ts';
import { firstDifference } from './recording.ts';
import { record, type Scenario } from './scenario.ts';

/** Asks the emulated kernel what a real one was asked: the first difference, as a sentence; undefined when there is none. */
export async function differenceFrom(
  scenario: Scenario,
  emulate: EmulatedKernelOptions,
  real: readonly string[],
): Promise<string | undefined> {
  const kernel = new EmulatedKernel(emulate);
  return firstDifference(real, await record(scenario, kernel, emulatedGuestLoader(kernel)));
}
