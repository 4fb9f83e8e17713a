import { describe, expect, it } from 'vitest';
import { EmulatedKernel } from '../../../lib/backends/emulated.ts';
import { emulatedGuestLoader } from '../../scenarios/guests/emulated.ts';
import { SCENARIOS } from '../../scenarios/index.ts';
import { firstDifference, RECORDINGS, readRecordings } from '../../scenarios/recording.ts';
import { record } from '../../scenarios/scenario.ts';

// What real kernels answered, on every machine: the emulated kernel must say the same, call for call.
describe.each(readRecordings(RECORDINGS))('recorded on $id ($set.kernel)', ({ set }) => {
  it.each(set.taken)('$name', async ({ name, lines }) => {
    const scenario = SCENARIOS.find((candidate) => candidate.name === name);
    expect(scenario, `no scenario is named ${name}: make the recordings again`).toBeInstanceOf(Object);
    const kernel = new EmulatedKernel(set.emulate);
    expect(firstDifference(lines, await record(scenario!, kernel, emulatedGuestLoader(kernel)))).toBe(undefined);
  });
});
