import type { ScenarioHost } from '../../scenarios/scenario.ts';
import { CODE_SLOT, CODE_UNIT, GUEST_UNITS, type Kinds, list, n, type Round } from './kind.ts';

/** Groups of a VM's attributes, and what of them. */
const [MEM_CTRL, ENABLE_CMMA, CLR_CMMA] = [0, 0, 1];
const MIGRATION = 4;
const STATUS = 2;
const PEEK = 1;
const ALL = 2n ** 64n - 1n;
const PAGES = GUEST_UNITS * 256;

/** CMMA is asked for before the first vCPU is made, */
export function enableCmma({ calls }: ScenarioHost, vm: number): void {
  calls.setDeviceAttr(vm, MEM_CTRL, ENABLE_CMMA, null);
}

/** and then used, which the kernel remembers of the process: before anything depends on it. */
export function useCmma({ s: { calls, unit }, vm, hva }: Round): void {
  calls.setUserMemoryRegion(vm, CODE_SLOT, 0, CODE_UNIT * unit, unit, hva);
  calls.s390x!.setCmmaBits(vm, (CODE_UNIT * unit) / calls.pageSize, 1, 0, ALL, Uint8Array.of(0));
  calls.setUserMemoryRegion(vm, CODE_SLOT, 0, 0, 0, 0);
}

/** What guests say of their pages, and the mode in which is told of which they said something. */
export const S390X_CMMA: Kinds = {
  cmma: {
    weight: 20,
    make: (random) => [random.below(PAGES), random.pick([0, 1, 4, 300]), random.pick([PEEK, PEEK, 0, 0, 2])],
    apply: ({ s: { calls }, vm }, o) => {
      const log = BigUint64Array.of(BigInt(n(o, 0)), BigInt(n(o, 1)), 0n);
      calls.s390x!.getCmmaBits(vm, log, n(o, 2), new Uint8Array(n(o, 1)));
    },
  },
  setCmma: {
    weight: 20,
    make: (random) => [
      random.below(PAGES),
      random.bytes(random.pick([0, 1, 2, 16])),
      random.pick([0xffff_ffff, 0xffff_ffff, 0x0300_0000, 0x4000_0000, 0]),
      random.oneIn(12) ? 1 : 0,
    ],
    apply: ({ s: { calls }, vm }, o) => {
      const values = Uint8Array.from(list(o, 1));
      calls.s390x!.setCmmaBits(vm, n(o, 0), values.length, n(o, 3), BigInt(n(o, 2)), values);
    },
  },
  migration: {
    weight: 10,
    make: (random) => [random.pick([0, 1, 1, STATUS, 3])],
    apply: ({ s: { calls }, vm }, o) => {
      if (n(o, 0) === STATUS) calls.getDeviceAttr(vm, MIGRATION, STATUS, new Uint8Array(8));
      else calls.setDeviceAttr(vm, MIGRATION, n(o, 0), null);
    },
  },
  clearCmma: {
    weight: 2,
    make: () => [],
    apply: ({ s: { calls }, vm }) => {
      calls.setDeviceAttr(vm, MEM_CTRL, CLR_CMMA, null);
    },
  },
};
