import { describe, expect, it } from 'vitest';
import { EmulatedKernel, type EmulatedKernelOptions } from '../../../lib/backends/emulated.ts';
import { describeDifference, type FuzzOptions, fuzz } from '../../fuzz/fuzz.ts';
import { topicsFor } from '../../fuzz/topics.ts';

// Two emulated kernels: that the fuzzer does all it can make up, the same on both, and finds where they differ. `npm run fuzz` asks real ones.

/** Guests are machine code, which an emulated kernel that stands for a real one does not run. */
const WITHOUT_GUESTS = ['userfaultfd', 'registers', 'cmma'];

function between(
  one: EmulatedKernelOptions,
  other: EmulatedKernelOptions,
  options: Omit<FuzzOptions, 'progress' | 'seed'>,
) {
  return fuzz(new EmulatedKernel(one), other, { seed: 5, progress: () => {}, ...options });
}

const topics = (['s390x', 'ppc64', 'x86_64', 'aarch64', 'riscv64'] as const).flatMap((arch) => {
  const guests = arch !== 's390x' && arch !== 'ppc64';
  return topicsFor(arch, guests)
    .filter(({ name }) => !guests || WITHOUT_GUESTS.includes(name))
    .map(({ name, kinds }) => ({ arch, name, kinds }));
});

describe.each(topics)('$arch, $name', ({ arch, name, kinds }) => {
  it('is the same on the same kernel', async () => {
    const { operations, calls, difference } = await between({ arch }, { arch }, { operations: 300, topic: name });
    expect(difference).toBe(undefined);
    expect(operations).toBe(300);
    // Each operation is at least one call, but for those that find nothing to do.
    expect(calls).toBeGreaterThan(300);
    expect(Object.keys(kinds).length).toBeGreaterThan(3);
  });
});

it('what differs is made as short as it can be, and told', async () => {
  const options = { operations: 3000, topic: 'memory' };
  const { difference } = await between({ arch: 's390x', release: '7.2' }, { arch: 's390x', release: '6.12' }, options);
  // Of sixty.
  expect(difference!.operations.length).toBeLessThan(6);
  const lines = describeDifference(difference!).split('\n');
  const count = difference!.operations.length;
  expect(lines[0]).toMatch(
    new RegExp(`^seed 5, round \\d+, memory: ${count} operations are enough to make a difference:$`),
  );
  expect(lines.slice(1, count + 2)).toEqual([
    ...Array(count).fill(expect.stringMatching(/^ {2}\w+ \[.*\]$/)),
    'the real kernel:',
  ]);
  expect(lines.at(-1)).toMatch(/^call \d+: real .*; emulated /);
});

it('a topic that there is not is told', async () => {
  const asked = between({ arch: 's390x' }, { arch: 's390x' }, { operations: 1, topic: 'weather' });
  await expect(asked).rejects.toThrow('a topic is one of memory, userfaultfd, registers, cmma');
});
