import { IOEVENTFD } from '../../lib/uapi/flags.ts';
import { type Guest, guest, load, run } from './guest-memory.ts';
import type { Scenario, ScenarioHost, ScriptOp } from './scenario.ts';

const WITH_GUESTS = ['x86_64', 'aarch64', 'riscv64'] as const;
const PAGE = 0x1000;
const DEVICE = 0xd000_0000;
const ZONE = 0x100;

const pause: ScriptOp = { op: 'pause' };

/** Stores of 4 bytes to the device one after the other; which of the eventfds were signalled shows after each. */
function stores(
  s: ScenarioHost,
  g: Guest,
  events: readonly number[],
  at: readonly (readonly [number, number])[],
): void {
  load(s, g, [
    ...at.flatMap(([offset, value]): ScriptOp[] => [{ op: 'store', address: DEVICE + offset, size: 4, value }, pause]),
    { op: 'done' },
  ]);
  for (const _ of at) {
    run(s, g);
    for (const event of events) s.calls.read(event, new Uint8Array(8));
  }
  run(s, g);
}

function device(s: ScenarioHost): { readonly g: Guest; readonly events: readonly [number, number] } {
  const { calls } = s;
  const g = guest(s);
  calls.setUserMemoryRegion(g.vm, 0, 0, 0, PAGE, s.memory(1));
  return { g, events: [calls.eventfd(0), calls.eventfd(0)] };
}

/** Ioeventfds and coalesced zones at the same addresses: who takes a guest's store. */
export const guestIoBusScenarios: readonly Scenario[] = [
  {
    name: 'guest-io-bus/zone-before-ioeventfd',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const { calls } = s;
      const { g, events } = device(s);
      calls.registerCoalescedMmio(g.vm, DEVICE, ZONE, 0);
      calls.ioeventfd(g.vm, DEVICE + 0x10, 4, events[0], 0, 0);
      calls.ioeventfd(g.vm, DEVICE, 4, events[1], 0, 0);
      stores(s, g, events, [
        [0x10, 1],
        [0, 1],
        [0x20, 1],
      ]);
      calls.unregisterCoalescedMmio(g.vm, DEVICE, ZONE, 0);
      stores(s, g, events, [
        [0x10, 2],
        [0, 2],
      ]);
      calls.registerCoalescedMmio(g.vm, DEVICE, ZONE, 0);
      stores(s, g, events, [
        [0x10, 3],
        [0, 3],
      ]);
    },
  },
  {
    name: 'guest-io-bus/ioeventfd-before-zone',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const { calls } = s;
      const { g, events } = device(s);
      calls.ioeventfd(g.vm, DEVICE + 0x10, 4, events[0], IOEVENTFD.DATAMATCH, 7);
      calls.ioeventfd(g.vm, DEVICE, 4, events[1], 0, 0);
      calls.registerCoalescedMmio(g.vm, DEVICE, ZONE, 0);
      stores(s, g, events, [
        [0x10, 7],
        [0x10, 8],
        [0, 1],
        [4, 1],
      ]);
    },
  },
  {
    name: 'guest-io-bus/overlapping-zones',
    arches: WITH_GUESTS,
    runsGuest: true,
    run: (s) => {
      const { calls } = s;
      const { g, events } = device(s);
      calls.ioeventfd(g.vm, DEVICE + 0x40, 4, events[0], 0, 0);
      calls.registerCoalescedMmio(g.vm, DEVICE + 0x20, 0x40, 0);
      calls.registerCoalescedMmio(g.vm, DEVICE, 0x80, 0);
      calls.registerCoalescedMmio(g.vm, DEVICE + 0x40, 4, 0);
      calls.ioeventfd(g.vm, DEVICE + 0x24, 0, events[1], 0, 0);
      calls.ioeventfd(g.vm, DEVICE + 0x50, 4, events[1], 0, 0);
      const offsets = [0x10, 0x20, 0x24, 0x40, 0x50, 0x60];
      stores(
        s,
        g,
        events,
        offsets.map((offset) => [offset, 1]),
      );
      // One zone goes, and others with it that have its whole range.
      calls.unregisterCoalescedMmio(g.vm, DEVICE + 0x20, 0x40, 0);
      stores(
        s,
        g,
        events,
        [0x40, 0x24].map((offset) => [offset, 1]),
      );
    },
  },
];
