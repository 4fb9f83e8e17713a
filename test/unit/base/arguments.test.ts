import { describe, expect, it } from 'vitest';
import { protectionContext } from '../../../lib/arch/ppc64/model/index.ts';
import {
  checkBytes,
  checkDoubles,
  checkInteger,
  checkOptions,
  checkU64,
  isExact,
  isIntegerIn,
  isPowerOfTwo,
  normalU64,
  takeOptions,
} from '../../../lib/base/arguments.ts';
import { Kvm } from '../../../lib/index.ts';

const wrongType = expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE', message: expect.stringContaining('"n"') });
const outOfRange = expect.objectContaining({ code: 'ERR_OUT_OF_RANGE', message: expect.stringContaining('"n"') });

describe('checkU64', () => {
  it.each([0, 1, Number.MAX_SAFE_INTEGER, 0n, 1n << 53n, (1n << 64n) - 1n])('takes %s as it is', (value) => {
    expect(checkU64(value, 'n')).toBe(value);
  });

  it.each([-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, -1n, 1n << 64n])('refuses %s', (value) => {
    expect(() => checkU64(value, 'n')).toThrow(outOfRange);
  });

  it.each([undefined, null, '1', {}, true])('refuses %s for what it is', (value) => {
    expect(() => checkU64(value as unknown as number, 'n')).toThrow(wrongType);
  });
});

describe('checkInteger', () => {
  it.each([
    [-3, -3],
    [0, 0],
    [7, 7],
  ])('takes %s in [-3, 7]', (value, number) => {
    expect(checkInteger(value, 'n', -3, 7)).toBe(number);
  });

  it.each([-4, 8, 0.5, Number.NaN])('refuses %s in [-3, 7]', (value) => {
    expect(() => checkInteger(value, 'n', -3, 7)).toThrow(outOfRange);
  });

  it.each([7n, '7', null, undefined])('refuses %s for what it is: code that goes on with it would fail', (value) => {
    expect(() => checkInteger(value as unknown as number, 'n', -3, 7)).toThrow(wrongType);
  });

  it('says the range and what it got', () => {
    expect(() => checkInteger(8, 'n', -3, 7)).toThrow('It must be an integer in [-3, 7]. Received 8');
  });
});

it('numbers are whole and in range, exact, or a power of two', () => {
  expect([-1, 0, 0.5, 15, 16, Number.NaN].filter((n) => isIntegerIn(n, 0, 15))).toEqual([0, 15]);
  expect([-(2 ** 53) + 1, 2 ** 53, 1.5, Number.NaN].filter(isExact)).toEqual([-(2 ** 53) + 1]);
  expect([0, 0.5, 1, 2, 3, 2 ** 40, -2, Number.NaN, Number.POSITIVE_INFINITY].filter(isPowerOfTwo)).toEqual([
    1,
    2,
    2 ** 40,
  ]);
});

it('a u64 is a number where that is exact, else a bigint', () => {
  expect(normalU64(7n)).toBe(7);
  expect(normalU64((1n << 53n) - 1n)).toBe(Number.MAX_SAFE_INTEGER);
  expect(normalU64(1n << 53n)).toBe(1n << 53n);
  expect(normalU64(2 ** 53)).toBe(1n << 53n);
});

describe('options', () => {
  interface Options {
    readonly size?: number;
    readonly name?: string;
  }
  const NAMES = { size: true, name: true } as const;
  let reads = 0;
  /** As TypeScript users write them: both are of the prototype. */
  class Given implements Options {
    get size(): number {
      return ++reads;
    }
    get name(): string {
      return 'given';
    }
  }

  it('that there are not are refused, unless they are inherited', () => {
    const unknown = expect.objectContaining({
      code: 'ERR_INVALID_ARG_VALUE',
      message: 'The property "options.sise" is unknown. It must be one of size, name',
    });
    for (const check of [checkOptions<Options>, takeOptions<Options>]) {
      expect(() => check({ sise: 1 } as Options, NAMES)).toThrow(unknown);
      expect(() => check(1 as Options, NAMES)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }));
      expect(check(Object.create({ sise: 1, size: 2 }), NAMES).size).toBe(2);
    }
    const { signal } = checkOptions<{ readonly signal?: AbortSignal }>(new AbortController(), { signal: true });
    expect(signal).toBeInstanceOf(AbortSignal);
  });

  it('are taken once, wherever they stand, and what is undefined is left out', () => {
    const taken = takeOptions<Options>(new Given(), NAMES);
    expect(taken).toEqual({ size: 1, name: 'given' });
    expect([taken.size, reads]).toEqual([1, 1]);
    expect(Object.keys(takeOptions({ size: undefined, name: 'x' } as object as Options, NAMES))).toEqual(['name']);
  });

  it('of what takes them all along are those of a class, too', () => {
    class State {
      get problemState(): boolean {
        return true;
      }
      get amr(): bigint {
        return 3n << 62n;
      }
    }
    expect(protectionContext(new State())).toMatchObject({ problemState: true, amrHi: 0xc000_0000 });
    class Build {
      get smm(): boolean {
        return false;
      }
    }
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64', x86_64: new Build() });
    expect(kvm.checkExtension('MULTI_ADDRESS_SPACE')).toBe(0);
    const opened = (x86_64: object) => () => Kvm.open({ backend: 'emulated', arch: 'x86_64', x86_64 });
    expect(opened({ guestPhysicalBits: 53 })).toThrow(
      '"options.x86_64.guestPhysicalBits" is out of range. It must be an integer in [32, 52]',
    );
    expect(opened({ smm: 1 })).toThrow('"options.x86_64.smm"');
  });
});

describe('memory that has gone', () => {
  const resizable = (): ArrayBuffer => Reflect.construct(ArrayBuffer, [64, { maxByteLength: 128 }]);

  /** Once compiled, V8 of Node 20 and 22 takes the length of before for an array that was detached. */
  it.each([
    ['bytes', Uint8Array, (array: NodeJS.TypedArray) => checkBytes(array as Uint8Array, 'it')],
    ['doubles', Float64Array, (array: NodeJS.TypedArray) => checkDoubles(array as Float64Array, 'it')],
  ])('is noticed of %s, also by code that has met resizable buffers', (_what, View, check) => {
    const there = [new View(0), new View(2), new View(resizable()), new View(resizable(), 0, 4)];
    for (let i = 0; i < 400_000; i++) check(there[i % there.length]!);
    const gone = new View(8);
    structuredClone(gone.buffer, { transfer: [gone.buffer] });
    for (let i = 0; i < 3; i++) expect(() => check(gone)).toThrow(`a ${View.name} whose memory is still there`);
  });
});
