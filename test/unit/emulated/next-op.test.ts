import { runInThisContext } from 'node:vm';
import { expect, it } from 'vitest';
import { GuestFault, type GuestProgram, spin } from '../../../lib/emulated/guest.ts';
import { nextOp } from '../../../lib/emulated/next-op.ts';
import { Kvm } from '../../../lib/index.ts';

it('a program that V8 ended inside of itself cannot go on, is told so, and another can be loaded', async () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  using vm = kvm.createVm();
  const vcpu = vm.createVcpu();
  const endless = (function* (): GuestProgram {
    for (;;) if (vcpu.closed) yield spin;
  })();
  kvm.emulated!.loadGuest(vcpu.fd, endless);
  Object.assign(globalThis, { endless: () => vcpu.runSync() });
  expect(() => runInThisContext('endless()', { timeout: 60 })).toThrow(/timed out/);
  Reflect.deleteProperty(globalThis, 'endless');
  await Promise.resolve();
  for (let i = 0; i < 2; i++) expect(() => vcpu.runSync()).toThrow(/ended inside of itself .* load the guest again$/);
  expect(() => nextOp(endless, undefined, new GuestFault(14, 'a page fault'))).toThrow(/ended inside of itself/);
  kvm.emulated!.loadGuest(
    vcpu.fd,
    (function* (): GuestProgram {
      yield spin;
    })(),
  );
  expect(vcpu.runSync({ timeoutMs: 10 }).reason).toBe('INTR');
});

it('what else a program throws is its own', () => {
  const fault = new TypeError('the guest’s own');
  const program = (function* (): GuestProgram {
    yield spin;
    throw fault;
  })();
  expect(nextOp(program, undefined, undefined)).toEqual({ done: false, value: spin });
  expect(() => nextOp(program, undefined, undefined)).toThrow(fault);
  expect(nextOp(program, undefined, undefined)).toEqual({ done: true, value: undefined });
});
