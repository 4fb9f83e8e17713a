import type { Arch } from '../../lib/uapi/arch.ts';
import { dirtyLogScenarios } from './dirty-log.ts';
import { dispatchScenarios } from './dispatch.ts';
import { guestIoBusScenarios } from './guest-io-bus.ts';
import { guestLoadScenarios } from './guest-loads.ts';
import { guestMemfdScenarios } from './guest-memfd.ts';
import { guestMemoryScenarios } from './guest-memory.ts';
import { guestRingScenarios } from './guest-rings.ts';
import { hostMemoryScenarios } from './host-memory.ts';
import { hptScenarios } from './hpt.ts';
import { hptGuestScenarios } from './hpt-guest.ts';
import { hptMmioScenarios } from './hpt-mmio.ts';
import { ioBusScenarios } from './io-bus.ts';
import { memslotScenarios } from './memslots.ts';
import { privateMemoryScenarios } from './private-memory.ts';
import { registerScenarios } from './registers.ts';
import { requestScenarios } from './requests.ts';
import { reservationScenarios } from './reservations.ts';
import { riscv64Scenarios } from './riscv64.ts';
import { s390xCmmaScenarios } from './s390x-cmma.ts';
import { s390xDatScenarios } from './s390x-dat.ts';
import { s390xKeyScenarios } from './s390x-keys.ts';
import { s390xMemOpScenarios } from './s390x-memop.ts';
import { s390xVcpuScenarios } from './s390x-vcpu.ts';
import type { Scenario } from './scenario.ts';
import { userfaultfdScenarios } from './userfaultfd.ts';

/** Every scenario there is: the contract that all kernels, real and emulated, keep. */
export const SCENARIOS: readonly Scenario[] = [
  ...dispatchScenarios,
  ...memslotScenarios,
  ...dirtyLogScenarios,
  ...ioBusScenarios,
  ...guestMemoryScenarios,
  ...guestRingScenarios,
  ...guestIoBusScenarios,
  ...guestMemfdScenarios,
  ...privateMemoryScenarios,
  ...hptScenarios,
  ...hptGuestScenarios,
  ...hptMmioScenarios,
  // First what is only so before a process uses keys or CMM.
  ...s390xKeyScenarios,
  ...s390xCmmaScenarios,
  ...s390xMemOpScenarios,
  ...s390xDatScenarios,
  ...s390xVcpuScenarios,
  ...reservationScenarios,
  ...riscv64Scenarios,
  ...requestScenarios,
  ...registerScenarios,
  ...hostMemoryScenarios,
  ...userfaultfdScenarios,
  // Last: after them a fresh page is not zeros any more on riscv64 from 7.2 on (docs/labs.md).
  ...guestLoadScenarios,
];

/** Those that apply to an architecture. */
export function scenariosFor(arch: Arch): readonly Scenario[] {
  return SCENARIOS.filter((scenario) => scenario.arches.includes(arch));
}
