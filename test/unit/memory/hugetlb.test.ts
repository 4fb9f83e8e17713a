import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { Kvm } from '../../../lib/index.ts';
import { nativeMissing } from '../handles/backends.ts';
import { addon, runChild } from '../native/real.ts';

const HUGE = 0x20_0000;

const freeHugePages = (): number =>
  Number(/HugePages_Free:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);

it('says how to get huge pages where the pool has too few', (test) => {
  if (nativeMissing !== undefined) test.skip(nativeMissing);
  using kvm = Kvm.open({ backend: 'native' });
  expect(() => kvm.mapHugetlb((freeHugePages() + 1) * HUGE)).toThrow(
    expect.objectContaining({ code: 'ENOMEM', explanation: expect.stringContaining('vm.nr_hugepages') }),
  );
});

it('maps huge pages of the pool', (test) => {
  if (nativeMissing !== undefined) test.skip(nativeMissing);
  const free = freeHugePages();
  test.skip(free === 0, 'this host has no huge pages to give: sudo sysctl vm.nr_hugepages=8');
  using kvm = Kvm.open({ backend: 'native' });
  using vm = kvm.createVm();
  vm.memory.addRam(0, kvm.mapHugetlb(HUGE));
  vm.memory.writeU64(HUGE - 8, 0x1122_3344_5566_7788n);
  expect(vm.memory.readU64(HUGE - 8)).toBe(0x1122_3344_5566_7788n);
  expect(freeHugePages()).toBe(free - 1);
});

// Here and not in native/: all who use the pool come one after the other.
it('huge pages that somebody else takes out of a memfd make no copy fatal, and there are no views of them', (test) => {
  addon(test);
  const child = runChild('huge-pages');
  if (child.stdout.startsWith('skip: ')) test.skip(child.stdout.slice(6).trim());
  expect(child).toMatchObject({ status: 0, signal: null, stderr: '' });
});
