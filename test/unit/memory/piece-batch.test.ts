import { expect, it } from 'vitest';
import { AddressSpace, Kvm, Mapping } from '../../../lib/index.ts';
import { EmulatedKernel, ERRNO } from '../../../lib/raw.ts';

const UNIT = 0x10_0000;

it('pieces are each where their address says, in windows of two regions by turns, however many', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  const space = kvm.createAddressSpace();
  space.addRam(0, kvm.mapAnonymous(UNIT));
  space.addRam(8 * UNIT, kvm.mapAnonymous(UNIT));
  const count = 2500;
  // One after the other in the first 1024, by turns then.
  const gpas = Float64Array.from({ length: count }, (_, i) => 8 * i + (i > 1024 && i % 2 === 1 ? 8 * UNIT : 0));
  for (const [i, gpa] of gpas.entries()) space.writeU32(gpa, i + 1);
  const into = new Uint8Array(4 * count);
  space.gather(gpas, 4, into);
  const got = new DataView(into.buffer);
  expect(Array.from({ length: count }, (_, i) => got.getUint32(4 * i, true))).toEqual(
    Array.from({ length: count }, (_, i) => i + 1),
  );
  space.close();
});

it('pieces in memory of several kernels are moved by each of them', () => {
  const kernels = [new EmulatedKernel({ arch: 'x86_64' }), new EmulatedKernel({ arch: 'x86_64' })];
  using space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  for (const [i, kernel] of [...kernels, ...kernels].entries()) space.addRam(i * UNIT, Mapping.anonymous(kernel, UNIT));
  // Of the same kernel, of others by turns, and back.
  const gpas = [0, 2 * UNIT, 8, UNIT, 3 * UNIT, 16, UNIT + 8, 24];
  for (const list of [gpas, Float64Array.from(gpas)]) {
    const from = Uint8Array.from({ length: 4 * gpas.length }, (_, i) => i + list.length * (list === gpas ? 1 : 3));
    space.scatter(list, 4, from);
    for (const [i, gpa] of gpas.entries()) expect(space.read(gpa, 4)).toEqual(from.slice(4 * i, 4 * i + 4));
    const into = new Uint8Array(from.length);
    space.gather(list, 4, into);
    expect(into).toEqual(from);
  }
});

it('pieces go together, and what the kernel does not move of them is an error', () => {
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  using kvm = Kvm.open({ calls: kernel });
  using space = kvm.createAddressSpace();
  space.addRam(0, kvm.mapAnonymous(UNIT));
  const { gather, scatter } = kernel;
  const moved: number[] = [];
  let answer: number | undefined;
  kernel.gather = (hvas, lengths, into) => {
    moved.push(hvas.length);
    return answer ?? gather.call(kernel, hvas, lengths, into);
  };
  kernel.scatter = (hvas, lengths, from) => {
    moved.push(hvas.length);
    return answer ?? scatter.call(kernel, hvas, lengths, from);
  };
  const bytes = new Uint8Array(24);
  // The first byte of a region, too.
  for (const gpas of [[0, 64, 0], Float64Array.of(0, 64, 0)]) {
    space.gather(gpas, 8, bytes);
    space.scatter(gpas, 8, bytes);
  }
  expect(moved).toEqual([3, 3, 3, 3]);
  for (const [result, code] of [
    [-ERRNO.EFAULT, 'EFAULT'],
    [-ERRNO.ENOMEM, 'ENOMEM'],
    [0, 'EFAULT'],
    [2, 'EFAULT'],
  ] as const) {
    answer = result;
    expect(() => space.gather([0, 64, 128], 8, bytes)).toThrow(expect.objectContaining({ code, syscall: 'gather' }));
    expect(() => space.scatter([0, 64, 128], 8, bytes)).toThrow(expect.objectContaining({ code, syscall: 'scatter' }));
  }
});

it('pieces stay whose they are when a list gathers others while it is read', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  using space = kvm.createAddressSpace();
  space.addRam(0, kvm.mapAnonymous(UNIT));
  for (let i = 0; i < 8; i++) space.writeU32(64 * i, i + 1);
  const inner = new Uint8Array(4);
  const gpas = Object.defineProperty([64, 0, 192], 1, {
    get: () => {
      space.gather([], 4, new Uint8Array(0));
      space.gather([320], 4, inner);
      return 128;
    },
  });
  const into = new Uint8Array(12);
  space.gather(gpas, 4, into);
  expect([...new Uint32Array(into.buffer)]).toEqual([2, 3, 4]);
  expect(inner[0]).toBe(6);
});

it('pieces of one length, of several and of one again are each as long as they should be', () => {
  using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  using space = kvm.createAddressSpace();
  space.addRam(0, kvm.mapAnonymous(UNIT));
  for (let gpa = 0; gpa < 64; gpa++) space.writeU8(gpa, gpa);
  const gpas = Float64Array.of(0, 16, 32);
  const gathered = (lengths: number | number[]): number[] => {
    const into = new Uint8Array(24);
    space.gather(gpas, lengths, into);
    return [...into.filter((byte, i) => byte !== 0 || i === 0)];
  };
  const twos = [0, 1, 16, 17, 32, 33];
  expect(gathered(2)).toEqual(twos);
  expect(gathered([3, 1, 1])).toEqual([0, 1, 2, 16, 32]);
  expect(gathered(2)).toEqual(twos);
  expect(gathered(1)).toEqual([0, 16, 32]);
  expect(gathered([3, 1, 1])).toEqual([0, 1, 2, 16, 32]);
  expect(gathered(1)).toEqual([0, 16, 32]);
  expect(gathered(2)).toEqual(twos);
});
