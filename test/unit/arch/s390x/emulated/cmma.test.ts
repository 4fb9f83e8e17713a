/** GET_CMMA_BITS in migration mode, after `kvm_s390_get_cmma` of Linux 6.12 and what 7.2 answered: which values one call gives. */

import { describe, expect, it } from 'vitest';
import { instruction, spin } from '../../../../../lib/emulated/guest.ts';
import { running } from './guest-machine.ts';
import { LOG, type Machine, MIB, REAL64 } from './machine.ts';

const [EFAULT, EINVAL] = [-14, -22];
const [MIGRATION, STOP, START] = [4, 0n, 1n];
const ALL = 2n ** 64n - 1n;
const FRAMES = 1024;
/** What ESSA makes of a frame, and what the others have. */
const [UNUSED, OTHERS] = [1, 3];
const SET_UNUSED = 2n;
/** No value. */
const REST = 0xee;

interface Answer {
  readonly result: number;
  readonly log: readonly number[];
  readonly values: readonly number[];
}

function get(machine: Machine, start: number, count: number, flags = 0): Answer {
  const log = BigUint64Array.of(BigInt(start), BigInt(count), 0xffffn);
  const values = new Uint8Array(count).fill(REST);
  const result = machine.s390x.getCmmaBits(machine.vm, log, flags, values);
  // Nothing is copied behind the values there are.
  expect(values.subarray(result === 0 ? Number(log[1]) : 0).every((value) => value === REST)).toBe(true);
  return { result, log: [...log].map(Number), values: [...values.subarray(0, Number(log[1]))] };
}

/** A machine in migration mode of whose 1024 frames these are dirty. `before` may add slots. */
function withDirty(release: string, frames: readonly number[], before?: (machine: Machine) => void): Machine {
  const machine = running(
    REAL64,
    function* () {
      for (const frame of frames) yield instruction('ESSA', SET_UNUSED, BigInt(frame * 4096));
      yield spin;
    },
    { release, cmma: true, flags: LOG },
  );
  before?.(machine);
  const { kernel, s390x, vm } = machine;
  expect(s390x.setCmmaBits(vm, 0, FRAMES, 0, ALL, new Uint8Array(FRAMES).fill(OTHERS))).toBe(0);
  expect(kernel.setDeviceAttr(vm, MIGRATION, START, null)).toBe(0);
  for (let left = 1; left > 0; ) left = get(machine, 0, 4096).log[2]!;
  kernel.run(machine.vcpu, 0);
  return machine;
}

/** Values where the frames of `dirty` are unused, and those between are as `between` says. */
const valuesOf = (start: number, count: number, dirty: readonly number[], between: number): number[] =>
  Array.from({ length: count }, (_, i) => (dirty.includes(start + i) ? UNUSED : between));

describe('6.12: a run goes on while the next dirty page is at most 16 behind the one that was taken', () => {
  it.each<[what: string, dirty: number[], ask: [number, number], log: [number, number, number]]>([
    ['one page, and the clean one that shows it is the last', [40], [0, 64], [40, 1, 0]],
    ['neighbours', [40, 41, 42], [0, 64], [40, 3, 0]],
    ['16 behind', [40, 56], [0, 64], [40, 17, 0]],
    ['17 behind', [40, 57], [0, 64], [40, 1, 1]],
    ['17 behind the second', [40, 41, 58], [0, 64], [40, 19, 0]],
    ['18 behind the second: the clean page behind it is given too', [40, 41, 59], [0, 64], [40, 3, 1]],
    ['no room for the next', [40, 50], [0, 10], [40, 1, 1]],
    ['room for exactly the next', [40, 50], [0, 11], [40, 11, 0]],
    ['from a dirty page on', [40, 50], [50, 64], [50, 1, 1]],
    ['from behind the last one: only the end of memory', [40], [41, 64], [1024, 0, 1]],
    ['from behind the end: the first', [40, 50], [1024, 64], [40, 11, 0]],
    ['the last page of memory', [1000, 1023], [1001, 64], [1023, 1, 1]],
    ['one page at a time', [40, 41], [0, 1], [40, 1, 1]],
    ['near the end of memory, which is no next one', [1010], [0, 64], [1010, 1, 0]],
  ])('%s', (_, dirty, [start, count], log) => {
    const machine = withDirty('6.12', dirty);
    const answer = get(machine, start, count);
    expect(answer).toEqual({ result: 0, log, values: valuesOf(log[0], log[1], dirty, OTHERS) });
  });
});

