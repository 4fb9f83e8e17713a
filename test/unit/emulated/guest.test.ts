import { describe, expect, it } from 'vitest';
import {
  changed,
  checkCode,
  checkOp,
  execute,
  GuestFault,
  type GuestOp,
  halt,
  hypercall,
  input,
  ins,
  instruction,
  load,
  out,
  outs,
  spin,
  store,
  update,
} from '../../../lib/emulated/guest.ts';
import { EmulatedKernel } from '../../../lib/raw.ts';

const change = (): bigint => 0n;

it('what a guest does next is made as it is asked for', () => {
  expect([
    store(8, 4, 1n),
    load(8, 8),
    out(0xffff, 4, 1n),
    input(0, 1),
    outs(1, 2, 8, 3),
    ins(1, 4, 8, 0),
    update(8, 2, change),
    hypercall(4, 1n, 2n),
    execute(0),
    instruction('ISKE', 1n),
    halt,
    spin,
  ]).toEqual([
    { op: 'store', address: 8, size: 4, value: 1n },
    { op: 'load', address: 8, size: 8 },
    { op: 'out', port: 0xffff, size: 4, value: 1n },
    { op: 'in', port: 0, size: 1 },
    { op: 'outs', port: 1, size: 2, address: 8, count: 3 },
    { op: 'ins', port: 1, size: 4, address: 8, count: 0 },
    { op: 'update', address: 8, size: 2, change },
    { op: 'hypercall', nr: 4, args: [1n, 2n] },
    { op: 'execute', address: 0 },
    { op: 'instruction', name: 'ISKE', operands: [1n] },
    { op: 'halt' },
    { op: 'spin' },
  ]);
});

describe('an operation that is none is refused by the name of what is wrong', () => {
  const type = 'ERR_INVALID_ARG_TYPE';
  const range = 'ERR_OUT_OF_RANGE';

  const store = { op: 'store', size: 4, value: 1n, address: 0 };
  const string = { op: 'outs', port: 1, size: 1, address: 0, count: 1 };
  const wrong: readonly (readonly [string, RegExp, unknown])[] = [
    [type, /"op"/, 5],
    [
      range,
      /"op\.op" .*'store', 'load', 'out', 'in', 'outs', 'ins', 'update', 'hypercall', 'execute', 'instruction', 'halt', 'spin'/,
      { op: 'stop' },
    ],
    [range, /"size" .*1, 2, 4, 8/, { ...store, size: 3 }],
    [type, /"value" .*a bigint/, { ...store, value: 1 }],
    [range, /"address"/, { ...store, address: 2 ** 53 }],
    [range, /"size" .*1, 2, 4, 8/, { op: 'load', size: 16, address: 0 }],
    [range, /"address"/, { op: 'load', size: 8, address: -1 }],
    [type, /"value" .*a bigint/, { op: 'out', port: 1, size: 1, value: 1 }],
    [range, /"port".*65535/, { op: 'out', port: 0x1_0000, size: 1, value: 1n }],
    [range, /"size" .*1, 2, 4\b(?!, 8)/, { op: 'out', port: 1, size: 8, value: 1n }],
    [range, /"port"/, { op: 'in', port: -1, size: 1 }],
    [range, /"size"/, { op: 'in', port: 1, size: 3 }],
    ...(['outs', 'ins'] as const).flatMap((op): [string, RegExp, unknown][] => [
      [range, /"address"/, { ...string, op, address: -1 }],
      [range, /"count"/, { ...string, op, count: -1 }],
      [range, /"port"/, { ...string, op, port: 0x1_0000 }],
      [range, /"size"/, { ...string, op, size: 8 }],
    ]),
    [range, /"size"/, { op: 'update', size: 5, address: 0, change }],
    [range, /"address"/, { op: 'update', size: 4, address: -1, change }],
    [type, /"change"/, { op: 'update', size: 4, address: 0, change: 5 }],
    [range, /"nr"/, { op: 'hypercall', nr: -1, args: [] }],
    [type, /"args" .*an array of bigints/, { op: 'hypercall', nr: 1, args: 5 }],
    [type, /"args\[1\]" .*a bigint/, { op: 'hypercall', nr: 1, args: [1n, 2] }],
    [range, /"address"/, { op: 'execute', address: -1 }],
    [type, /"name"/, { op: 'instruction', name: 5, operands: [] }],
    [type, /"operands" .*an array of bigints/, { op: 'instruction', name: 'SSKE' }],
    [type, /"operands\[0\]" .*a bigint/, { op: 'instruction', name: 'SSKE', operands: [1] }],
  ];

  it('when it is made', () => {
    for (const [code, message, op] of wrong) {
      const refused = expect.objectContaining({ code, message: expect.stringMatching(message) });
      expect(() => checkOp(op as GuestOp), String(message)).toThrowError(refused);
    }
  });

  it('when a program has made it itself', () => {
    const calls = new EmulatedKernel({ arch: 'x86_64' });
    const vcpu = calls.createVcpu(calls.createVm(calls.openKvm(), 0), 0);
    for (const [code, message, op] of wrong) {
      calls.loadGuest(
        vcpu,
        (function* () {
          yield op as GuestOp;
        })(),
      );
      const refused = expect.objectContaining({ code, message: expect.stringMatching(message) });
      expect(() => calls.run(vcpu, 0), String(message)).toThrowError(refused);
    }
  });
});

it('an update makes a bigint of what was there', () => {
  expect(changed(5n)).toBe(5n);
  expect(() => changed(5 as unknown as bigint)).toThrowError(
    expect.objectContaining({
      code: 'ERR_INVALID_RETURN_VALUE',
      message: expect.stringMatching(/a bigint to be returned from change\b/),
    }),
  );
});

it('where a guest has its code is an address and a size', () => {
  expect(checkCode({ gpa: 0, size: 1, more: 5 } as { gpa: number; size: number })).toEqual({ gpa: 0, size: 1 });
  const check = (code: unknown) => () => checkCode(code as { gpa: number; size: number });
  expect(check(5)).toThrow('"code"');
  expect(check({ gpa: -1, size: 1 })).toThrow('"code.gpa"');
  expect(check({ gpa: 0, size: -1 })).toThrow('"code.size"');
});

it('a fault has the architecture’s code and a name of its own', () => {
  const fault = new GuestFault(5, 'nothing is there');
  expect([fault.name, fault.code, fault.message, fault instanceof Error]).toEqual([
    'GuestFault',
    5,
    'nothing is there',
    true,
  ]);
});
