import type { Arch } from '../../lib/uapi/arch.ts';
import { dirtyLogScenarios } from './dirty-log.ts';
import { dispatchScenarios } from './dispatch.ts';
import { guestMemfdScenarios } from './guest-memfd.ts';
import { guestMemoryScenarios } from './guest-memory.ts';
import { hptScenarios } from './hpt.ts';
import { hptGuestScenarios } from './hpt-guest.ts';
import { ioBusScenarios } from './io-bus.ts';
import { memslotScenarios } from './memslots.ts';
import type { Scenario } from './scenario.ts';

/** Every scenario there is: the contract that all kernels, real and emulated, keep. */
export const SCENARIOS: readonly Scenario[] = [
  ...dispatchScenarios,
  ...memslotScenarios,
  ...dirtyLogScenarios,
  ...ioBusScenarios,
  ...guestMemoryScenarios,
  ...guestMemfdScenarios,
  ...hptScenarios,
  ...hptGuestScenarios,
];

/** Those that apply to an architecture. */
export function scenariosFor(arch: Arch): readonly Scenario[] {
  return SCENARIOS.filter((scenario) => scenario.arches.includes(arch));
}
