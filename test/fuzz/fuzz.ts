import { EmulatedKernel, type EmulatedKernelOptions } from '../../lib/backends/emulated.ts';
import type { KvmCalls } from '../../lib/calls/kvm-calls.ts';
import { MAP, PROT } from '../../lib/uapi/flags.ts';
import { emulatedGuestLoader } from '../scenarios/guests/emulated.ts';
import { nativeGuestLoader, noGuestLoader } from '../scenarios/guests/native.ts';
import { firstDifference } from '../scenarios/recording.ts';
import { type GuestLoader, record, type Scenario, type ScenarioHost } from '../scenarios/scenario.ts';
import {
  CODE_BYTES,
  CODE_SLOT,
  CODE_UNIT,
  CODE_UNITS,
  FILE_UNITS,
  MEMORY_UNITS,
  type Operation,
  SLOTS,
} from './kinds/kind.ts';
import { Random } from './random.ts';
import { makeOperations, pickTopic, type Topic, topicsFor } from './topics.ts';

/** Operations that share one VM; a new round starts afresh, so that a difference is found in a short sequence. */
const OPERATIONS_PER_ROUND = 60;

export interface FuzzOptions {
  readonly seed: number;
  /** How many operations in all. */
  readonly operations: number;
  /** Rounds about this topic only. */
  readonly topic?: string | undefined;
  readonly progress: (text: string) => void;
}

export interface FuzzDifference {
  /** The seed and round that it came from, and what that was about. */
  readonly seed: number;
  readonly round: number;
  readonly topic: string;
  /** The shortest sequence found that still differs. */
  readonly operations: readonly Operation[];
  readonly difference: string;
  /** What the real kernel answered to that sequence. */
  readonly real: readonly string[];
}

export interface FuzzResult {
  readonly operations: number;
  readonly calls: number;
  readonly difference?: FuzzDifference;
}

/** Makes up sequences of calls and compares a real kernel's answers with the emulated one's, call for call. */
export async function fuzz(calls: KvmCalls, emulate: EmulatedKernelOptions, options: FuzzOptions): Promise<FuzzResult> {
  const { seed, operations, progress } = options;
  // On ppc64 a guest needs a table that says where its memory is; the HPT's own scenarios run guests there.
  const loader = calls.arch === 'ppc64' ? undefined : nativeGuestLoader(calls);
  const all = topicsFor(calls.arch, loader !== undefined);
  const topics = all.filter(({ name }) => options.topic === undefined || name === options.topic);
  if (topics.length === 0) throw new RangeError(`a topic is one of ${all.map(({ name }) => name).join(', ')}`);

  let firstCode = 0;
  /** Both kernels' answers to a sequence. */
  const ask = async (topic: Topic, sequence: readonly Operation[]) => {
    const scenario = asScenario(topic, sequence, { emulate, runsGuests: loader !== undefined, firstCode });
    const codeBytes = OPERATIONS_PER_ROUND * CODE_BYTES;
    firstCode = firstCode + 2 * codeBytes > CODE_UNITS * calls.pageSize ? 0 : firstCode + codeBytes;
    const kernel = new EmulatedKernel(emulate);
    const real = await record(scenario, calls, loader ?? noGuestLoader);
    const emulated = await record(scenario, kernel, emulatedGuestLoader(kernel) satisfies GuestLoader);
    return { real, difference: firstDifference(real, emulated) };
  };

  let done = 0;
  let callCount = 0;
  for (let round = 0; done < operations; round++) {
    const random = new Random(seed * 1_000_003 + round);
    const topic = pickTopic(random, topics);
    const sequence = makeOperations(random, topic.kinds, Math.min(OPERATIONS_PER_ROUND, operations - done));
    const { real, difference } = await ask(topic, sequence);
    done += sequence.length;
    callCount += real.length;
    if (difference !== undefined) {
      progress(`round ${round} (${topic.name}) differs; looking for the shortest sequence that does`);
      const shortest = await shorten(sequence, async (shorter) => (await ask(topic, shorter)).difference !== undefined);
      const last = await ask(topic, shortest);
      return {
        operations: done,
        calls: callCount,
        difference: {
          ...{ seed, round, topic: topic.name, operations: shortest },
          ...{ difference: last.difference ?? difference, real: last.real },
        },
      };
    }
    if (round % 10 === 9) progress(`${done} of ${operations} operations, ${callCount} calls, no difference`);
  }
  return { operations: done, calls: callCount };
}

