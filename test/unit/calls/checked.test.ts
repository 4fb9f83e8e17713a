import { describe, expect, it } from 'vitest';
import { loadNative } from '../../../lib/backends/native.ts';
import { openCalls } from '../../../lib/backends/open.ts';
import type { KvmCalls } from '../../../lib/calls/kvm-calls.ts';
import { CALL_GROUPS, type ParameterKind, signaturesOf } from '../../../lib/calls/signatures.ts';
import { ARCHES } from '../../../lib/uapi/index.ts';

/** A value that each kind of parameter takes. */
const RIGHT: Readonly<Record<ParameterKind, unknown>> = {
  fd: -1,
  i32: 0,
  u32: 0,
  x32: 0,
  u64: 0n,
  x64: 0n,
  hva: 0,
  u64s: [],
  in: new Uint8Array(8),
  out: new Uint8Array(8),
  inout: new Uint8Array(8),
  inout64: new BigUint64Array(4),
  hvas: new Float64Array(1),
  u32s: new Uint32Array(1),
  view: new Uint8Array(8),
  text: '',
  fds: new Int32Array(1),
  outfds: new Int32Array(1),
  arg: 0,
};

/** Values that no parameter of any kind takes. */
const WRONG = [undefined, Number.NaN, Symbol('x'), {}, () => 0, -(2 ** 40), new Date(0)];

const native = loadNative();
const kernels = [
  ...ARCHES.map((arch) => [`the emulated kernel of ${arch}`, openCalls({ backend: 'emulated', arch }).calls] as const),
  ...('calls' in native ? [['the addon', native.calls] as const] : []),
];

type Method = (...args: readonly unknown[]) => unknown;

const everyCall = (calls: KvmCalls) =>
  [undefined, ...CALL_GROUPS].flatMap((group) => {
    const target = (group === undefined ? calls : calls[group]) as unknown as Record<string, Method> | undefined;
    if (target === undefined) return [];
    return Object.entries(signaturesOf(group)).map(([name, { parameters }]) => ({
      name,
      parameters,
      method: target[name]!,
    }));
  });

/** The addon knows no names, and counts. */
const namer = (calls: KvmCalls) => (parameter: string, index: number) =>
  calls.backend === 'native' ? `argument ${index + 1} ` : `"${parameter}"`;

describe.each(kernels)('raw calls of %s', (_name, calls) => {
  const naming = namer(calls);

  it('take no wrong value for any parameter, and say which', () => {
    let tried = 0;
    for (const { name, parameters, method } of everyCall(calls)) {
      for (const [i, [parameter]] of parameters.entries()) {
        for (const wrong of WRONG) {
          const args = parameters.map(([, kind], at) => (at === i ? wrong : RIGHT[kind]));
          const what = `${name}(${parameter}: ${String(wrong)})`;
          expect(() => method(...args), what).toThrow(
            expect.objectContaining({
              code: expect.stringMatching(/^ERR_(INVALID_ARG_TYPE|OUT_OF_RANGE)$/),
              message: expect.stringContaining(naming(parameter, i)),
            }),
          );
          tried++;
        }
      }
    }
    expect(tried).toBeGreaterThan(800);
  });

  it('go on as before after an mmap of NaN bytes', () => {
    expect(() => calls.mmap(Number.NaN, 3, 0x22, -1, 0, 0, 0)).toThrow(RangeError);
    expect(calls.mmap(calls.pageSize, 3, 0x22, -1, 0, 0, 0)).toBeGreaterThan(0);
  });

  it('take what a structure can hold, and let the kernel judge', () => {
    expect(calls.ioeventfd(-1, 0, 0, 0xffff_ffff, 0, 0)).toBeLessThan(0);
    expect(calls.run(-1, 0.5)).toBeLessThan(0);
    expect(calls.run(-1, Number.POSITIVE_INFINITY)).toBeLessThan(0);
    expect(calls.getDirtyLog(-1, 0, null)).toBeLessThan(0);
    expect(() => calls.read(-1, null as unknown as Uint8Array)).toThrow(TypeError);
  });
});
