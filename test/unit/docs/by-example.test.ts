import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { isPublicMember } from '../../../lib/cli/repl/completion.ts';
import { Kvm } from '../../../lib/index.ts';
import type { Arch } from '../../../lib/raw.ts';
import { membersOf } from '../handles/surface.ts';
import { ROOT } from './blocks.ts';

/** What the parts of this package tell one another, and nobody else calls. */
const BETWEEN_PARTS = new Set(
  `addUser assertOpen clear dropViews giveArray harvested memoryChanged pin removeUser slotAdded slotChanging slotMoved slotRemoved takeArray
  toString unpin unwatch vcpuClosed hold letGo owe release vcpuCloses watch window keep accepts`.split(/\s+/),
);

/** Objects of every class that users meet, of the kernel of an architecture. */
function objectsOf(arch: Arch): object[] {
  const kvm = Kvm.open({ backend: 'emulated', arch });
  const vm = kvm.createVm();
  const mapping = kvm.mapAnonymous(1 << 20);
  const region = vm.memory.addRam(0, mapping);
  if (arch === 'ppc64') {
    vm.hpt.allocate(18);
    return [vm.hpt, vm.hpt.openReader(), vm.hpt.openWriter()];
  }
  const vcpu = vm.createVcpu();
  if (arch === 's390x') return [vm.memOp, vcpu.memOp, vm.storageKeys, vm.cmma];
  const binding = vm.memory.bind();
  const mmio = vm.memory.addMmio(0xd000_0000, 4096, {});
  const own = [
    kvm,
    vm,
    vcpu,
    vcpu.kvmRun,
    vcpu.x86_64,
    vm.memory,
    region,
    mmio,
    binding,
    binding.vmap(0, 16),
    vm.dirtyPages,
  ];
  return [...own, vm.memslots, mapping, kvm.reserve(1 << 20), vm.io, vm.io.ports, kvm.createEventFd()];
}

describe.each([
  ['x86_64', 'by-example.md'],
  ['s390x', 'by-example-s390x.md'],
  ['ppc64', 'by-example-ppc64.md'],
] as const)('what users of %s can call', (arch, page) => {
  const text = readFileSync(`${ROOT}/docs/${page}`, 'utf8');
  it.each(objectsOf(arch).map((object) => [object.constructor.name, object] as const))(
    'has an example: %s',
    (_, object) => {
      const wanted = membersOf(object).filter((name) => isPublicMember(object, name) && !BETWEEN_PARTS.has(name));
      expect(wanted.length).toBeGreaterThan(0);
      expect(wanted.filter((name) => !new RegExp(`\\.${name}\\b`).test(text))).toEqual([]);
    },
  );
});
