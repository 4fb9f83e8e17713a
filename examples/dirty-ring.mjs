// Dirty pages from a ring for each vCPU, in place of a bitmap for each slot: what is dirty is all there is to look at.
import { halt, store } from 'kvm-bridge/raw';
import { hex, loadGuest, openKvm, u32 } from './support/guest.mjs';

const FIRST = 0x1_0000;
const END = 0x7_0000;

const kvm = openKvm();
const vm = kvm.createVm();
vm.enableDirtyRing(64 * 1024); // before the first vCPU; 16 bytes for each page
vm.memory.addRam(0, kvm.mapAnonymous(1 << 20));
const vcpu = vm.createVcpu();

loadGuest(vcpu, {
  code: [
    ...[0x66, 0xbb, ...u32(FIRST)], // mov ebx, FIRST
    ...[0x67, 0x88, 0x03], // next: mov [ebx], al
    ...[0x66, 0x81, 0xc3, ...u32(0x1000)], // add ebx, 0x1000
    ...[0x66, 0x81, 0xfb, ...u32(END)], // cmp ebx, END
    ...[0x72, 0xed], // jb next
    0xf4, // hlt
  ],
  *program() {
    for (let gpa = FIRST; gpa < END; gpa += 0x1000) yield store(gpa, 1, 0n);
    yield halt;
  },
});

const dirty = vm.dirtyPages.start();
await vcpu.run();
dirty.collect();
console.log(dirty);
for (const { gfn, npages } of dirty.runs()) console.log(`${npages} pages from ${hex(gfn * kvm.pageSize)} on`);

vm.close();
kvm.close();
