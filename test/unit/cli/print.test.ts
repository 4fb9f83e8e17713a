import { describe, expect, it } from 'vitest';
import { show } from '../../../lib/cli/repl/print.ts';
import { Kvm } from '../../../lib/index.ts';
import { objectsOf } from './objects.ts';

describe.each(['x86_64', 's390x', 'ppc64'] as const)('objects of %s at the prompt', (arch) => {
  it.each(objectsOf(arch).map((object) => [object.constructor.name, object] as const))('%s', (_, object) => {
    const text = show(object);
    expect(text).not.toMatch(/\[Function|\[Getter|Symbol\(|Object \[|ArrayBuffer|Uint8Contents|#\w/);
    expect(text.split('\n').length).toBeLessThanOrEqual(12);
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(120);
  });
});

it('what has nothing but calls is a list of their names, folded', () => {
  const kvm = Kvm.open({ backend: 'emulated', arch: 's390x' });
  const vm = kvm.createVm();
  const calls = show(kvm.calls, { columns: 60 });
  expect(calls).not.toContain('[');
  expect(calls).toMatch(/release +6\.12\n/);
  expect(calls).toMatch(/calls: openKvm, close, getApiVersion, /);
  expect(calls).toMatch(/\bs390x\b/);
  for (const line of calls.split('\n')) expect(line.length).toBeLessThanOrEqual(62);
  expect(show(vm.s390x)).toMatch(/^VmS390x: memOp, storageKeys, cmma, \w/);
  expect(show(vm.createVcpu().s390x)).toMatch(/^VcpuS390x: memOp, \w/);
  expect(show({ open: () => {}, size: 5 })).toMatch(/size +0x5\n {2}calls: open$/);
  vm.close();
  kvm.close();
});

it('a Disposable says what it is', () => {
  const kvm = Kvm.open({ backend: 'emulated', arch: 's390x' });
  const vm = kvm.createVm();
  expect(show(vm.memory.onChange(() => {}))).toBe('a Disposable: using, or its [Symbol.dispose](), ends it');
  expect(show({})).toBe('{}');
  vm.close();
  kvm.close();
});

it('what comes later is not said to be an object', () => {
  async function* later() {
    yield 1;
  }
  expect(show(later())).toContain('for await');
  expect(show(Promise.resolve(1))).toContain('await');
});

it("a class of the user's own is Node's to show, unless there is nothing but methods", () => {
  class Counter {
    count = 1;
    add(): void {}
  }
  class Idle {
    add(): void {}
  }
  expect(show(new Counter())).toBe('Counter { count: 1 }');
  expect(show(new Idle())).toBe('Idle: add');
});
