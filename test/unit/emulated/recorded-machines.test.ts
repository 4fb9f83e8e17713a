/** What real kernels said of themselves, asked in one go of all that were recorded; whole scenarios are replayed elsewhere. */

import { expect, it } from 'vitest';
import { EmulatedKernel } from '../../../lib/backends/emulated.ts';
import { ERRNO } from '../../../lib/raw.ts';
import { RECORDINGS, readRecordings } from '../../scenarios/recording.ts';
import type { TakenSet } from '../../scenarios/take.ts';

const ASKED = /^(checkExtension|getVcpuMmapSize)\((kvm|vm)#1, (\d+)\) = (\d+)$/;
const SCENARIOS = ['dispatch/fixed-capabilities', 'dispatch/dev-kvm'];

/** The questions in a recording, with their answers. */
const recordedIn = ({ taken }: TakenSet) =>
  taken
    .filter(({ name }) => SCENARIOS.includes(name))
    .flatMap(({ lines }) => lines)
    .flatMap((line) => {
      const [, call, on, about, answer] = ASKED.exec(line) ?? [];
      return call === undefined ? [] : [{ call, on, about: Number(about), answer: Number(answer) }];
    });

const sets = readRecordings(RECORDINGS).map(({ id, set }) => ({ id, set, recorded: recordedIn(set) }));

it('all but one of the hosts were asked', () => {
  expect(sets.filter(({ recorded }) => recorded.length < 25).map(({ id }) => id)).toEqual(['x86_64-6.12-swp']);
});

it.each(sets)('$id: capabilities, and bytes that are mapped of a vCPU', ({ set, recorded }) => {
  const kernel = new EmulatedKernel(set.emulate);
  const kvm = kernel.openKvm();
  const vm = kernel.createVm(kvm, 0);
  const answers = recorded.map(({ call, on, about }) => {
    const fd = on === 'kvm' ? kvm : vm;
    return call === 'checkExtension' ? kernel.checkExtension(fd, about) : kernel.getVcpuMmapSize(fd, about);
  });
  expect(answers).toEqual(recorded.map(({ answer }) => answer));
});

const { EEXIST, EINVAL, ENODEV, ENOTTY } = ERRNO;

// Of requests/interrupt-controller, dispatch/vcpus and dispatch/unknown-request, which agree on all releases.
it.each([
  ['x86_64', { irqfd: -EINVAL, irqchip: -EINVAL, unknownOfVm: -ENOTTY, duplicate: -EEXIST }],
  ['s390x', { irqfd: 0, irqchip: -EINVAL, unknownOfVm: -ENOTTY, duplicate: -EEXIST }],
  ['ppc64', { irqfd: -ERRNO.EAGAIN, irqchip: -ENOTTY, unknownOfVm: -ENOTTY, duplicate: -EINVAL }],
  ['aarch64', { irqfd: -ERRNO.EAGAIN, irqchip: -ENODEV, unknownOfVm: -EINVAL, duplicate: -EEXIST }],
  ['riscv64', { irqfd: 0, irqchip: -EINVAL, unknownOfVm: -EINVAL, duplicate: -EEXIST }],
] as const)('%s: what is refused', (arch, expected) => {
  const kernel = new EmulatedKernel({ arch });
  const vm = kernel.createVm(kernel.openKvm(), 0);
  const irqfd = kernel.irqfd(vm, kernel.eventfd(0), 1, 0, -1);
  expect(kernel.createVcpu(vm, 0)).toBeGreaterThan(0);
  expect({
    irqfd,
    irqchip: kernel.createIrqchip(vm),
    unknownOfVm: kernel.ioctlUnchecked(vm, 0xaeff, 0),
    duplicate: kernel.createVcpu(vm, 0),
  }).toEqual(expected);
});
