import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HandlerError, Kvm, type Mapping, type MmioHandlers, type Vcpu, type Vm } from '../../../lib/index.ts';
import { type GuestProgram, halt, load, store } from '../../../lib/raw.ts';
import { UNIT } from './backends.ts';

const DEVICE = 0x2000_0000;

let kvm: Kvm;
let vm: Vm;
let ram: Mapping;
let vcpu: Vcpu;

beforeEach(() => {
  kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  vm = kvm.createVm();
  ram = kvm.mapAnonymous(UNIT);
  vm.memory.addRam(0, ram);
  vcpu = vm.createVcpu();
});
afterEach(() => {
  vm.close();
  kvm.close();
});

/** A guest that loads from a device, stores what it got to address 8, and stores it to the device. */
function runWith(handlers: object): void {
  const region = vm.memory.addMmio(DEVICE, 0x10, handlers as MmioHandlers, { name: 'uart' });
  const guest = (function* (): GuestProgram {
    const value = yield load(DEVICE + 4, 4);
    yield store(8, 4, value as bigint);
    yield store(DEVICE + 4, 4, 1n);
    yield halt;
  })();
  kvm.emulated?.loadGuest(vcpu.fd, guest);
  try {
    expect(vcpu.runSync()).toEqual({ reason: 'HLT' });
  } finally {
    region.remove();
  }
}

describe('a handler of MMIO', () => {
  it.each([
    ['undefined', undefined],
    ['a promise', Promise.resolve(1)],
    ['NaN', Number.NaN],
    ['1.5', 1.5],
    ['a string', '1'],
    ['null', null],
  ])('that gives %s is named with its region', (_, value) => {
    expect(() => runWith({ read: () => value, write: () => {} })).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_RETURN_VALUE',
        message: expect.stringMatching(
          /^Expected an integer .* returned from the read handler of mmio 'uart' \[0x20000000, 0x20000010\), for 4 bytes at offset 0x4, but got/,
        ),
      }),
    );
    expect(vcpu.running).toBe(false);
  });

  it.each(['read', 'write'])('that throws in %s is named with its region, and is the cause', (which) => {
    const cause = new Error('no such register');
    const handlers = {
      read: () => 1,
      write: () => {},
      [which]: () => {
        throw cause;
      },
    };
    let thrown: unknown;
    try {
      runWith(handlers);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(HandlerError);
    expect(thrown).toMatchObject({ code: 'ERR_HANDLER', cause, region: { name: 'uart' } });
    expect((thrown as Error).message).toMatch(new RegExp(`^The ${which} handler of mmio 'uart' .*no such register$`));
    expect(vcpu.running).toBe(false);
  });
});

describe('what a caller does in the middle', () => {
  it('regions are those that there were when the first was asked for', () => {
    for (let i = 1; i < 4; i++) vm.memory.addMmio(DEVICE + 0x100 * i, 8, {}, { name: `d${i}` });
    const seen: (string | undefined)[] = [];
    for (const region of vm.memory.regions()) {
      seen.push(region.name);
      region.remove();
    }
    expect(seen).toEqual([undefined, 'd1', 'd2', 'd3']);
    expect([...vm.memory.regions()]).toEqual([]);
  });

  it('memslots likewise', () => {
    for (let i = 1; i < 4; i++) vm.memory.addRam(i * UNIT, kvm.mapAnonymous(UNIT));
    const seen: number[] = [];
    for (const slot of vm.memslots) {
      seen.push(slot.id);
      vm.memory.addRam((10 + slot.id) * UNIT, kvm.mapAnonymous(UNIT));
    }
    expect(seen).toEqual([0, 1, 2, 3]);
    expect(vm.memslots.size).toBe(8);
  });

  it('a gather within a getter of a gather', () => {
    for (let i = 0; i < 8; i++) vm.memory.writeU8(0x100 * i, i + 1);
    const inner = new Uint8Array(2);
    const gpas = [0, 0x100, 0x200, 0x300];
    Object.defineProperty(gpas, 2, {
      get: () => {
        vm.memory.gather([0x600, 0x700], 1, inner);
        return 0x200;
      },
    });
    const outer = new Uint8Array(4);
    vm.memory.gather(gpas, 1, outer);
    expect([...outer]).toEqual([1, 2, 3, 4]);
    expect([...inner]).toEqual([7, 8]);
  });

  it('a gather that a getter ends moves nothing later', () => {
    const into = new Uint8Array(2);
    vm.memory.writeU8(0, 0x11);
    const gpas = Object.defineProperty([0, 0], 1, {
      get: () => {
        throw new Error('enough');
      },
    });
    expect(() => vm.memory.gather(gpas, 1, into)).toThrow('enough');
    vm.memory.gather([0], 1, new Uint8Array(1));
    expect([...into]).toEqual([0, 0]);
  });

  it('pages are not collected while they are gone through; regions may go', () => {
    const other = vm.memory.addRam(UNIT, kvm.mapAnonymous(UNIT));
    const dirty = vm.dirtyPages.start();
    vm.memory.writeU8(0, 1);
    vm.memory.writeU8(UNIT, 1);
    dirty.collect();
    const seen: number[] = [];
    dirty.forEachPage((gfn) => {
      seen.push(gfn);
      expect(() => dirty.collect()).toThrow(expect.objectContaining({ code: 'EBUSY' }));
      if (gfn === 0) other.remove();
    });
    expect(seen).toEqual([0, UNIT / kvm.pageSize]);
    expect(dirty.collect().count).toBe(0);
  });

  it('a getter that closes the mapping leaves no memslot behind', () => {
    const mapping = kvm.mapAnonymous(UNIT);
    const options = {
      get size() {
        mapping.close();
        return UNIT;
      },
    };
    expect(() => vm.memory.addRam(UNIT, mapping, options)).toThrow(expect.objectContaining({ code: 'EBADF' }));
    expect([vm.memslots.size, mapping.pins]).toEqual([1, 0]);
    vm.memory.addRam(UNIT, kvm.mapAnonymous(UNIT));
  });
});