function asScenario(
  topic: Topic,
  sequence: readonly Operation[],
  { emulate, runsGuests, firstCode }: { emulate: EmulatedKernelOptions; runsGuests: boolean; firstCode: number },
): Scenario {
  return {
    name: 'fuzz',
    arches: [],
    run: (s) => {
      const { calls, unit } = s;
      const { kvm, vm } = s.vm();
      const hva = reserveMemory(s);
      const eventfd = calls.eventfd(0);
      const file = calls.memfdCreate('fuzz', FILE_UNITS * unit, 0);
      topic.beforeVcpu?.(s, vm);
      let vcpu = -1;
      let codeHva = 0;
      if (runsGuests) {
        vcpu = s.vcpu(vm);
        const area = calls.mmap(calls.getVcpuMmapSize(kvm, 0), PROT.READ | PROT.WRITE, MAP.SHARED, vcpu, 0, 0, 0);
        s.knowRunArea(vcpu, area);
        codeHva = s.memory(CODE_UNITS);
        calls.setUserMemoryRegion(vm, CODE_SLOT, 0, CODE_UNIT * unit, CODE_UNITS * unit, codeHva);
      } else if (s.arch === 's390x') {
        vcpu = calls.createVcpu(vm, 0);
        // Keys are switched on for the whole process: do so before anything depends on it.
        calls.setUserMemoryRegion(vm, CODE_SLOT, 0, CODE_UNIT * unit, unit, hva);
        calls.s390x!.setSkeys(vm, (CODE_UNIT * unit) / calls.pageSize, 1, 0, Uint8Array.of(0));
        calls.setUserMemoryRegion(vm, CODE_SLOT, 0, 0, 0, 0);
      } else if (s.arch === 'ppc64') {
        calls.ppc64!.allocateHtab(vm, 18);
        vcpu = calls.createVcpu(vm, 0);
      }
      const round = {
        s,
        emulate,
        kvm,
        vm,
        vcpu,
        hva,
        codeHva,
        eventfd,
        file,
        nextCode: firstCode,
        own: new Map<string, number>(),
      };
      topic.afterVcpu?.(round);
      for (const { kind, operands } of sequence) topic.kinds[kind]!.apply(round, operands);
      lookAround(s, vm, hva);
    },
  };
}

/** The host memory of a round: a reservation, full at first, so that pieces of it can be exchanged. */
function reserveMemory({ calls, unit }: ScenarioHost): number {
  const length = MEMORY_UNITS * unit;
  const hva = calls.mmap(length, PROT.NONE, MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE, -1, 0, unit, 0);
  calls.mmapFixed(hva, length, PROT.READ | PROT.WRITE, MAP.SHARED | MAP.ANONYMOUS | MAP.NORESERVE, -1, 0);
  return hva;
}

/** What a round has come to: what memory there is, and which of it is dirty. */
function lookAround({ calls, unit }: ScenarioHost, vm: number, hva: number): void {
  for (let at = 0; at < MEMORY_UNITS; at++) calls.readMemory(hva + at * unit, new Uint8Array(0x60));
  for (let slot = 0; slot < SLOTS; slot++) {
    calls.getDirtyLog(vm, slot, new Uint8Array(Math.ceil((8 * unit) / calls.pageSize / 64) * 8));
  }
}

/** Leaves out ever smaller parts of a sequence for as long as what is left still differs. */
async function shorten(
  sequence: readonly Operation[],
  differs: (shorter: readonly Operation[]) => Promise<boolean>,
): Promise<readonly Operation[]> {
  let shortest = sequence;
  for (let part = Math.ceil(shortest.length / 2); part >= 1; part = part === 1 ? 0 : Math.ceil(part / 2)) {
    for (let at = 0; at < shortest.length; ) {
      const shorter = [...shortest.slice(0, at), ...shortest.slice(at + part)];
      if (await differs(shorter)) shortest = shorter;
      else at += part;
    }
  }
  return shortest;
}

/** A difference as text: the sequence, what the real kernel said, and where the emulated one said something else. */
export function describeDifference({ seed, round, topic, operations, difference, real }: FuzzDifference): string {
  return [
    `seed ${seed}, round ${round}, ${topic}: ${operations.length} operations are enough to make a difference:`,
    ...operations.map(({ kind, operands }) => `  ${kind} ${JSON.stringify(operands)}`),
    'the real kernel:',
    ...real.map((line) => `  ${line}`),
    difference,
  ].join('\n');
}
