import { ftruncateSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  AddressSpace,
  type Binding,
  type ConsumerEvent,
  Descriptor,
  Mapping,
  UnixConnection,
} from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { UNIT } from '../handles/backends.ts';
import { collector } from './collector.ts';
import { hostCalls, openDescriptors } from './host.ts';

const PAGE = 4096;
/** On a machine that is busy. */
const PATIENT = { timeout: 15_000 };

let calls: KvmCalls;
let before: number;
let space: AddressSpace;

beforeEach((test) => {
  calls = hostCalls(test);
  before = openDescriptors();
  space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
});
afterEach(async () => {
  space.close();
  for (const { mapping } of space.memoryRegions) mapping.close();
  // Ends of connections are closed a turn later.
  for (let i = 0; i < 100 && openDescriptors() !== before; i++) await new Promise((resolve) => setTimeout(resolve, 10));
  expect(openDescriptors()).toBe(before);
});

function addRam(gpa: number, options: { size?: number; name?: string } = {}) {
  const ram = Mapping.memfd(calls, options.size ?? UNIT);
  try {
    return space.addRam(gpa, ram, options);
  } finally {
    ram.close();
  }
}

async function attachOver(name: string, options = {}) {
  const [ours, theirs] = UnixConnection.pair(calls);
  space.accept(ours);
  return AddressSpace.attach(calls, theirs, { name, ...options });
}

