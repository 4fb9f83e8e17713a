import { describe, expect, it, type TestContext } from 'vitest';
import { AddressSpace, Kvm, Mapping } from '../../../lib/index.ts';
import { checked, EmulatedKernel, type GuestProgram, load, store, traced } from '../../../lib/raw.ts';
import { nativeMissing, UNIT } from '../handles/backends.ts';
import { hostCalls, openDescriptors } from './host.ts';

/** A guest that stores one byte, and then leaves. */
function* storing(gpa: number, value: number): GuestProgram {
  yield store(gpa, 1, BigInt(value));
  yield load(0xd000_0000, 4);
}

function realKvm(test: TestContext): Kvm {
  return nativeMissing === undefined ? Kvm.open({ backend: 'native' }) : test.skip(nativeMissing);
}

describe('an address space', () => {
  it('is made and filled without KVM, and bound by emulated VMs of several architectures, which store to the same memory', async (test) => {
    const calls = hostCalls(test);
    const before = openDescriptors();
    const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
    const ram = Mapping.memfd(calls, UNIT);
    const region = space.addRam(0, ram);
    const kvms = (['x86_64', 'aarch64', 'riscv64'] as const).map((arch) => Kvm.open({ backend: 'emulated', arch }));
    const vms = kvms.map((kvm) => kvm.createVm());
    for (const [i, vm] of vms.entries()) {
      vm.bind(space);
      vm.dirtyPages.start();
      const vcpu = vm.createVcpu();
      kvms[i]!.emulated!.loadGuest(vcpu.fd, storing(0x1000 * i + 8, 0x10 + i));
      await vcpu.run();
    }
    for (const [i, vm] of vms.entries()) {
      expect(space.readU8(0x1000 * i + 8)).toBe(0x10 + i);
      expect([...vm.dirtyPages.collect().pages()]).toEqual([i]);
    }
    region.move(2 * UNIT);
    expect(vms.map((vm) => [...vm.memslots][0]!.baseGfn)).toEqual([512, 512, 512]);
    for (const vm of vms) vm.close();
    space.close();
    ram.close();
    expect(openDescriptors()).toBe(before);
  });

  it('is bound by a real and an emulated VM at once; what one of them refuses, neither has', (test) => {
    const real = realKvm(test);
    const emulated = Kvm.open({ backend: 'emulated', arch: 's390x' });
    const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
    const [first, second] = [real.createVm(), emulated.createVm()];
    first.bind(space);
    second.bind(space);
    space.addRam(0, real.mapMemfd(UNIT));
    const tables = () => [first, second].map((vm) => [...vm.memslots].map(({ baseGfn, npages }) => [baseGfn, npages]));
    const one = [[0, UNIT / 4096]];
    expect(tables()).toEqual([one, one]);
    // s390x wants whole MiB.
    expect(() => space.addRam(UNIT, real.mapMemfd(0x1000))).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(() => space.addRam(UNIT, real.mapAnonymous(UNIT))).toThrow(
      expect.objectContaining({ code: 'EXDEV', message: expect.stringContaining('memfd') }),
    );
    expect(() => space.addRam(UNIT, emulated.mapAnonymous(UNIT))).toThrow(
      expect.objectContaining({ code: 'EXDEV', message: expect.stringContaining('addon') }),
    );
    expect(tables()).toEqual([one, one]);
    expect(space.generation).toBe(1);
    second.close();
    expect(tables()[0]).toEqual([[0, UNIT / 4096]]);
    first.close();
    real.close();
    emulated.close();
  });
});

it('memory of an emulated kernel is no other emulated kernel’s, whatever stands in front of its calls', () => {
  const [mine, others] = [1, 2].map(() => new EmulatedKernel({ arch: 'x86_64' })) as [EmulatedKernel, EmulatedKernel];
  const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  const ram = Mapping.anonymous(
    traced(mine, () => {}),
    UNIT,
  );
  ram.write(0, Uint8Array.of(0xaa));
  space.addRam(0, ram);
  const refused = Kvm.open({ calls: others }).createVm();
  expect(() => refused.bind(space)).toThrow(
    expect.objectContaining({ code: 'EXDEV', message: expect.stringContaining("another's memory") }),
  );
  expect([...refused.memslots]).toEqual([]);
  const vm = Kvm.open({ calls: checked(mine) }).createVm();
  vm.bind(space);
  expect([...vm.memslots].map(({ hva }) => hva)).toEqual([ram.hva]);
});

it('a VM that is bound to what it has already keeps that, and its dirty pages', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  const vm = kvm.createVm();
  const { dirtyPages } = vm;
  dirtyPages.start();
  vm.bind(vm.memory);
  expect(vm.memory.closed).toBe(false);
  vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
  dirtyPages.collect();
  vm.memory.writeU8(0x5000, 1);
  expect([...vm.dirtyPages.collect().pages()]).toEqual([5]);
  expect(vm.dirtyPages).toBe(dirtyPages);
});

it('memory that an emulated kernel maps from elsewhere stays for as long as a slot shows it', (test) => {
  const calls = hostCalls(test);
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  const kvm = Kvm.open({ calls: kernel });
  const vm = kvm.createVm();
  const ram = Mapping.memfd(calls, 2 * UNIT);
  const [first, second] = [vm.memory.addRam(0, ram, { size: UNIT }), vm.memory.addRam(UNIT, ram, { offset: UNIT })];
  const { hva } = [...vm.memslots][0]!;
  first.remove();
  const byte = new Uint8Array(1);
  expect(kernel.readMemory(hva, byte)).toBe(1);
  second.remove();
  expect(kernel.readMemory(hva, byte)).toBe(-14);
  kvm.close();
  ram.close();
});