describe('7.0: a run ends with a dirty page, before a gap of more than 16, and clean pages are 0', () => {
  it.each<[what: string, dirty: number[], ask: [number, number], log: [number, number, number]]>([
    ['one page', [40], [0, 64], [40, 1, 0]],
    ['neighbours', [40, 41, 42], [0, 64], [40, 3, 0]],
    ['16 clean ones between', [40, 57], [0, 64], [40, 18, 0]],
    ['17 between', [40, 58], [0, 64], [40, 1, 1]],
    ['no room for the next', [40, 50], [0, 10], [40, 1, 1]],
    ['room for exactly the next', [40, 50], [0, 11], [40, 11, 0]],
    ['from a dirty page on, not back to those before', [40, 50], [50, 64], [50, 1, 1]],
    ['from a dirty page on, with another', [50, 51], [50, 64], [50, 2, 0]],
    ['from behind the last one: the first', [40, 50], [51, 64], [40, 11, 0]],
    ['from behind the end: the first', [40, 50], [4096, 64], [40, 11, 0]],
    ['the last page of memory', [1000, 1023], [1001, 64], [1023, 1, 1]],
  ])('%s', (_, dirty, [start, count], log) => {
    const machine = withDirty('7.0', dirty);
    const answer = get(machine, start, count);
    expect(answer).toEqual({ result: 0, log, values: valuesOf(log[0], log[1], dirty, 0) });
  });
});

describe.each(['6.12', '7.0'])('on %s', (release) => {
  it('nothing is left when all was taken, and what is asked for then is cleared', () => {
    const machine = withDirty(release, [40]);
    expect(get(machine, 0, 64).log).toEqual([40, 1, 0]);
    expect(get(machine, 7, 64)).toEqual({ result: 0, log: [0, 0, 0], values: [] });
  });

  it('PEEK takes nothing and tells how many are dirty, clean pages with their values', () => {
    const machine = withDirty(release, [40, 41]);
    const peek = { result: 0, log: [39, 4, 2], values: [OTHERS, UNUSED, UNUSED, OTHERS] };
    expect(get(machine, 39, 4, 1)).toEqual(peek);
    expect(get(machine, 39, 4, 1)).toEqual(peek);
    expect(get(machine, 1022, 4, 1).log).toEqual([1022, 2, 2]);
    expect(get(machine, 1024, 4, 1)).toEqual({ result: EFAULT, log: [1024, 4, 0xffff], values: Array(4).fill(REST) });
    expect(machine.kernel.setDeviceAttr(machine.vm, MIGRATION, STOP, null)).toBe(0);
    expect(get(machine, 39, 4, 1)).toEqual({ ...peek, log: [39, 4, 0] });
    expect(get(machine, 39, 4)).toMatchObject({ result: EINVAL });
  });

  it('a buffer that cannot be filled leaves the request as it is', () => {
    const machine = withDirty(release, [40, 41]);
    const log = BigUint64Array.of(39n, 4n, 5n);
    expect(machine.s390x.getCmmaBits(machine.vm, log, 1, null)).toBe(EFAULT);
    expect(machine.s390x.getCmmaBits(machine.vm, log, 1, new Uint8Array(3))).toBe(EFAULT);
    expect(machine.s390x.getCmmaBits(machine.vm, log, 0, null)).toBe(EFAULT);
    expect([...log]).toEqual([39n, 4n, 5n]);
  });

  it('the count’s upper half is not looked at, and of a larger buffer than KVM has the first part is filled', () => {
    const machine = withDirty(release, [40, 41, 90]);
    const log = BigUint64Array.of(0n, (1n << 32n) | 2n, 5n);
    expect(machine.s390x.getCmmaBits(machine.vm, log, 0, new Uint8Array(2))).toBe(0);
    expect([...log]).toEqual([40n, 2n, 1n]);
    // A count of none is asked for nothing, whatever is dirty.
    for (const count of [0n, 1n << 32n]) {
      const none = BigUint64Array.of(7n, count, 5n);
      for (const flags of [0, 1]) expect(machine.s390x.getCmmaBits(machine.vm, none, flags, new Uint8Array(2))).toBe(0);
      expect([...none]).toEqual([0n, 0n, 0n]);
    }
  });
});

