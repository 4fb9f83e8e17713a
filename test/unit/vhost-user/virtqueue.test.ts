import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { AddressSpace } from '../../../lib/index.ts';
import {
  DeviceQueue,
  DriverQueue,
  layOut,
  type QueueLayout,
  type QueueOptions,
} from '../../../lib/vhost-user/index.ts';
import { DESC_FLAG } from '../../../lib/vhost-user/virtqueue/layout.ts';
import { GPA, guestMemory, RAM } from './memory.ts';

const BUFFER = GPA + 0x2_0000;

interface Descriptor {
  readonly gpa?: number | bigint;
  readonly length?: number;
  readonly flags?: number;
  readonly next?: number;
}

/** A queue with what a driver that follows no rules has put there. */
function madeUp(
  descriptors: readonly Descriptor[],
  { head = 0, avail = 1, size = 8, options = {} as QueueOptions } = {},
) {
  const memory = guestMemory();
  const layout = layOut(GPA, size);
  putDescriptors(memory, layout.desc, descriptors);
  memory.writeU16(layout.avail + 4, head, true);
  memory.writeU16(layout.avail + 2, avail, true);
  return { memory, layout, queue: new DeviceQueue(memory, layout, options) };
}

function putDescriptors(memory: AddressSpace, at: number, descriptors: readonly Descriptor[]): void {
  for (const [i, { gpa = BUFFER, length = 16, flags = 0, next = 0 }] of descriptors.entries()) {
    memory.writeU64(at + 16 * i, gpa, true);
    memory.writeU32(at + 16 * i + 8, length, true);
    memory.writeU16(at + 16 * i + 12, flags, true);
    memory.writeU16(at + 16 * i + 14, next, true);
  }
}

const { NEXT, WRITE, INDIRECT } = DESC_FLAG;
const indirect = { options: { indirect: true } };

describe('a device refuses', () => {
  it.each<[string, readonly Descriptor[], Parameters<typeof madeUp>[1], RegExp]>([
    ['a head beyond the queue', [], { head: 8 }, /head is 8, and the queue has 8/],
    ['a descriptor that is its own next', [{ flags: NEXT, next: 0 }], {}, /loop/],
    ['a loop of all', Array.from({ length: 8 }, (_, i) => ({ flags: NEXT, next: (i + 1) % 8 })), {}, /loop/],
    ['a next beyond the queue', [{ flags: NEXT, next: 8 }], {}, /next descriptor is 8, of 8/],
    ['an index that jumps', [{}], { avail: 9 }, /went from 0 to 9/],
    [
      'what is for reading behind what is for writing',
      [{ flags: WRITE | NEXT, next: 1 }, {}],
      {},
      /behind one for writing/,
    ],
    ['a descriptor without bytes', [{ length: 0 }], {}, /no bytes/],
    ['an address that is no number', [{ gpa: 2n ** 64n - 1n }], {}, /2\^53 or more/],
    [
      'more than 4 GiB',
      [{ length: 0xffff_ffff, flags: NEXT, next: 1 }, { length: 0xffff_ffff }],
      {},
      /more than 2\^32/,
    ],
    ['an indirect table that was not negotiated', [{ flags: INDIRECT }], {}, /not negotiated/],
    [
      'an indirect table that is the table of the queue, and so itself',
      [{ flags: INDIRECT, gpa: GPA, length: 16 }],
      indirect,
      /indirect itself/,
    ],
    ['an indirect table of half a descriptor', [{ flags: INDIRECT, length: 24 }], indirect, /24 bytes/],
    ['an indirect table of nothing', [{ flags: INDIRECT, length: 0 }], indirect, /0 bytes/],
    ['an indirect table of a gigabyte', [{ flags: INDIRECT, length: 2 ** 30 }], indirect, /which is not 1 to 1024/],
    ['an indirect table with a next', [{ flags: INDIRECT | NEXT }], indirect, /has a next/],
    ['an indirect table outside memory', [{ flags: INDIRECT, gpa: 0x1000 }], indirect, /EFAULT/],
    [
      'an indirect table at the end of memory',
      [{ flags: INDIRECT, gpa: GPA + RAM - 8, length: 16 }],
      indirect,
      /EFAULT/,
    ],
  ])('%s', (_what, descriptors, options, why) => {
    const { queue } = madeUp(descriptors, options);
    expect(() => queue.take()).toThrow(why);
    expect(queue.inFlight).toBe(0);
  });

  it.each([
    ['in an indirect table', INDIRECT, /indirect itself/],
    ['that go round in an indirect table', NEXT, /loop/],
  ])('tables %s', (_what, flags, why) => {
    const { memory, queue } = madeUp([{ flags: INDIRECT, length: 32 }], indirect);
    putDescriptors(memory, BUFFER, [
      { flags: NEXT, next: 1 },
      { flags, next: 0 },
    ]);
    expect(() => queue.take()).toThrow(why);
  });

  it('a chain that is in flight', () => {
    const { memory, layout, queue } = madeUp([{}], { avail: 2 });
    memory.writeU16(layout.avail + 6, 0, true);
    const chain = queue.take()!;
    expect(() => queue.take()).toThrow('chain 0 is made available while it is in flight');
    queue.complete(chain, 0);
    expect(() => queue.complete(chain, 0)).toThrow('chain 0 is not in flight');
    expect(queue.take()!.head).toBe(0);
  });

  it('chains that share descriptors: there would be more than memory has room for', () => {
    const shared = Array.from({ length: 7 }, (_, i) => ({ flags: i === 6 ? 0 : NEXT, next: i + 1 }));
    const { memory, layout, queue } = madeUp([...shared, { flags: NEXT, next: 0 }], { avail: 2 });
    memory.writeU16(layout.avail + 6, 7, true);
    expect(queue.take()!.readable.length).toBe(7);
    expect(() => queue.take()).toThrow('chains in flight share descriptors: they have 15 of 8');
  });
});

