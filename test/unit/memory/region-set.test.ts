import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AddressSpace, HandlerError, Kvm } from '../../../lib/index.ts';
import { refusalOf } from './refusal.ts';

const UNIT = 0x10_0000;

let kvm: Kvm;
let space: AddressSpace;

beforeEach(() => {
  kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  space = new AddressSpace({ littleEndian: true, pageSize: kvm.pageSize });
});
afterEach(() => {
  space.close();
  kvm.close();
});

describe('a region that was removed', () => {
  it('is not changed any more, and the error says which it was', () => {
    const region = space.addRam(UNIT, kvm.mapAnonymous(2 * UNIT), { name: 'old' });
    region.remove();
    for (const change of [() => region.move(0), () => region.setReadOnly(true)]) {
      expect(refusalOf(change)).toMatchObject({
        code: 'EBADF',
        syscall: 'change region',
        gpa: UNIT,
        size: 2 * UNIT,
        explanation: "ram 'old' [0x100000, 0x300000) was removed from its address space",
      });
    }
    region.remove();
    expect([region.start, region.readOnly, space.generation]).toEqual([UNIT, false, 2]);
  });

  it('is one of a space that was closed, which says that', () => {
    using held = kvm.createVm();
    const region = space.addRam(0, kvm.mapAnonymous(UNIT));
    held.bind(space);
    space.close();
    for (const change of [() => region.move(UNIT), () => region.setReadOnly(true)]) {
      expect(refusalOf(change)).toMatchObject({
        code: 'EBADF',
        syscall: 'change region',
        explanation: 'the address space is closed',
      });
    }
    expect(refusalOf(() => space.addMmio(UNIT, 8, {})).syscall).toBe('addMmio');
  });
});

it('a region is removed at the end of a block that uses it', () => {
  const mapping = kvm.mapAnonymous(UNIT);
  {
    using region = space.addRam(UNIT, mapping);
    expect(space.find(UNIT)).toBe(region);
  }
  expect([space.find(UNIT), mapping.pins]).toEqual([undefined, 0]);
});

it('a space is closed at the end of a block that uses it, and lets its memory go', () => {
  const mapping = kvm.mapAnonymous(UNIT);
  {
    using inner = new AddressSpace({ littleEndian: true, pageSize: kvm.pageSize });
    inner.addRam(0, mapping);
    expect(mapping.pins).toBe(1);
  }
  expect(mapping.pins).toBe(0);
});

describe('those who are told of changes', () => {
  it('are functions', () => {
    for (const wrong of [undefined, 5, {}])
      expect(() => space.onChange(wrong as never)).toThrow(/"callback" argument must be a function/);
  });

  it('are told nothing after they ended it, also while others are told', () => {
    const told: string[] = [];
    space.onChange(() => {
      told.push('first');
      second[Symbol.dispose]();
    });
    const second = space.onChange(() => told.push('second'));
    const third = space.onChange(() => told.push('third'));
    space.addRam(0, kvm.mapAnonymous(UNIT));
    third[Symbol.dispose]();
    space.addRam(UNIT, kvm.mapAnonymous(UNIT));
    expect(told).toEqual(['first', 'third', 'first']);
  });
});

/** An object whose `then` is that. */
const withThen = (then: unknown): object => Object.fromEntries([['then', then]]);

it('a change gives what its function returns, whatever that is but a promise', () => {
  for (const result of [null, undefined, 0, '', false, withThen(5), [1]])
    expect(space.change(() => result)).toBe(result);
  expect(() => space.change(() => withThen(() => {}))).toThrow(
    expect.objectContaining({ code: 'ERR_INVALID_RETURN_VALUE' }),
  );
  expect(() => space.change(5 as never)).toThrow(/"callback" argument must be a function/);
});

describe('what takes the stores to read-only memory', () => {
  it('may throw: an error with its place, and the cause', () => {
    const cause = new Error('bad command');
    const rom = space.addRam(UNIT, kvm.mapAnonymous(UNIT), {
      name: 'flash',
      readOnly: true,
      onStore: () => {
        throw cause;
      },
    });
    const error = refusalOf(() => space.answerGuest(UNIT + 0x10, Uint8Array.of(1, 2), true));
    expect(error).toBeInstanceOf(HandlerError);
    expect(error).toMatchObject({
      code: 'ERR_HANDLER',
      region: rom,
      cause,
      message:
        "The store handler of ram 'flash' [0x100000, 0x200000) read-only, for 2 bytes at offset 0x10, threw: bad command",
    });
  });

  it('takes none across its end, nor where it can be written, nor beside it', () => {
    const stores: unknown[] = [];
    const rom = space.addRam(UNIT, kvm.mapAnonymous(UNIT), {
      readOnly: true,
      onStore: (offset, value, size) => stores.push([offset, value, size]),
    });
    space.addRam(4 * UNIT, kvm.mapAnonymous(UNIT), { readOnly: true });
    const store = (gpa: number) => space.answerGuest(gpa, Uint8Array.of(1, 2), true);
    expect([UNIT - 2, UNIT, 2 * UNIT - 2, 2 * UNIT - 1, 2 * UNIT, 4 * UNIT].map(store)).toEqual([
      false,
      true,
      true,
      false,
      false,
      false,
    ]);
    expect(stores).toEqual([
      [0, 0x0201, 2],
      [UNIT - 2, 0x0201, 2],
    ]);
    rom.setReadOnly(false);
    expect([store(UNIT), stores.length]).toEqual([false, 2]);
  });
});
