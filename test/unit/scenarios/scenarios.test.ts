import { describe, expect, it } from 'vitest';
import { EmulatedKernel } from '../../../lib/backends/emulated.ts';
import { ARCHES } from '../../../lib/uapi/arch.ts';
import { emulatedGuestLoader } from '../../scenarios/guests/emulated.ts';
import { scenariosFor } from '../../scenarios/index.ts';
import { record, type Scenario } from '../../scenarios/scenario.ts';

// A scenario is worth recording only if it says the same every time.
describe.each(ARCHES)('scenarios on the emulated %s kernel', (arch) => {
  const recordAnew = (scenario: Scenario): Promise<readonly string[]> => {
    const kernel = new EmulatedKernel({ arch });
    return record(scenario, kernel, emulatedGuestLoader(kernel));
  };

  it.each(scenariosFor(arch))('$name', async (scenario) => {
    const first = await recordAnew(scenario);
    expect(first.length).toBeGreaterThan(1);
    expect(await recordAnew(scenario)).toEqual(first);
  });
});
