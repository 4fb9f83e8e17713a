import { afterEach, describe, expect, it } from 'vitest';
import { x86_64Architecture } from '../../../lib/arch/x86_64/emulated/architecture.ts';
import { EmulatedKernel } from '../../../lib/backends/emulated.ts';
import { emulationOf } from '../../../lib/backends/emulation.ts';
import { loadNative } from '../../../lib/backends/native.ts';
import type { KvmCalls } from '../../../lib/calls/kvm-calls.ts';
import { IoBus } from '../../../lib/emulated/io-bus.ts';
import type { Machine } from '../../../lib/emulated/machine.ts';
import { EmulatedEventfd } from '../../../lib/emulated/open-file.ts';
import { ERRNO } from '../../../lib/uapi/errno.ts';
import { IOEVENTFD } from '../../../lib/uapi/flags.ts';
import { parseRelease } from '../../../lib/uapi/release.ts';
import { whyNoKvm } from '../../scenarios/real-host.ts';

// Limits that take so many calls to reach that a recording of them would say nothing to a reader.

const loaded = loadNative();
const missing = whyNoKvm(loaded);
const real = missing === undefined && 'calls' in loaded && loaded.calls.arch === 'x86_64' ? loaded.calls : undefined;
const kernels: [string, KvmCalls][] = [
  ['the emulated kernel', new EmulatedKernel(real === undefined ? { arch: 'x86_64' } : emulationOf(real))],
];
if (real !== undefined) kernels.push(['the real kernel', real]);

if (real === undefined) it('the real kernel', (test) => test.skip(missing ?? 'this is about x86_64'));

describe.each(kernels)('limits of the buses on %s', (_name, calls) => {
  const fds: number[] = [];
  const opened = (fd: number): number => {
    fds.push(fd);
    return fd;
  };
  afterEach(() => {
    for (const fd of fds.splice(0).reverse()) calls.close(fd);
  });
  const newVm = (): number => opened(calls.createVm(opened(calls.openKvm()), 0));

  it('takes a thousand coalesced zones on each bus, and then no ioeventfd either', () => {
    const vm = newVm();
    const eventfd = opened(calls.eventfd(0));
    // Of ioeventfds there may be any number.
    for (const at of [0x10, 0x20]) expect(calls.ioeventfd(vm, at, 4, eventfd, 0, 0)).toBe(0);
    const zones = Array.from({ length: 1001 }, (_, i) => calls.registerCoalescedMmio(vm, 0x1000 * (i + 1), 0x100, 0));
    expect(zones.slice(0, 1000).every((result) => result === 0)).toBe(true);
    expect(zones[1000]).toBe(-ERRNO.ENOSPC);
    expect(calls.ioeventfd(vm, 0x8, 4, eventfd, 0, 0)).toBe(-ERRNO.ENOSPC);
    expect(calls.registerCoalescedMmio(vm, 0x10, 0x10, 1)).toBe(0);
    expect(calls.ioeventfd(vm, 0x8, 4, eventfd, IOEVENTFD.PIO, 0)).toBe(0);
  });

  it('makes an interrupt controller only before the vCPUs', () => {
    const vm = newVm();
    opened(calls.createVcpu(vm, 0));
    expect(calls.createIrqchip(vm)).toBe(-ERRNO.EINVAL);
  });
});

