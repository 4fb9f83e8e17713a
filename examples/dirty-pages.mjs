// Which pages did the guest write to? And which did this process?
import { halt, store } from 'kvm-bridge/raw';
import { hex, loadGuest, openKvm, u32 } from './support/guest.mjs';

const kvm = openKvm();
const vm = kvm.createVm();
vm.memory.addRam(0, kvm.mapAnonymous(1 << 20));
const vcpu = vm.createVcpu();

loadGuest(vcpu, {
  code: [
    ...[0x67, 0x88, 0x05, ...u32(0x3000)], // mov [0x3000], al
    ...[0x67, 0x88, 0x05, ...u32(0x4fff)], // mov [0x4fff], al
    ...[0x67, 0x88, 0x05, ...u32(0x8_0000)], // mov [0x80000], al
    0xf4, // hlt
  ],
  *program() {
    for (const gpa of [0x3000, 0x4fff, 0x8_0000]) yield store(gpa, 1, 0n);
    yield halt;
  },
});

const dirty = vm.dirtyPages.start();
await vcpu.run();
vm.memory.writeU32(0xf_0000, 1); // KVM knows nothing of this one; it is counted all the same

for (const { gfn, npages } of dirty.collect().runs()) {
  console.log(`${npages} page(s) from ${hex(gfn * kvm.pageSize)} on`);
}
console.log(`and since then: ${dirty.collect().count}`);

vm.close();
kvm.close();
