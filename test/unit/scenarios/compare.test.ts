import { describe, expect, it } from 'vitest';
import { EmulatedKernel } from '../../../lib/backends/emulated.ts';
import { comparisonTable } from '../../scenarios/compare.ts';
import { differenceFrom } from '../../scenarios/emulated-answer.ts';
import { emulatedGuestLoader } from '../../scenarios/guests/emulated.ts';
import { SCENARIOS } from '../../scenarios/index.ts';
import { record } from '../../scenarios/scenario.ts';

describe('what a real kernel answered', () => {
  it('differs from the emulated one where a line does', async () => {
    const scenario = SCENARIOS.find(({ name }) => name === 'hpt-guest/hypercalls')!;
    const emulate = { arch: 'ppc64' } as const;
    const kernel = new EmulatedKernel(emulate);
    const lines = await record(scenario, kernel, emulatedGuestLoader(kernel));
    expect(await differenceFrom(scenario, emulate, lines)).toBeUndefined();
    const changed = lines.with(7, `${lines[7]} -> and more`);
    expect(await differenceFrom(scenario, emulate, changed)).toMatch(/^call 8: real .* -> and more; emulated /);
  });

  it('is told with what it was at first, where it was asked twice', () => {
    const once = { name: 'a/b', lines: ['x() = 0'], ms: 1 };
    const table = comparisonTable([
      { ...once, difference: undefined },
      { ...once, atFirst: 'call 1: real 1; emulated 0', difference: undefined },
      { ...once, atFirst: 'call 1: real 1; emulated 0', difference: 'call 1: real 2; emulated 0' },
    ]).split('\n');
    expect(table[1]).toMatch(/ identical$/);
    expect(table[2]).toMatch(/ identical when asked again; at first call 1: real 1; emulated 0$/);
    expect(table[3]).toMatch(/ call 1: real 2; emulated 0$/);
    expect(table[4]).toBe('3 scenarios, 3 calls: 1 different');
  });
});