describe('a bus', () => {
  const PAGE = 4096;
  const { DATAMATCH, PIO, VIRTIO_CCW_NOTIFY } = IOEVENTFD;
  const busOf = (release = '6.12', facts: Partial<Machine> = {}): IoBus =>
    new IoBus({ ...x86_64Architecture(parseRelease(release)).machine, ...facts });
  const event = (): EmulatedEventfd => new EmulatedEventfd(0, true);
  const AT = 0xd000_0000n;

  // struct kvm_coalesced_mmio_ring: first, last, and entries of an address, a length, whether it is a port, and eight bytes.
  it('puts stores to a zone into the ring, one after the other, until but one of its 170 entries is taken', () => {
    const bus = busOf();
    expect(bus.registerCoalesced(AT, 0x100, 0)).toBe(0);
    expect(bus.registerCoalesced(0x3f8n, 8, 1)).toBe(0);
    const { view } = bus.ring!.area;
    expect([bus.write(AT + 4n, Uint8Array.of(1, 2), false), bus.write(0x3f9n, Uint8Array.of(3), true)]).toEqual([
      true,
      true,
    ]);
    const entry = (index: number): unknown[] => {
      const at = 8 + 24 * index;
      const data = [...new Uint8Array(view.buffer, at + 16, 2)];
      return [view.getBigUint64(at, true), view.getUint32(at + 8, true), view.getUint32(at + 12, true), ...data];
    };
    expect([view.getUint32(0, true), view.getUint32(4, true), entry(0), entry(1)]).toEqual([
      0,
      2,
      [AT + 4n, 2, 0, 1, 2],
      [0x3f9n, 1, 1, 3, 0],
    ]);
    // What isn't inside of a zone is none of it.
    for (const [at, size] of [
      [AT - 1n, 2],
      [AT + 0xffn, 2],
      [AT + 0x100n, 1],
    ] as const)
      expect(bus.write(at, new Uint8Array(size), false)).toBe(false);
    expect([bus.write(AT + 0xfen, new Uint8Array(2), false), bus.write(AT, Uint8Array.of(1), true)]).toEqual([
      true,
      false,
    ]);
    let taken = 3;
    while (bus.write(AT, Uint8Array.of(taken), false)) taken++;
    expect([taken, view.getUint32(4, true), entry(168)]).toEqual([169, 169, [AT, 1, 0, 168, 0]]);
    // The reader has taken two, and the next one is at the beginning.
    view.setUint32(0, 2, true);
    expect([bus.write(AT, Uint8Array.of(9), false), view.getUint32(4, true), entry(169)[3]]).toEqual([true, 0, 9]);
    expect([bus.write(AT, Uint8Array.of(8), false), bus.write(AT, Uint8Array.of(7), false), entry(0)[3]]).toEqual([
      true,
      false,
      8,
    ]);
    // An index that is none takes nothing.
    for (const last of [170, 0xffff_ffff]) {
      view.setUint32(4, last, true);
      expect(bus.write(AT, Uint8Array.of(1), false)).toBe(false);
    }
  });

  it('took half as many before 6.12, where the indexes began at 0', () => {
    const bus = busOf('6.11');
    bus.registerCoalesced(AT, 4, 0);
    let taken = 0;
    while (bus.write(AT, Uint8Array.of(1), false)) taken++;
    expect(taken).toBe(85);
    // With the reader ahead the count was right.
    bus.ring!.area.view.setUint32(0, 100, true);
    while (bus.write(AT, Uint8Array.of(1), false)) taken++;
    expect(taken).toBe(99);
  });

  it('forgets the zones that a whole range is inside of, and none else', () => {
    const bus = busOf();
    const takes = (at: bigint): boolean => bus.write(at, Uint8Array.of(1), false);
    bus.registerCoalesced(AT, 0x100, 0);
    bus.registerCoalesced(AT + 0x1000n, 0x100, 0);
    const doorbell = event();
    expect(bus.assign(doorbell, AT + 0x2000n, 4, 0, 0n)).toBe(0);
    for (const [at, size] of [
      [AT - 1n, 0x100],
      [AT, 0x101],
      [AT + 0x2000n, 4],
    ] as const)
      expect(bus.unregisterCoalesced(at, size, 0)).toBe(0);
    expect([takes(AT), takes(AT + 0x1000n)]).toEqual([true, true]);
    expect(bus.unregisterCoalesced(AT, 0x100, 1)).toBe(0);
    expect(takes(AT)).toBe(true);
    expect(bus.unregisterCoalesced(AT + 0x10n, 4, 0)).toBe(0);
    expect([takes(AT), takes(AT + 0x1000n)]).toEqual([false, true]);
    expect([bus.write(AT + 0x2000n, new Uint8Array(4), false), doorbell.count]).toEqual([true, 1n]);
    for (const call of [bus.registerCoalesced, bus.unregisterCoalesced])
      expect(call.call(bus, AT, 4, 2)).toBe(-ERRNO.EINVAL);
    const without = busOf('6.12', { coalescedMmioPage: 0 });
    for (const call of [without.registerCoalesced, without.unregisterCoalesced]) {
      expect(call.call(without, AT, 4, 0)).toBe(-ERRNO.ENOTTY);
    }
    expect(busOf().ring!.area.view.byteLength).toBe(PAGE);
  });

  it('signals the eventfd whose address, size and value a store has', () => {
    for (const littleEndian of [true, false]) {
      const bus = busOf('6.12', { littleEndian });
      const [any, sized, matched] = [event(), event(), event()];
      expect(bus.assign(any, AT, 0, 0, 0n)).toBe(0);
      expect(bus.assign(sized, AT + 0x10n, 2, 0, 0n)).toBe(0);
      expect(bus.assign(matched, AT + 0x20n, 4, DATAMATCH, 0x0102n)).toBe(0);
      const counts = (at: bigint, ...bytes: number[]): unknown => {
        const before = [any.count, sized.count, matched.count];
        const isTaken = bus.write(at, Uint8Array.from(bytes), false);
        return [isTaken, any.count - before[0]!, sized.count - before[1]!, matched.count - before[2]!].map(Number);
      };
      for (const size of [1, 4, 8]) expect(counts(AT, ...Array(size).fill(0))).toEqual([1, 1, 0, 0]);
      expect([counts(AT + 1n, 0), counts(AT + 0x10n, 1, 2), counts(AT + 0x10n, 1), counts(AT + 0x11n, 1)]).toEqual([
        [0, 0, 0, 0],
        [1, 0, 1, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
      ]);
      const [right, wrong] = [
        [2, 1, 0, 0],
        [0, 0, 1, 2],
      ];
      expect([counts(AT + 0x20n, ...right), counts(AT + 0x20n, ...wrong), counts(AT + 0x20n, 2, 1)]).toEqual([
        [Number(littleEndian), 0, 0, Number(littleEndian)],
        [Number(!littleEndian), 0, 0, Number(!littleEndian)],
        [0, 0, 0, 0],
      ]);
    }
  });

  it('has no two eventfds that one store could be for', () => {
    const collides = (
      [len, flags, match]: readonly [number, number, bigint],
      [otherLen, otherFlags, otherMatch]: readonly [number, number, bigint],
      at = AT,
    ): boolean => {
      const bus = busOf();
      expect(bus.assign(event(), AT, len, flags, match)).toBe(0);
      const result = bus.assign(event(), at, otherLen, otherFlags, otherMatch);
      expect([0, -ERRNO.EEXIST]).toContain(result);
      return result !== 0;
    };
    expect([
      collides([4, 0, 0n], [4, 0, 0n]),
      collides([4, 0, 0n], [2, 0, 0n]),
      collides([4, 0, 0n], [4, 0, 0n], AT + 4n),
    ]).toEqual([true, false, false]);
    expect([collides([0, 0, 0n], [4, 0, 0n]), collides([4, 0, 0n], [0, 0, 0n])]).toEqual([true, true]);
    const matched = [4, DATAMATCH, 5n] as const;
    expect([collides(matched, matched), collides(matched, [4, DATAMATCH, 6n]), collides(matched, [4, 0, 0n])]).toEqual([
      true,
      false,
      true,
    ]);
    expect([collides([4, 0, 0n], matched), collides([4, 0, 0n], [4, PIO, 0n])]).toEqual([true, false]);
    // A zone is no eventfd.
    const zoned = busOf();
    expect([zoned.registerCoalesced(AT, 4, 0), zoned.assign(event(), AT, 4, 0, 0n)]).toEqual([0, 0]);
    // Notifications of channel devices are on a bus of their own.
    expect(collides([4, 0, 0n], [4, VIRTIO_CCW_NOTIFY, 0n])).toBe(false);
    const bus = busOf();
    const doorbell = event();
    expect(bus.assign(doorbell, AT, 4, VIRTIO_CCW_NOTIFY, 0n)).toBe(0);
    expect([bus.write(AT, new Uint8Array(4), false), bus.deassign(doorbell, AT, 4, 0, 0n)]).toEqual([
      false,
      -ERRNO.ENOENT,
    ]);
    expect(bus.deassign(doorbell, AT, 4, VIRTIO_CCW_NOTIFY, 0n)).toBe(0);
  });

  it('lets an eventfd go by all that it came with', () => {
    const bus = busOf();
    const [mine, other] = [event(), event()];
    expect(bus.assign(mine, AT, 4, DATAMATCH, 5n)).toBe(0);
    expect([
      bus.deassign(other, AT, 4, DATAMATCH, 5n),
      bus.deassign(mine, AT + 4n, 4, DATAMATCH, 5n),
      bus.deassign(mine, AT, 2, DATAMATCH, 5n),
      bus.deassign(mine, AT, 4, DATAMATCH, 6n),
      bus.deassign(mine, AT, 4, 0, 5n),
      bus.deassign(mine, AT, 4, DATAMATCH | PIO, 5n),
    ]).toEqual(Array(6).fill(-ERRNO.ENOENT));
    expect([
      bus.deassign(-9, AT, 4, DATAMATCH, 5n),
      bus.assign(-9, AT, 4, 0, 0n),
      bus.assign(-9, AT, 3, 0, 0n),
    ]).toEqual([-9, -9, -ERRNO.EINVAL]);
    expect([bus.deassign(mine, AT, 4, DATAMATCH, 5n), bus.write(AT, Uint8Array.of(5, 0, 0, 0), false)]).toEqual([
      0,
      false,
    ]);
  });
});