describe('a driver refuses', () => {
  function inUse() {
    const memory = guestMemory();
    const layout = layOut(GPA, 8);
    const queue = new DriverQueue<string>(memory, layout);
    queue.add([{ gpa: BUFFER, length: 16 }], [{ gpa: BUFFER, length: 512 }], 'first');
    queue.publish();
    const giveBack = (index: number, id: number, written: number): void => {
      memory.writeU32(layout.used + 4, id, true);
      memory.writeU32(layout.used + 8, written, true);
      memory.writeU16(layout.used + 2, index, true);
    };
    return { queue, giveBack };
  }

  it.each([
    ['a chain that is not in flight', 1, 5, 0, /gives back chain 5/],
    ['a chain beyond the queue', 1, 0xffff_ffff, 0, /gives back chain 4294967295/],
    ['more bytes than there was room for', 1, 0, 513, /513 bytes into chain 0, which has room for 512/],
    ['more chains than are in flight', 2, 0, 0, /gives back 2 chains, and 1 are in flight/],
    ['an index that goes back', 0xffff, 0, 0, /gives back 65535 chains/],
  ])('%s', (_what, index, id, written, why) => {
    const { queue, giveBack } = inUse();
    giveBack(index, id, written);
    expect(() => queue.take()).toThrow(why);
  });

  it('chains for which there is no room, and keeps what is there', () => {
    const { queue, giveBack } = inUse();
    const seven = Array.from({ length: 7 }, () => ({ gpa: BUFFER, length: 1 }));
    expect(() => queue.add(seven, [], 'too long')).toThrow('a chain of 7 descriptors; 6 of 8 are free');
    expect(() => queue.add([], [], 'empty')).toThrow(/EINVAL/);
    giveBack(1, 0, 512);
    expect(queue.take()).toEqual({ token: 'first', written: 512 });
    expect(queue.room).toBe(8);
  });
});

it('a layout that virtio does not allow is an error with the numbers', () => {
  const memory = guestMemory();
  const layout = layOut(GPA, 8);
  const make = (change: Partial<QueueLayout>) => () => new DeviceQueue(memory, { ...layout, ...change });
  expect(make({ size: 6 })).toThrow(/"size".*power of two.*Received 6/);
  expect(make({ size: 65536 })).toThrow(/"size"/);
  expect(make({ desc: GPA + 8 })).toThrow(/"desc".*multiple of 16/);
  expect(make({ avail: GPA + 1 })).toThrow(/"avail".*multiple of 2/);
  expect(make({ used: GPA + 2 })).toThrow(/"used".*multiple of 4/);
  expect(make({ used: 0x1000 })).toThrow(/EFAULT/);
});

