import { expect, it } from 'vitest';
import { checkCalls } from '../../../lib/calls/wrapped.ts';
import { Descriptor, Kvm, Mapping, Vcpu, type Vm } from '../../../lib/index.ts';
import { EmulatedKernel, type KvmCalls } from '../../../lib/raw.ts';

const kernel = (): KvmCalls => new EmulatedKernel({ arch: 'ppc64' });
const changed = (changes: object): KvmCalls => Object.assign(Object.create(kernel()) as KvmCalls, changes);

it.each([
  ['no object', null, '"calls" argument must be an object'],
  ['nothing at all', {}, '"calls.openKvm" argument must be a function'],
  ['no way to give anything back', changed({ munmap: undefined }), '"calls.munmap"'],
  ['a number for a call', changed({ close: 3 }), '"calls.close"'],
  ['an architecture that there isn’t', changed({ arch: 'vax' }), '"calls.arch"'],
  ['a kernel of no kind', changed({ backend: null }), '"calls.backend"'],
  ['a release that is none', changed({ release: 6.12 }), '"calls.release"'],
  ['pages of no size', changed({ pageSize: Number.NaN }), '"calls.pageSize"'],
  ['pages of an odd size', changed({ pageSize: 4097 }), '"calls.pageSize"'],
  ['half a group', changed({ ppc64: { allocateHtab: () => 0 } }), '"calls.ppc64.'],
])('calls with %s are refused by name, before the collector misses something of them', (_what, calls, named) => {
  const given = calls as unknown as KvmCalls;
  for (const take of [
    () => checkCalls(given),
    () => new Descriptor(given, 3),
    () => new Vcpu({ calls: given } as unknown as Vm, 0, 3, 4096, 0, 0),
    () => Mapping.anonymous(given, 4096),
    () => Mapping.memfd(given, 4096),
  ]) {
    expect(take).toThrow(
      expect.objectContaining({ message: expect.stringContaining(named), code: expect.stringMatching(/^ERR_/) }),
    );
  }
  expect(() => Kvm.open({ calls: given })).toThrow(
    expect.objectContaining({ message: expect.stringContaining(named.replace('"calls', '"options.calls')) }),
  );
});

it('calls that somebody wraps are as good', () => {
  const given: KvmCalls = Object.assign(new EmulatedKernel({ arch: 'ppc64' }), { createVm: () => -1 });
  expect(checkCalls(given)).toBe(given);
  using kvm = Kvm.open({ calls: given });
  expect(() => kvm.createVm()).toThrow(expect.objectContaining({ code: 'EPERM' }));
});
