/** GET_SKEYS, SET_SKEYS and KEYOP over several slots, and what they refuse. */

import { describe, expect, it } from 'vitest';
import { LOG, Machine, MIB } from './machine.ts';

const [EFAULT, EINVAL, NONE] = [-14, -22, 1];
/** The first frame of the second slot, which is of other memory. */
const SECOND = (4 * MIB) / 4096;

/** A machine with two slots that follow one another, whose pages are all there. */
function twoSlots(release: string): Machine {
  const machine = new Machine({ release }).addMemory(LOG);
  const other = machine.map(MIB);
  machine.kernel.writeMemory(other, new Uint8Array(1));
  expect(machine.slot(1, 4 * MIB, MIB, other)).toBe(0);
  return machine;
}

describe.each(['6.12', '7.0'])('keys on %s', (release) => {
  it('are set and got across slots', () => {
    const machine = twoSlots(release);
    const keys = [0x10, 0x20, 0x30, 0x40, 0x50, 0x60];
    // What is behind the first slot's memory is another's.
    machine.kernel.writeMemory(machine.hva + 4 * MIB, new Uint8Array(1));
    expect(machine.slot(2, 16 * MIB, MIB, machine.hva + 4 * MIB)).toBe(0);
    expect(machine.setKeys(SECOND - 2, ...keys)).toBe(0);
    expect(machine.keys((16 * MIB) / 4096, 8)).toEqual(new Uint8Array(8));
    expect(machine.keys(SECOND - 3, 8)).toEqual(Uint8Array.of(0, ...keys, 0));
    expect(machine.keys(SECOND + 1, 2)).toEqual(Uint8Array.of(0x40, 0x50));
    expect(machine.keys(SECOND + 254, 2)).toEqual(new Uint8Array(2));
    expect(machine.keys(SECOND + 255, 2)).toBe(EFAULT);
  });

  it('of which one is bad: what is before it is set up to 6.19, and nothing from 7.0 on', () => {
    const machine = twoSlots(release);
    expect(machine.setKeys(SECOND - 2, 0x10, 0x20, 0x30, 0x41, 0x50)).toBe(EINVAL);
    const set = release === '6.12' ? [0x10, 0x20, 0x30, 0, 0] : [0, 0, 0, 0, 0];
    expect(machine.keys(SECOND - 2, 5)).toEqual(Uint8Array.from(set));
    expect(machine.setKeys(SECOND - 2, 0x11)).toBe(EINVAL);
  });

  it('of more frames than are looked at in one go are the same, and a bad one is found far behind', () => {
    const machine = new Machine({ release }).addMemory(LOG);
    const [gpa, frames] = [64 * MIB, 80_128];
    const hva = machine.map(frames * 4096);
    // Page tables are there for all: no key is lost.
    for (let at = 0; at < frames * 4096; at += MIB) machine.kernel.writeMemory(hva + at, new Uint8Array(1));
    expect(machine.slot(1, gpa, frames * 4096, hva)).toBe(0);
    const keys = Uint8Array.from({ length: frames }, (_, i) => (((i * 7) % 16) << 4) | ((i >> 8) & 8));
    const from = gpa / 4096;
    const set = (bytes: Uint8Array) => machine.s390x.setSkeys(machine.vm, from, frames, 0, bytes);
    const got = new Uint8Array(frames);
    expect(set(keys)).toBe(0);
    expect(machine.s390x.getSkeys(machine.vm, from, frames, 0, got)).toBe(0);
    expect(Buffer.compare(got, keys)).toBe(0);
    const [bad, last] = [keys.map((key) => key ^ 0x10), frames - 3];
    bad[last]! |= 1;
    expect(set(bad)).toBe(EINVAL);
    const expected = release === '6.12' ? bad.map((key, i) => (i < last ? key : keys[i]!)) : keys;
    expect(machine.s390x.getSkeys(machine.vm, from, frames, 0, got)).toBe(0);
    expect(Buffer.compare(got, expected)).toBe(0);
  });

  it('stay as they are where the buffer is too short', () => {
    const machine = twoSlots(release);
    expect(machine.setKeys(5, 0x10, 0x20)).toBe(0);
    expect(machine.s390x.setSkeys(machine.vm, 5, 3, 0, Uint8Array.of(0x30, 0x40))).toBe(EFAULT);
    expect(machine.s390x.getSkeys(machine.vm, 5, 3, 0, new Uint8Array(2))).toBe(EFAULT);
    expect(machine.keys(5, 2)).toEqual(Uint8Array.of(0x10, 0x20));
  });

  it('are turned on by SET_SKEYS as soon as there is a buffer', () => {
    const machine = twoSlots(release);
    expect(machine.s390x.setSkeys(machine.vm, 5, 1, 0, null)).toBe(EFAULT);
    expect(machine.keys(5, 1)).toBe(NONE);
    expect(machine.setKeys(5, 0x11)).toBe(EINVAL);
    expect(machine.keys(5, 1)).toEqual(Uint8Array.of(0));
  });
});

