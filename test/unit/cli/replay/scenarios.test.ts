import { describe, expect, it } from 'vitest';
import { emulationOf } from '../../../../lib/backends/emulation.ts';
import { ARCHES, loadNative } from '../../../../lib/raw.ts';
import { nativeGuestLoader, noGuestLoader } from '../../../scenarios/guests/native.ts';
import { scenariosFor } from '../../../scenarios/index.ts';
import { applicable, whyNoKvm } from '../../../scenarios/real-host.ts';
import type { Scenario } from '../../../scenarios/scenario.ts';
import { differencesOf, emulatedTrace, traceOf } from './traced.ts';

// What the scenarios do is a good part of what can be done: each of their traces must be replayed without a difference.

/** Their guests leave some hundred times, and each time all of their memory is compared. */
const isLong = ({ name }: Scenario): boolean => name.startsWith('hpt-mmio/');

describe.each(ARCHES)('traces of the emulated %s', (arch) => {
  it.each(scenariosFor(arch).filter((scenario) => !isLong(scenario)))('$name', async (scenario) => {
    expect(await differencesOf(await emulatedTrace(scenario, { arch }))).toBe('');
  });
});

const native = loadNative();
const missing = whyNoKvm(native);
const real = 'calls' in native && missing === undefined ? native.calls : undefined;

describe.skipIf(real === undefined)(
  `traces of this machine's kernel${missing === undefined ? '' : ` (skipped: ${missing})`}`,
  () => {
    const scenarios = real === undefined ? [] : applicable(real, emulationOf(real));
    it.each(scenarios)('$name', async (scenario) => {
      const trace = await traceOf(scenario, real!, (noted) => nativeGuestLoader(noted) ?? noGuestLoader);
      expect(await differencesOf(trace)).toBe('');
    });
  },
);
