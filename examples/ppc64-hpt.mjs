// A ppc64 guest's hashed page table: written, copied to another VM while the guest changes it, and explained.
import { Kvm } from 'kvm-bridge';
import { diffHtabs, encodeHpte, Htab, htabStats, primaryGroup, VRMA_VSID, vrmaSegment } from 'kvm-bridge/ppc64';
import { hypercall, spin, store } from 'kvm-bridge/raw';

const ORDER = 18;
const PAGE = 4096;
const FIRST = 0x10_0000;
const PAGES = 500;
const H_PROTECT = 0x18;

// Emulated, on whatever machine this is. On a real ppc64 host only the guest has to be machine code.
const kvm = Kvm.open({ backend: 'emulated', arch: 'ppc64' });

function createVm() {
  const vm = kvm.createVm();
  vm.memory.addRam(0, kvm.mapAnonymous(16 << 20));
  return vm;
}

// Entries that map real-mode addresses to themselves, each where the processor looks for it.
const table = new Htab(ORDER);
const slots = [];
for (let ea = FIRST; ea < FIRST + PAGES * PAGE; ea += PAGE) {
  const slot = primaryGroup(vrmaSegment(), ea, ORDER) * 8;
  table.set(slot, encodeHpte({ vsid: VRMA_VSID, segmentSize: '1T', offset: ea, ra: ea, bolted: true, pp: 0 }));
  slots.push(slot);
}

const vm = createVm();
vm.hpt.allocate(ORDER);
vm.hpt.write(table);

// The guest stores to each page, and gives its entry another key, again and again.
const vcpu = vm.createVcpu();
vcpu.ppc64.enablePapr();
kvm.emulated.loadGuest(
  vcpu.fd,
  (function* () {
    for (let round = 0; round < 6; round++) {
      for (const [page, slot] of slots.entries()) {
        yield store(FIRST + page * PAGE, 4, BigInt(round));
        yield hypercall(H_PROTECT, BigInt(round & 7) << 9n, BigInt(slot));
      }
    }
    yield spin;
  })(),
);
const running = vcpu.run();

const target = createVm();
await vm.hpt.copyTo(target, {
  settled: 0,
  onPass: ({ pass, slots, last }) => console.log(`pass ${pass}${last ? ', the last' : ''}: ${slots} slots`),
  async stop() {
    vcpu.kick();
    await running;
  },
});

const here = vm.hpt.read();
const there = target.hpt.read();
const { valid, bolted, changed } = htabStats(there);
console.log(`${valid} entries, ${bolted} bolted, ${changed} changed; ${[...diffHtabs(here, there)].length} differ`);
console.log(target.hpt.translate(0x10_2008, [vrmaSegment()]));

vm.close();
target.close();
kvm.close();