it('up to 6.19 keys of which one is lost are set as far as the slot reaches, not in the memory behind it', () => {
  const machine = new Machine().addMemory();
  expect(machine.setKeys(0, 0x10)).toBe(0);
  const hva = machine.map(2 * MIB);
  for (const [id, gpa, at] of [
    [1, 8 * MIB, hva],
    [2, 9 * MIB, machine.map(MIB)],
    [3, 16 * MIB, hva + MIB],
  ] as const)
    expect(machine.slot(id, gpa, MIB, at)).toBe(0);
  const [frame, behind] = [(9 * MIB) / 4096, (16 * MIB) / 4096];
  expect(machine.setKeys(frame - 2, 0x20, 0x30, 0x40, 0x50, 0x60)).toBe(0);
  // Neither segment of user space had a page table.
  expect(machine.keys(frame - 2, 5)).toEqual(Uint8Array.of(0, 0x30, 0, 0x50, 0x60));
  expect(machine.keys(behind, 3)).toEqual(new Uint8Array(3));
});

describe('KEYOP', () => {
  const [ISKE, RRBE, SSKE] = [1, 2, 3];

  it('wants a byte, a known operation and a slot, in this order', () => {
    const { s390x, vm } = twoSlots('7.0');
    const none = new Uint8Array(0);
    const key = Uint8Array.of(0x77);
    expect(s390x.keyOp(vm, 0x5000, 9, none)).toBe(EFAULT);
    expect([0, 4].map((operation) => s390x.keyOp(vm, 0x5000_0000, operation, key))).toEqual([EINVAL, EINVAL]);
    expect([ISKE, RRBE, SSKE].map((operation) => s390x.keyOp(vm, 0x5000_0000, operation, key))).toEqual(
      Array(3).fill(EFAULT),
    );
    expect(key).toEqual(Uint8Array.of(0x77));
  });

  it('is for the page that an address is in, and sets no bit that a key has not', () => {
    const { s390x, vm } = twoSlots('7.0');
    const op = (operation: number, address: number, given = 0): number => {
      const key = Uint8Array.of(given);
      expect(s390x.keyOp(vm, address, operation, key)).toBe(0);
      return key[0]!;
    };
    expect([op(SSKE, 0x5fff, 0x3f), op(ISKE, 0x5000), op(ISKE, 0x6000), op(ISKE, 0x4fff)]).toEqual([0, 0x3e, 0, 0]);
    expect([op(RRBE, 0x5123), op(ISKE, 0x5000), op(RRBE, 0x5000)]).toEqual([0x06, 0x3a, 0x02]);
    expect([op(SSKE, 0x5000, 0x10), op(ISKE, 0x5000)]).toEqual([0x3a, 0x10]);
  });
});
