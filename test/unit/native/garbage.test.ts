import { expect, it } from 'vitest';
import { realKvm, runChild } from './real.ts';

it.for([1, 2, 3])('arguments that make no sense throw or are refused, and nothing breaks (seed %i)', (seed, test) => {
  if (realKvm(test).arch !== 'x86_64') test.skip('the guest is machine code for x86_64');
  const child = runChild('garbage', [String(seed)]);
  expect(child).toMatchObject({ status: 0, signal: null });
  const { thrown, answered, works } = JSON.parse(child.stdout) as Record<string, number | boolean>;
  expect(works).toBe(true);
  expect(thrown).toBeGreaterThan(1000);
  expect(answered).toBeGreaterThan(1000);
});

it('says which argument of which call is wrong', (test) => {
  const calls = realKvm(test);
  const kvm = calls.openKvm();
  const wrong = calls.createVm as (...args: readonly unknown[]) => number;
  expect(() => wrong(kvm, 'zero')).toThrow(TypeError);
  expect(() => wrong(kvm, 'zero')).toThrow(/^createVm: argument 2 must be a safe integer >= 0 or a bigint of 64 bits$/);
  expect(() => wrong(kvm, 2n ** 64n)).toThrow(RangeError);
  expect(() => wrong(kvm, 2 ** 53)).toThrow(RangeError);
  expect(() => wrong(kvm, 0.5)).toThrow(RangeError);
  expect(() => wrong(kvm)).toThrow(TypeError);
  expect(() => wrong()).toThrow(/argument 1/);
  calls.close(kvm);
});
