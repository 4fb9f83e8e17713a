import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { Kvm } from '../../../lib/index.ts';
import { nativeMissing } from './backends.ts';

const HUGE = 0x20_0000;

const freeHugePages = (): number =>
  Number(/HugePages_Free:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);

it('maps huge pages where the pool has some, and says how to get them where it has none', (test) => {
  if (nativeMissing !== undefined) test.skip(nativeMissing);
  using kvm = Kvm.open({ backend: 'native' });
  using vm = kvm.createVm();
  const free = freeHugePages();
  expect(() => kvm.mapHugetlb((free + 1) * HUGE)).toThrow(
    expect.objectContaining({ code: 'ENOMEM', explanation: expect.stringContaining('vm.nr_hugepages') }),
  );
  if (free === 0) return;
  vm.memory.addRam(0, kvm.mapHugetlb(HUGE));
  vm.memory.writeU64(HUGE - 8, 0x1122_3344_5566_7788n);
  expect(vm.memory.readU64(HUGE - 8)).toBe(0x1122_3344_5566_7788n);
  expect(freeHugePages()).toBe(free - 1);
});
