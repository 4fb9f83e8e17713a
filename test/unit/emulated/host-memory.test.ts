import { expect, it, vi } from 'vitest';
import { EmulatedHostMemory } from '../../../lib/emulated/host-memory.ts';
import { EmulatedVm } from '../../../lib/emulated/vm.ts';
import { EmulatedKernel } from '../../../lib/raw.ts';
import { MAP, PROT } from '../../../lib/uapi/flags.ts';

const TIB = 2 ** 40;
const map = (memory: EmulatedHostMemory, length: number, align = 0): number =>
  memory.map({ length, prot: PROT.READ | PROT.WRITE, flags: MAP.PRIVATE | MAP.ANONYMOUS }, align, 0, undefined);

it('addresses come again once all have been used, and never two mappings at one', () => {
  const memory = new EmulatedHostMemory(4096);
  const kept = [map(memory, 0x3000), map(memory, 0x1000, 0x20_0000)];
  for (let round = 0; round < 40; round++) {
    const hva = map(memory, TIB, 0x20_0000);
    expect(hva, String(round)).toBeGreaterThan(0);
    expect(hva % 0x20_0000).toBe(0);
    expect(hva + TIB).toBeLessThanOrEqual(2 ** 47);
    for (const other of kept) expect(other + 0x3000 <= hva || other >= hva + TIB).toBe(true);
    expect(memory.write(hva + TIB - 8, Uint8Array.of(round))).toBe(1);
    const back = new Uint8Array(1);
    for (const other of kept) expect([memory.read(other, back), back[0]]).toEqual([1, 0]);
    if (round % 8 === 7) kept.push(map(memory, 0x1000));
    expect(memory.unmap(hva, TIB)).toBe(0);
  }
});

it('there is no room for more than all addresses', () => {
  const memory = new EmulatedHostMemory(4096);
  const all = [];
  for (let hva = map(memory, TIB); hva > 0; hva = map(memory, TIB)) all.push(hva);
  expect(all.length).toBe(15);
  expect(map(memory, TIB)).toBe(-12);
  expect(memory.unmap(all[3]!, TIB)).toBe(0);
  expect(map(memory, TIB)).toBe(all[3]);
});

it('tells VMs of invalidated pages for as long as somebody has a descriptor of theirs, and no longer', () => {
  const calls = new EmulatedKernel({ arch: 'ppc64' });
  const { pageSize } = calls;
  const invalidated = vi.spyOn(EmulatedVm.prototype, 'invalidated');
  /** How many VMs hear of it. */
  const told = (): number => {
    const hva = calls.mmap(pageSize, PROT.READ | PROT.WRITE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, 0, 0);
    invalidated.mockClear();
    calls.munmap(hva, pageSize);
    return new Set(invalidated.mock.contexts).size;
  };
  const kvm = calls.openKvm();
  for (let i = 0; i < 100; i++) calls.close(calls.createVm(kvm, 0));
  expect(told()).toBe(0);
  const vm = calls.createVm(kvm, 1);
  const [first, second] = [calls.createVcpu(vm, 0), calls.createVcpu(vm, 1)];
  const htab = calls.ppc64!.getHtabFd(vm, 0, 0);
  expect(htab).toBeGreaterThan(0);
  calls.close(vm);
  expect(told()).toBe(1);
  calls.close(first);
  calls.close(htab);
  expect(told()).toBe(1);
  calls.close(second);
  expect(told()).toBe(0);
  invalidated.mockRestore();
});

it('a vCPU that found no room for its descriptor leaves its number free, and its VM to nobody', () => {
  const calls = new EmulatedKernel({ arch: 'x86_64', maxFds: 3 });
  const kvm = calls.openKvm();
  const vm = calls.createVm(kvm, 0);
  const taken = calls.eventfd(0);
  expect(calls.createVcpu(vm, 0)).toBe(-24);
  calls.close(taken);
  expect(calls.createVcpu(vm, 0)).toBeGreaterThan(0);
});
