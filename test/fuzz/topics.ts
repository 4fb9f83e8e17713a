import type { Arch } from '../../lib/uapi/arch.ts';
import type { ScenarioHost } from '../scenarios/scenario.ts';
import { DIRTY_RING, enableRing, showRing } from './kinds/dirty-ring.ts';
import { GUESTS } from './kinds/guests.ts';
import { HOST_MEMORY } from './kinds/host-memory.ts';
import type { Kinds, Operation, Round } from './kinds/kind.ts';
import { MANUAL_PROTECT, MEMSLOTS } from './kinds/memslots.ts';
import { PPC64 } from './kinds/ppc64.ts';
import { PRIVATE_MEMORY } from './kinds/private-memory.ts';
import { REGISTERS } from './kinds/registers.ts';
import { S390X } from './kinds/s390x.ts';
import { enableCmma, S390X_CMMA, useCmma } from './kinds/s390x-cmma.ts';
import { S390X_VCPU, showRun } from './kinds/s390x-vcpu.ts';
import { USERFAULTFD } from './kinds/userfaultfd.ts';
import type { Random } from './random.ts';

/** What a round is about: the operations that it mixes, and what its VM needs for them. */
export interface Topic {
  readonly name: string;
  /** How often it is chosen, relative to the others. */
  readonly weight: number;
  readonly kinds: Kinds;
  /** Before the vCPU is made, and after. */
  readonly beforeVcpu?: (s: ScenarioHost, vm: number) => void;
  readonly afterVcpu?: (round: Round) => void;
}

/** What an architecture's fuzzing is about. */
export function topicsFor(arch: Arch, guests: boolean): readonly Topic[] {
  const hasGenericLog = arch === 'x86_64' || arch === 'aarch64' || arch === 'riscv64';
  const memory = { ...MEMSLOTS, ...HOST_MEMORY, ...(hasGenericLog ? MANUAL_PROTECT : {}) };
  const all: Kinds = {
    ...memory,
    ...(guests ? GUESTS : {}),
    ...(arch === 's390x' ? S390X : {}),
    ...(arch === 'ppc64' ? PPC64 : {}),
  };
  return [
    { name: 'memory', weight: 6, kinds: all },
    { name: 'userfaultfd', weight: 2, kinds: { ...HOST_MEMORY, ...USERFAULTFD } },
    ...(guests ? [{ name: 'dirty ring', weight: 2, kinds: { ...all, ...DIRTY_RING }, ...RING }] : []),
    ...(hasGenericLog ? [{ name: 'private memory', weight: 2, kinds: { ...all, ...PRIVATE_MEMORY } }] : []),
    // Real guests need registers of their own, which scripted ones don't.
    { name: 'registers', weight: 1, kinds: REGISTERS, ...(arch === 's390x' ? S390X_REGISTERS : {}) },
    ...(arch === 's390x' ? [{ name: 'cmma', weight: 2, kinds: { ...memory, ...S390X_CMMA }, ...CMMA }] : []),
  ];
}

const CMMA = { beforeVcpu: enableCmma, afterVcpu: useCmma } as const;
const S390X_REGISTERS = { kinds: { ...REGISTERS, ...S390X_VCPU, slot: MEMSLOTS.slot! }, afterVcpu: showRun } as const;
const RING = { beforeVcpu: enableRing, afterVcpu: showRing } as const;

/** One of several, by their weights. */
function pick<T extends { readonly weight: number }>(random: Random, choices: readonly T[]): T {
  let ticket = random.below(choices.reduce((sum, { weight }) => sum + weight, 0));
  for (const choice of choices) {
    if (ticket < choice.weight) return choice;
    ticket -= choice.weight;
  }
  throw new Error('The weights do not add up');
}

/** What a round is about. */
export const pickTopic = (random: Random, topics: readonly Topic[]): Topic => pick(random, topics);

/** A sequence of operations, made up from a seed. */
export function makeOperations(random: Random, kinds: Kinds, count: number): Operation[] {
  const choices = Object.entries(kinds).map(([kind, { weight, make }]) => ({ kind, weight, make }));
  return Array.from({ length: count }, () => {
    const { kind, make } = pick(random, choices);
    return { kind, operands: make(random) };
  });
}