describe('who hears that a view was revoked', () => {
  const attach = (options = {}) => AddressSpace.attach(calls, space.descriptors, options);

  it('hears it once, where it was only found out by the release of the binding', async () => {
    const low = addRam(0);
    space.share();
    using binding = await attach();
    const reasons: string[] = [];
    const vmap = binding.vmap(0, 64, { write: true, onRevoke: ({ reason }) => reasons.push(reason) });
    low.remove();
    binding.release();
    expect(reasons).toEqual(['removed']);
    expect(vmap.revocation).toMatchObject({ reason: 'removed' });
  });

  it('may release the binding, while that is released or takes over changes', async () => {
    const low = addRam(0);
    addRam(UNIT);
    space.share();
    const reasons: string[] = [];
    const bindings: Binding[] = [];
    for (let i = 0; i < 2; i++) {
      const binding = await attach();
      for (const gpa of [0, UNIT]) {
        binding.vmap(gpa, 64, {
          write: true,
          onRevoke: ({ reason }) => {
            reasons.push(reason);
            binding.release();
          },
        });
      }
      bindings.push(binding);
    }
    bindings[0]!.release();
    expect(reasons.splice(0)).toEqual(['released', 'released']);
    low.remove();
    expect(() => bindings[1]!.readU8(UNIT)).toThrow(expect.objectContaining({ code: 'EBADF' }));
    expect(reasons).toEqual(['removed', 'released']);
    expect(bindings.map(({ released, vmaps }) => [released, vmaps])).toEqual([
      [true, []],
      [true, []],
    ]);
    expect(space.consumers).toEqual([]);
  });

  it('gets no other view of a binding that is being released', async () => {
    addRam(0);
    space.share();
    for (const binding of [space.bind(), await attach()]) {
      let refusal: unknown;
      const another = () => {
        try {
          binding.vmap(0, 64);
        } catch (error) {
          refusal = error;
        }
      };
      binding.vmap(0, 64, { onRevoke: another });
      binding.release();
      expect(refusal).toMatchObject({ code: 'EBADF', syscall: 'vmap' });
      expect(binding.vmaps).toEqual([]);
    }
  });

  it('may let go before it is known where what was just written is now: then every page is dirty', async () => {
    const low = addRam(0);
    const events: ConsumerEvent[] = [];
    space.share({ onConsumer: (event) => events.push(event) });
    using vm = collector(space);
    let armed = false;
    const binding = await attach({ onChange: () => armed && binding.release() });
    vm.pages();
    binding.slice(0, 8)[0] = 7;
    low.move(2 * UNIT);
    armed = true;
    binding.markDirty(0, 8);
    expect(binding.released).toBe(true);
    expect(space.consumers).toEqual([]);
    expect(vm.pages()).toContain((2 * UNIT) / PAGE);
    await Promise.resolve();
    expect(events).toMatchObject([{ kind: 'died', allDirty: true }]);
  });

  it('does not get a view of a region that goes while its other pieces are looked for', async () => {
    const low = addRam(0);
    addRam(UNIT);
    space.share();
    const binding = await attach({ onChange: (generation: number) => generation === 3 && low.remove() });
    addRam(8 * UNIT);
    expect(() => binding.vmap(UNIT - 4, 8)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
    expect(binding.vmaps).toEqual([]);
    expect(binding.generation).toBe(4);
    binding.release();
  });
});

describe('a binding over descriptors', () => {
  it('sees the regions and their memory, and what it writes is dirty', async () => {
    const region = addRam(0, { name: 'low' });
    addRam(4 * UNIT);
    space.share();
    using vm = collector(space);
    using binding = await AddressSpace.attach(calls, space.descriptors, { name: 'disk' });
    expect(binding.regions.map(String)).toEqual(space.memoryRegions.map(String));
    expect(space.consumers).toEqual([{ name: 'disk', pid: process.pid }]);
    space.writeU32(0x1234, 0xcafe);
    expect(binding.readU32(0x1234)).toBe(0xcafe);
    vm.pages();
    binding.copyTo(4 * UNIT - 2 + 2, Uint8Array.of(1, 2));
    binding.writeU8(3 * PAGE, 9);
    binding.atomicStore(9 * PAGE, 4, 1);
    using vmap = binding.vmap(5 * PAGE, 2 * PAGE, { write: true });
    vmap.pieces[0]![0] = 3;
    expect(vm.pages()).toEqual([3, 9, (4 * UNIT) / PAGE]);
    vmap.flush();
    expect(vm.pages()).toEqual([5, 6]);
    expect(space.readU8(5 * PAGE)).toBe(3);
    expect(binding.translate(5)).toMatchObject({ offset: 5, available: UNIT - 5 });
    expect(region.name).toBe('low');
  });

  it('follows changes at the next access, and lets go what has gone', async () => {
    const low = addRam(0);
    space.share();
    using vm = collector(space);
    using binding = await AddressSpace.attach(calls, space.descriptors);
    const vmap = binding.vmap(PAGE, 4, { write: true });
    const { bytes } = vmap;
    bytes[0] = 0x55;
    low.move(2 * UNIT);
    expect(() => binding.readU8(PAGE)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
    expect(vmap.revocation).toMatchObject({ reason: 'moved', generation: 2 });
    expect(bytes.length).toBe(0);
    expect(binding.readU8(2 * UNIT + PAGE)).toBe(0x55);
    expect(vm.pages()).toEqual([(2 * UNIT) / PAGE + 1]);
    const later = binding.vmap(2 * UNIT, 4);
    low.remove();
    await space.settled();
    expect(later.revocation).toMatchObject({ reason: 'removed', generation: 3 });
    // In the owner's own process its descriptors are known by the table.
    addRam(0);
    expect(binding.readU8(0)).toBe(0);
  });

  it('is told of each change once, also when its memory comes before the table tells of it', async () => {
    addRam(0);
    space.share();
    const [ours, theirs] = UnixConnection.pair(calls);
    space.accept(ours);
    const told: number[] = [];
    using binding = await AddressSpace.attach(calls, theirs, { onChange: (generation) => told.push(generation) });
    expect(told).toEqual([1]);
    // As the owner does first when a region is added.
    const ram = Mapping.memfd(calls, UNIT);
    await ours.send(new Uint8Array(8), [ram.fd]);
    await new Promise((resolve) => setTimeout(resolve, 60));
    space.addRam(UNIT, ram);
    ram.close();
    expect(binding.readU8(UNIT)).toBe(0);
    expect(told).toEqual([1, 2]);
  });

  it('a write that meets a move is dirty where the memory is then', async () => {
    const region = addRam(0);
    space.share();
    using vm = collector(space);
    using binding = await AddressSpace.attach(calls, space.descriptors);
    // The consumer has not looked since: it writes where the region was, and finds out when it has marked that.
    const generation = Atomics.load;
    let moved = false;
    Atomics.load = ((array: Int32Array, index: number) => {
      const value = generation(array, index);
      if (!moved && array.length === 1) {
        moved = true;
        region.move(8 * UNIT);
      }
      return value;
    }) as typeof Atomics.load;
    try {
      binding.writeU8(7, 0x77);
    } finally {
      Atomics.load = generation;
    }
    expect(moved).toBe(true);
    expect(space.readU8(8 * UNIT + 7)).toBe(0x77);
    expect(vm.pages()).toEqual([(8 * UNIT) / PAGE]);
  });

  it('memory that is no memfd is there for its owner alone', async () => {
    addRam(0);
    const rom = Mapping.anonymous(calls, UNIT);
    space.addRam(UNIT, rom, { name: 'rom' });
    rom.close();
    space.share();
    using binding = await AddressSpace.attach(calls, space.descriptors);
    expect(() => binding.readU8(UNIT)).toThrow(
      expect.objectContaining({ code: 'EFAULT', message: expect.stringContaining('no memfd') }),
    );
    expect(() => binding.vmap(UNIT, 1)).toThrow(expect.objectContaining({ code: 'EACCES' }));
    expect(binding.readU8(UNIT - 1)).toBe(0);
  });
});

describe('a binding over a connection', () => {
  it('gets memory that is added later, before it hears of the region', async () => {
    addRam(0);
    space.share();
    const heard: number[] = [];
    using binding = await attachOver('net', { onChange: (generation: number) => heard.push(generation) });
    expect(space.consumers.map(({ name }) => name)).toEqual(['net']);
    const region = addRam(UNIT);
    binding.writeU8(UNIT + 1, 5);
    expect(space.readU8(UNIT + 1)).toBe(5);
    region.remove();
    await space.settled();
    expect(heard).toEqual([1, 2, 3]);
    expect(binding.regions.length).toBe(1);
  });

  it('that is released is told', async () => {
    const region = addRam(0);
    const events: ConsumerEvent[] = [];
    space.share({ patienceMs: 100, onConsumer: (event) => events.push(event) });
    const binding = await attachOver('sleepy');
    // Claims a place, and then does nothing.
    const table = new Descriptor(calls, calls.sharing!.reopen(space.fd));
    calls.sharing!.lockRange(table.fd, 4096 + 64, 64);
    expect(space.consumers.map(({ name }) => name)).toEqual(['sleepy']);
    binding.release();
    await expect
      .poll(() => events, PATIENT)
      .toEqual([{ kind: 'left', consumer: { name: 'sleepy', pid: process.pid } }]);
    table.close();
    region.remove();
    await space.settled();
    expect(space.consumers).toEqual([]);
  });
});

describe('sharing is refused', () => {
  it('for what does not fit the table, and the change is made nowhere', () => {
    addRam(0);
    space.share({ regions: 1, end: 2 ** 31 });
    const tooBig = expect.objectContaining({ code: 'E2BIG' });
    expect(() => addRam(UNIT)).toThrow(tooBig);
    expect(() => space.memoryRegions[0]!.move(2 ** 31)).toThrow(tooBig);
    expect(space.generation).toBe(1);
  });

  it('to what is no table, with the reason', async () => {
    const bad = (message: string) =>
      expect.objectContaining({ code: 'EPROTO', message: expect.stringContaining(message) });
    addRam(0);
    space.share();
    await expect(AddressSpace.attach(calls, [space.descriptors[1]!])).rejects.toThrow(bad('KVMBSPC1'));
    await expect(AddressSpace.attach(calls, [0])).rejects.toThrow(bad('no memfd'));
    await expect(AddressSpace.attach(calls, [])).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }),
    );
    await expect(AddressSpace.attach(calls, [9999])).rejects.toThrow(expect.objectContaining({ code: 'EBADF' }));
    const { token } = space;
    await expect(AddressSpace.attach(calls, { ...token, pid: 1 })).rejects.toThrow(
      expect.objectContaining({ code: 'ESTALE', message: expect.stringContaining('process 1') }),
    );
    await expect(AddressSpace.attach(calls, { ...token, inode: 1n })).rejects.toThrow(
      expect.objectContaining({ code: 'ESTALE' }),
    );
    await expect(AddressSpace.attach(calls, { ...token, fd: -1 })).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }),
    );
  });

  it('the memory and the table can neither grow nor shrink', () => {
    addRam(0);
    space.share();
    for (const fd of space.descriptors) {
      expect(() => ftruncateSync(fd, 0)).toThrow('EPERM');
      expect(() => ftruncateSync(fd, 2 ** 32)).toThrow('EPERM');
      expect(calls.sharing!.addSeals(fd, 8)).toBe(-1);
    }
  });
});
