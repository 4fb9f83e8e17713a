import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { S390xVm } from '../../../../../lib/arch/s390x/emulated/vm-state.ts';
import { CAP } from '../../../../../lib/uapi/capabilities.ts';
import { LOG, Machine, MIB } from './machine.ts';

const EINVAL = -22;
const PAGE = 4096;

/** A machine with a logged slot of 1 MiB that begins in the middle of a segment of the guest: frames 1025 to 1280. */
function withSlot(release: string): { machine: Machine; hva: number; dirty: () => number[] } {
  const machine = new Machine({ release }).addMemory(LOG);
  const hva = machine.map(MIB);
  expect(machine.slot(1, 4 * MIB + PAGE, MIB, hva, LOG)).toBe(0);
  const dirty = (): number[] => {
    const bitmap = new Uint8Array(32);
    expect(machine.kernel.getDirtyLog(machine.vm, 1, bitmap)).toBe(0);
    return [...Array(256).keys()].filter((page) => (bitmap[page >> 3]! >> (page & 7)) & 1);
  };
  return { machine, hva, dirty };
}

describe('6.12: the log has what anybody changes in segments of the guest that it has touched', () => {
  /** Writes to the slot's first page, the last one in its first segment, the next, and the last one. */
  const change = (machine: Machine, hva: number): void => {
    for (const page of [0, 254, 255]) machine.kernel.writeMemory(hva + page * PAGE, Uint8Array.of(1));
  };
  const fault = (machine: Machine, page: number): number =>
    machine.s390x.vcpuFault(machine.vcpu, 4 * MIB + (1 + page) * PAGE);

  it.each([
    ['none', [], []],
    ['the first', [100], [0, 254]],
    ['the first by its last page', [254], [0, 254]],
    ['the second', [255], [255]],
    ['both', [0, 255], [0, 254, 255]],
  ])('%s', (_, touched, told) => {
    const { machine, hva, dirty } = withSlot('6.12');
    for (const page of touched) expect(fault(machine, page)).toBe(0);
    change(machine, hva);
    expect(dirty()).toEqual(told);
    expect(dirty()).toEqual([]);
  });

  it('until the slot goes or moves', () => {
    const { machine, hva, dirty } = withSlot('6.12');
    fault(machine, 0);
    fault(machine, 255);
    // Its segments, of which the first has frames of another place too.
    expect(machine.slot(1, 8 * MIB, MIB, hva, LOG)).toBe(0);
    expect(machine.slot(1, 4 * MIB + PAGE, MIB, hva, LOG)).toBe(0);
    change(machine, hva);
    expect(dirty()).toEqual([]);
    fault(machine, 255);
    expect(dirty()).toEqual([255]);
    fault(machine, 0);
    expect(dirty()).toEqual([0, 254]);
  });

  it('those of other slots stay', () => {
    const { machine, hva } = withSlot('6.12');
    expect(machine.s390x.vcpuFault(machine.vcpu, 4 * MIB - PAGE)).toBe(0);
    expect(machine.slot(1, 4 * MIB + PAGE, 0, hva)).toBe(0);
    machine.dirtyPages();
    machine.poke(4 * MIB - PAGE, Uint8Array.of(1));
    expect(machine.dirtyPages()).toEqual([1023]);
  });

  it('those of the slot that begins where another ends stay when that goes', () => {
    const machine = new Machine().addMemory();
    const hva = machine.map(MIB);
    expect(machine.slot(1, 4 * MIB, MIB, hva, LOG)).toBe(0);
    expect(machine.s390x.vcpuFault(machine.vcpu, 4 * MIB)).toBe(0);
    expect(machine.slot(0, 0, 0, machine.hva)).toBe(0);
    machine.kernel.writeMemory(hva + 5 * PAGE, Uint8Array.of(1));
    const bitmap = new Uint8Array(32);
    expect(machine.kernel.getDirtyLog(machine.vm, 1, bitmap)).toBe(0);
    expect(bitmap[0]).toBe(1 << 5);
  });
});

it('7.0: what user space does to memory is noted in each slot that shows it', () => {
  const { machine, hva } = withSlot('7.0');
  expect(machine.slot(2, 16 * MIB, MIB, hva)).toBe(0);
  expect(machine.slot(3, 32 * MIB, MIB, machine.map(MIB))).toBe(0);
  const bases = [1025, 4096, 8192];
  for (const base of bases) machine.setKeys(base, ...Array(256).fill(0x10));
  for (const base of bases) for (const page of [9, 10, 11, 12]) machine.absoluteRead((base + page) * PAGE, 8);
  for (const base of bases) machine.setKeys(base + 9, 0x10, 0x10, 0x10, 0x10);
  machine.kernel.writeMemory(hva + 10 * PAGE + 4095, new Uint8Array(2));
  const seen = bases.map((base) => [...(machine.keys(base + 9, 4) as Uint8Array)]);
  expect(seen).toEqual([
    [0x10, 0x16, 0x16, 0x10],
    [0x10, 0x16, 0x16, 0x10],
    [0x10, 0x10, 0x10, 0x10],
  ]);
});

it('7.0: a VM that is gone is told nothing more of memory', () => {
  const { machine, hva } = withSlot('7.0');
  const { kernel } = machine;
  const touched = vi.spyOn(S390xVm.prototype, 'touched');
  onTestFinished(() => touched.mockRestore());
  kernel.writeMemory(hva, Uint8Array.of(1));
  expect(touched).toHaveBeenCalledTimes(1);
  for (const fd of [machine.vcpu, machine.vm]) expect(kernel.close(fd)).toBe(0);
  // What is mapped of the vCPU still holds it.
  expect(kernel.munmap(machine.runHva, 4096)).toBe(0);
  kernel.writeMemory(hva, Uint8Array.of(2));
  expect(touched).toHaveBeenCalledTimes(1);
});

it('an interrupt controller is made by a capability, and only then has user space anything to make of it', () => {
  const machine = new Machine();
  const { kernel, vm } = machine;
  expect(kernel.createIrqchip(vm)).toBe(EINVAL);
  expect(kernel.enableCap(vm, CAP.MANUAL_DIRTY_LOG_PROTECT2, 0, [])).toBe(EINVAL);
  expect(kernel.createIrqchip(vm)).toBe(EINVAL);
  expect(kernel.enableCap(vm, CAP.S390_IRQCHIP, 0, [])).toBe(0);
  expect([kernel.createIrqchip(vm), kernel.createIrqchip(vm)]).toEqual([0, 0]);
});
