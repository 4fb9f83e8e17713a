import { describe, expect, it } from 'vitest';
import { EmulatedKernel } from '../../../lib/backends/emulated.ts';
import { emulationOf } from '../../../lib/backends/emulation.ts';
import { loadNative } from '../../../lib/backends/native.ts';
import { emulatedGuestLoader } from '../../scenarios/guests/emulated.ts';
import { nativeGuestLoader, noGuestLoader } from '../../scenarios/guests/native.ts';
import { applicable, whyNoKvm } from '../../scenarios/real-host.ts';
import { firstDifference } from '../../scenarios/recording.ts';
import { record } from '../../scenarios/scenario.ts';

// The contract, on this machine's own kernel: nothing recorded, both asked now.
describe('the emulated kernel answers as the real one of this machine does', () => {
  const loaded = loadNative();
  const missing = whyNoKvm(loaded);

  if (missing !== undefined || !('calls' in loaded)) {
    it('needs a real KVM', (test) => test.skip(missing));
    return;
  }
  const { calls } = loaded;
  const loader = nativeGuestLoader(calls) ?? noGuestLoader;
  const emulation = emulationOf(calls);
  it.each(applicable(calls, emulation))('$name', async (scenario) => {
    const real = await record(scenario, calls, loader);
    const kernel = new EmulatedKernel(emulation);
    expect(firstDifference(real, await record(scenario, kernel, emulatedGuestLoader(kernel)))).toBe(undefined);
  });
});