describe.each(['x86_64', 's390x'] as const)('a driver and a device on %s', (arch) => {
  it('move every byte once, in any order, and tell each other whenever they must', () => {
    const steps = fc.array(
      fc.oneof(
        fc.record({ add: fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 3 })) }),
        fc.record({ serve: fc.nat({ max: 6 }) }),
        fc.record({ finish: fc.nat() }),
        fc.constant({ collect: true }),
      ),
      { minLength: 1, maxLength: 200 },
    );
    fc.assert(
      fc.property(steps, fc.boolean(), (all, eventIdx) => {
        const model = new Model(guestMemory(arch), eventIdx);
        for (const step of all) model.do(step);
        model.finishAll();
      }),
      { numRuns: 60 },
    );
  });
});

type Step =
  | { readonly add: readonly [number, number] }
  | { readonly serve: number }
  | { readonly finish: number }
  | { readonly collect: boolean };

/** Both ends on one queue, each of which works only when it was told that there is something to do. */
class Model {
  readonly #memory: AddressSpace;
  readonly #driver: DriverQueue<number>;
  readonly #device: DeviceQueue;
  readonly #taken: NonNullable<ReturnType<DeviceQueue['take']>>[] = [];
  readonly #expected = new Map<number, { readonly written: number }>();
  #next = 1;
  #kicked = false;
  #called = false;

  constructor(memory: AddressSpace, eventIdx: boolean) {
    const layout = layOut(GPA, 8);
    this.#memory = memory;
    this.#driver = new DriverQueue(memory, layout, { eventIdx });
    this.#device = new DeviceQueue(memory, layout, { eventIdx });
    this.#device.setKicks(true);
  }

  do(step: Step): void {
    if ('add' in step) this.#add(...step.add);
    else if ('serve' in step) this.#serve(step.serve);
    else if ('finish' in step) this.#finish(step.finish);
    else this.#collect();
  }

  finishAll(): void {
    while (this.#expected.size > 0) {
      this.#serve(100);
      while (this.#taken.length > 0) this.#finish(0);
      const before = this.#expected.size;
      this.#collect();
      // Nobody told the other: they would wait for ever.
      expect(this.#expected.size).toBeLessThan(before);
    }
    expect(this.#driver.room).toBe(8);
  }

  #add(readable: number, writable: number): void {
    if (readable + writable === 0 || readable + writable > this.#driver.room) return;
    const token = this.#next++;
    const at = BUFFER + 64 * (token % 1024);
    this.#memory.fill(at, 64, 0);
    this.#memory.writeU32(at, token, true);
    const piece = (i: number) => ({ gpa: at + 4 * i, length: 4 });
    const all = Array.from({ length: readable + writable }, (_, i) => piece(i));
    this.#driver.add(all.slice(0, readable), all.slice(readable), token);
    this.#expected.set(token, { written: 4 * writable });
    if (this.#driver.publish()) this.#kicked = true;
  }

  #serve(count: number): void {
    if (!this.#kicked) return;
    this.#device.setKicks(false);
    for (let i = 0; i < count; i++) {
      const chain = this.#device.take();
      if (chain === undefined) break;
      this.#taken.push(chain);
    }
    this.#device.setKicks(true);
    this.#kicked = this.#device.hasMore;
  }

  #finish(which: number): void {
    if (this.#taken.length === 0) return;
    const [chain] = this.#taken.splice(which % this.#taken.length, 1);
    const bytes = new Uint8Array(chain!.writableLength).fill(0xa5);
    expect(chain!.write(0, bytes)).toBe(bytes.length);
    if (chain!.readableLength > 0) {
      const token = new Uint8Array(4);
      chain!.read(0, token);
      expect(this.#expected.has(new DataView(token.buffer).getUint32(0, true))).toBe(true);
    }
    this.#device.complete(chain!, bytes.length);
    if (this.#device.needsCall()) this.#called = true;
  }

  #collect(): void {
    if (!this.#called) return;
    this.#called = false;
    for (;;) {
      const used = this.#driver.take();
      if (used === undefined) return;
      expect(this.#expected.get(used.token)).toEqual({ written: used.written });
      this.#expected.delete(used.token);
    }
  }
}
