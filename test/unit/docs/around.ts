import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { encodeHtabStream, Htab, slbOfSregs } from '../../../lib/arch/ppc64/model/index.ts';
import { Kvm } from '../../../lib/index.ts';
import { type Arch, type GuestProgram, hypercall } from '../../../lib/raw.ts';
import type { Block } from './blocks.ts';

const MEMORY = 32 << 20;
const GFN = 3;

/** Comes back to user space with a hypercall that the kernel doesn't know. */
function* guest(): GuestProgram {
  yield hypercall(0xf000);
}

/** What the text around a block has introduced, on the emulated kernel. Files are written into `scratch`. */
export function around({ name, code }: Block, scratch: string): Record<string, unknown> & Disposable {
  const arch = (/s390x|ppc64/.exec(name)?.[0] ?? 'x86_64') as Arch;
  const kvm = Kvm.open({ backend: 'emulated', arch });
  const vm = kvm.createVm();
  vm.memory.addRam(0, kvm.mapAnonymous(MEMORY));
  const other = kvm.createVm();
  if (arch === 's390x') {
    for (const each of [vm, other]) each.cmma.enable();
    other.memory.addRam(0, kvm.mapAnonymous(MEMORY));
    // What MEM_OP accesses is there, and may be stored to with the key that the text uses.
    vm.memory.fill(0, MEMORY, 1);
    vm.storageKeys.set(GFN, [{ acc: 3, fetchProtection: false, reference: false, change: false }]);
  }
  const vcpu = vm.createVcpu();
  if (arch === 'ppc64') {
    vcpu.ppc64.enablePapr();
    kvm.emulated!.loadGuest(vcpu.fd, guest());
  }
  return {
    kvm,
    vm,
    vcpu,
    other,
    bytes: encodeHtabStream(new Htab(18)),
    // Only where it is used: the collector would have as much to do as all else here.
    ...(/\bdump\b/.test(code) ? { dump: new Uint8Array(MEMORY) } : {}),
    gaddr: BigInt(GFN) << 12n,
    file: { write() {} },
    index: new Map(),
    pauseTheGuest: async () => {},
    slbOfSregs,
    pipeline,
    createWriteStream: (path: string) => createWriteStream(join(scratch, path)),
    [Symbol.dispose]: () => kvm.close(),
  };
}
