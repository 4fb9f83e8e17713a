import { describe, expect, it } from 'vitest';
import { HandlerError, Kvm, type Vcpu, type Vm } from '../../../lib/index.ts';
import { type GuestOp, halt, input, load, out, store } from '../../../lib/raw.ts';
import { UNIT } from './backends.ts';

const FIRST_FD = 0x10_0000;
const MMIO = 0x1000_0000;
const ZONE = 0x2000_0000;
const FLASH = 4 * UNIT;

/** Everything that calls back, and everything that can be done from there. */
function machine(inside: () => void) {
  const kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  const vm = kvm.createVm();
  const ram = kvm.mapAnonymous(UNIT);
  const flash = kvm.mapAnonymous(UNIT);
  const region = vm.memory.addRam(0, ram);
  const shown = vm.memory.addRam(FLASH, flash, { readOnly: true, onStore: inside });
  const handlers = {
    read: () => {
      inside();
      return 1;
    },
    write: inside,
  };
  const device = vm.memory.addMmio(MMIO, 0x1000, handlers);
  const ports = vm.io.ports.add(0x3f8, 8, handlers);
  vm.memory.addMmio(ZONE, 0x1000, { write: inside });
  const vcpu = vm.createVcpu();
  const zone = vm.io.registerCoalescedMmio(ZONE, 0x1000);
  const binding = vm.memory.bind();
  const eventfd = kvm.createEventFd();
  return { kvm, vm, vcpu, ram, flash, region, shown, device, ports, zone, binding, eventfd };
}
type Machine = ReturnType<typeof machine>;

function closeAll({ kvm, vm, ram, flash, binding, eventfd }: Machine): void {
  binding.release();
  for (const open of [eventfd, vm, ram, flash, kvm]) open.close();
}

const ACTIONS: Readonly<Record<string, (all: Machine) => unknown>> = {
  'closes the vCPU': ({ vcpu }) => vcpu.close(),
  'closes the vCPU and makes it anew': ({ vcpu, vm }) => {
    vcpu.close();
    return vm.createVcpu(0);
  },
  'closes the VM': ({ vm }) => vm.close(),
  'closes the memory': ({ ram, flash }) => [ram, flash].map((mapping) => mapping.close()),
  'closes the kernel': ({ kvm }) => kvm.close(),
  'closes everything': closeAll,
  'removes the regions': ({ vm, region, shown, device, ports }) => {
    vm.memory.remove(region);
    vm.memory.remove(shown);
    device.remove();
    ports.remove();
  },
  'takes the zone back': ({ zone }) => zone.close(),
  'moves what is accessed': ({ device, shown, vm }) => {
    device.move(MMIO + 0x1000);
    vm.memory.move(shown, 8 * UNIT);
  },
  "takes guests' stores for RAM's": ({ shown }) => shown.setReadOnly(false),
  'runs the vCPU': ({ vcpu }) => vcpu.runSync(),
  'kicks the vCPU': ({ vcpu }) => vcpu.kick(),
  'releases the binding': ({ binding }) => binding.release(),
  'changes memory and takes it back': ({ vm, region }) =>
    vm.memory.change(() => {
      vm.memory.remove(region);
      throw new Error('taken back');
    }),
  'closes the VM in a change': ({ vm }) => vm.memory.change(() => vm.close()),
};

const ACCESSES: Readonly<Record<string, readonly GuestOp[]>> = {
  'a load from MMIO': [load(MMIO, 4)],
  'a store to MMIO': [store(MMIO, 4, 1n)],
  'a load from a port': [input(0x3f8, 1)],
  'stores to ports': [out(0x3f8, 1, 1n), out(0x3f9, 1, 2n)],
  'a store to read-only memory': [store(FLASH + 8, 4, 1n)],
  'stores that are coalesced': [store(ZONE, 4, 1n), store(ZONE + 4, 4, 2n), store(ZONE + 8, 4, 3n)],
};

/** An error with a code: of the kernel's, or of a handler that got one. */
function expectTold(error: unknown): void {
  const { code, cause } = error as { code?: unknown; cause?: unknown };
  if (error instanceof HandlerError) {
    if (!(cause instanceof Error && cause.message === 'taken back')) expectTold(cause);
  } else expect([typeof code, error]).toEqual(['string', expect.any(Error)]);
}

describe.each(Object.entries(ACCESSES))('%s, whose handler', (_access, ops) => {
  it.each(Object.entries(ACTIONS))('%s, leaves nothing broken and nothing behind', async (_action, act) => {
    for (const run of [(vcpu: Vcpu) => vcpu.runSync({ timeoutMs: 1000 }), (vcpu: Vcpu) => vcpu.run()]) {
      let calls = 0;
      const all = machine(() => {
        // Those of the others, and of whoever runs it anew, do nothing.
        if (calls++ === 0) act(all);
      });
      all.kvm.emulated?.loadGuest(
        all.vcpu.fd,
        (function* () {
          yield* ops;
          yield halt;
        })(),
      );
      try {
        expect((await run(all.vcpu)).reason).toMatch(/HLT|MMIO|IO|INTR/);
      } catch (error) {
        expectTold(error);
      }
      expect(calls).toBeGreaterThan(0);
      expectWorking(all.vm);
      closeAll(all);
      const calls_ = all.kvm.calls;
      expect([all.ram.pins, all.flash.pins, calls_.eventfd(0)]).toEqual([0, 0, FIRST_FD]);
    }
  });
});

function expectWorking(vm: Vm): void {
  if (vm.closed || vm.memory.find(0) === undefined) return;
  vm.memory.writeU32(64, 0x1234_5678);
  expect(vm.memory.readU32(64)).toBe(0x1234_5678);
}

describe('what is told of changes, and', () => {
  it.each(Object.entries(ACTIONS))('%s, leaves nothing broken and nothing behind', (_action, act) => {
    let heard = 0;
    const all = machine(() => {});
    const vmap = all.binding.vmap(0, 64, {
      write: true,
      onRevoke: () => {
        if (heard++ === 0) attempt();
      },
    });
    const attempt = (): void => {
      try {
        act(all);
      } catch (error) {
        if ((error as Error).message !== 'taken back') expectTold(error);
      }
    };
    const changes = all.vm.memory.onChange(() => {
      if (heard++ === 0) attempt();
    });
    try {
      all.vm.memory.move(all.region, 2 * UNIT);
    } catch (error) {
      expectTold(error);
    }
    expect(heard).toBeGreaterThan(0);
    expect(vmap.active).toBe(false);
    changes[Symbol.dispose]();
    closeAll(all);
    expect([all.ram.pins, all.flash.pins, all.kvm.calls.eventfd(0)]).toEqual([0, 0, FIRST_FD]);
  });
});
