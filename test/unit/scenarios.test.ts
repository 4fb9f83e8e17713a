import { describe, expect, it } from 'vitest';
import { EmulatedKernel } from '../../lib/emulated/kernel.ts';
import { emulatedGuestLoader } from '../scenarios/guests/emulated.ts';
import { scenariosFor } from '../scenarios/index.ts';
import { record } from '../scenarios/scenario.ts';

describe.each(['x86_64', 's390x', 'ppc64', 'aarch64'] as const)('scenarios on the emulated %s kernel', (arch) => {
  it.each(scenariosFor(arch))('$name', async (scenario) => {
    const kernel = new EmulatedKernel({ arch });
    const first = await record(scenario, kernel, emulatedGuestLoader(kernel));
    if (process.env.SHOW) console.log(scenario.name, first.join('\n'));
    expect(await record(scenario, kernel, emulatedGuestLoader(kernel))).toEqual(first);
  });
});
