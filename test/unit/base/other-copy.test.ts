import { expect, it } from 'vitest';
import { AddressSpace, Kvm } from '../../../lib/index.ts';
import { hostCalls } from '../sharing/host.ts';

const OTHER_COPY =
  'which is of another copy of kvm-bridge: one in another folder, or its CommonJS beside its ES module';

/** An instance of a class of that name, as another copy of the package has one. */
function ofCopy(name: string): never {
  const copy = { [name]: class {} }[name]!;
  return new copy() as never;
}

/** The same of a class that extends it. */
function ofSubclass(name: string): never {
  const copy = { [name]: class {} }[name]!;
  return new (class Extended extends copy {})() as never;
}

it('what is of another copy of the package is refused as that', () => {
  using kvm = Kvm.open({ backend: 'emulated' });
  using vm = kvm.createVm();
  const addRam = (mapping: never) => () => vm.memory.addRam(0, mapping);
  expect(addRam(ofCopy('Mapping'))).toThrow(
    `The "mapping" argument must be an instance of Mapping. Received an instance of Mapping, ${OTHER_COPY}`,
  );
  expect(addRam(ofSubclass('Mapping'))).toThrow(`Received an instance of Extended, ${OTHER_COPY}`);
  expect(() => vm.bind(ofCopy('AddressSpace'))).toThrow(`Received an instance of AddressSpace, ${OTHER_COPY}`);
});

it('a table of another copy, for a VM of ppc64', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'ppc64' });
  using vm = kvm.createVm();
  expect(() => vm.hpt.write(ofCopy('Htab'))).toThrow(
    `must be an instance of Htab or Uint8Array. Received an instance of Htab, ${OTHER_COPY}`,
  );
});

it('a connection of another copy, for an address space', async (test) => {
  await expect(AddressSpace.attach(hostCalls(test), ofCopy('UnixConnection'))).rejects.toThrow(
    `Received an instance of UnixConnection, ${OTHER_COPY}`,
  );
});

it('what is something else is refused without it', () => {
  using kvm = Kvm.open({ backend: 'emulated' });
  using vm = kvm.createVm();
  for (const wrong of [undefined, null, 7, {}, Object.create(null), ofCopy('Region')])
    expect(() => vm.memory.addRam(0, wrong)).toThrow(/must be an instance of Mapping\. Received (?!.*another copy)/);
  // A class of the language has no copies.
  expect(() => vm.memory.writeExact(0, ofCopy('Uint8Array'))).toThrow(/Received an instance of Uint8Array$/);
});