describe('SET_CMMA_BITS', () => {
  const set = (machine: Machine, start: number, mask: bigint, ...values: number[]): number =>
    machine.s390x.setCmmaBits(machine.vm, start, values.length, 0, mask, Uint8Array.from(values));
  const values = (machine: Machine, start: number, count: number): readonly number[] =>
    get(machine, start, count, 1).values;

  it('6.12: changes the bits of the mask and leaves the others', () => {
    const machine = withDirty('6.12', []);
    expect(set(machine, 8, 0x4100_0000n, 0x40, 0, 0x42)).toBe(0);
    expect(values(machine, 7, 5)).toEqual([3, 0x42, 2, 0x42, 3]);
  });

  it('7.0: sets the whole value, of which the mask leaves its bits', () => {
    const machine = withDirty('7.0', []);
    expect(set(machine, 8, 0x4100_0000n, 0x40, 0, 0x43)).toBe(0);
    expect(values(machine, 7, 5)).toEqual([3, 0x40, 0, 0x41, 3]);
  });

  it('6.12: ends at a hole, with what precedes it set', () => {
    const machine = withDirty('6.12', [], (made) => made.slot(1, 4 * MIB + 0x1000, MIB, made.map(MIB), LOG));
    expect(set(machine, 1023, ALL, 1, 2, 2)).toBe(EFAULT);
    expect([values(machine, 1023, 1), values(machine, 1025, 1)]).toEqual([[1], [0]]);
  });

  it('7.0: goes over a hole in a table that a slot has something in, and sets nothing where there is none', () => {
    const machine = withDirty('7.0', [], (made) => made.slot(1, 5 * MIB - 0x1000, MIB, made.map(MIB), LOG));
    // Frames 1024 to 1278 are a hole, and 1279 is the new slot's first.
    const over = Array<number>(257).fill(2);
    expect(set(machine, 1023, ALL, ...over)).toBe(0);
    expect([values(machine, 1023, 1), values(machine, 1279, 2)]).toEqual([[2], [2, 0]]);
    // As a slot shows that is made in the hole.
    expect(machine.slot(2, 4 * MIB, MIB - 0x1000, machine.map(MIB), LOG)).toBe(0);
    expect(values(machine, 1023, 257)).toEqual([2, ...Array<number>(255).fill(0), 2]);
    expect(machine.slot(2, 0, 0, 0)).toBe(0);
    // The table of the slot's last frames is there, the one behind it is not.
    const last = 1279 + 255;
    expect(set(machine, last, ALL, 1, 1)).toBe(0);
    expect(values(machine, last, 1)).toEqual([1]);
    expect(set(machine, last, ALL, 2, 2, 2)).toBe(EFAULT);
    expect(values(machine, last, 1)).toEqual([1]);
  });
});

it.each(['6.12', '7.0'])('%s: a slot that is new has no dirty pages but those that ESSA changes', (release) => {
  const machine = withDirty(release, []);
  expect(machine.slot(1, 4 * MIB, MIB, machine.map(MIB), LOG)).toBe(0);
  machine.kernel.loadGuest(
    machine.vcpu,
    (function* () {
      for (const frame of [3, 3, 5]) yield instruction('ESSA', SET_UNUSED, BigInt((FRAMES + frame) * 4096));
      yield spin;
    })(),
  );
  machine.kernel.run(machine.vcpu, 0);
  expect(get(machine, 0, 64)).toEqual({ result: 0, log: [FRAMES + 3, 3, 0], values: [UNUSED, 0, UNUSED] });
});

it('6.12: a run goes on into a slot that is new', () => {
  const machine = withDirty('6.12', [1022]);
  expect(machine.slot(1, 4 * MIB, MIB, machine.map(MIB), LOG)).toBe(0);
  machine.kernel.loadGuest(
    machine.vcpu,
    (function* () {
      yield instruction('ESSA', SET_UNUSED, BigInt(1023 * 4096));
      yield spin;
    })(),
  );
  machine.kernel.run(machine.vcpu, 0);
  expect(get(machine, 0, 64)).toEqual({ result: 0, log: [1022, 2, 0], values: [UNUSED, UNUSED] });
});

it('ESSA in migration mode is no use of CMMA, without which no values are told', () => {
  const found = [false, true].map((used) => {
    const machine = running(
      REAL64,
      function* () {
        yield instruction('ESSA', SET_UNUSED, 0x5000n);
        yield spin;
      },
      { cmma: true, flags: LOG },
    );
    const { kernel, s390x, vm, vcpu } = machine;
    if (used) s390x.setCmmaBits(vm, 0, 1, 0, 0n, new Uint8Array(1));
    expect(kernel.setDeviceAttr(vm, MIGRATION, START, null)).toBe(0);
    kernel.run(vcpu, 0);
    return get(machine, 5, 1).log;
  });
  expect(found).toEqual([
    [0, 0, 0],
    [5, 1, 1023],
  ]);
});

it('6.12: pages of the last slot are still counted when that is gone, and the request is left as it is', () => {
  const machine = withDirty('6.12', [40, 41]);
  const before = get(machine, 0, 1);
  expect(before.log).toEqual([40, 1, 1]);
  expect(machine.slot(0, 0, 0, 0, 0)).toBe(0);
  const log = BigUint64Array.of(7n, 64n, 0n);
  // What is copied is a buffer that nobody has filled.
  expect(machine.s390x.getCmmaBits(machine.vm, log, 0, new Uint8Array(64))).toBe(0);
  expect([...log]).toEqual([7n, 64n, 1n]);
});
