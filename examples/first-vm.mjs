// A VM with one MiB of RAM, whose guest stores a number and halts.
import { halt, store } from 'kvm-bridge/raw';
import { hex, loadGuest, openKvm, u32 } from './support/guest.mjs';

const kvm = openKvm();
const vm = kvm.createVm();
const ram = kvm.mapAnonymous(1 << 20);
vm.memory.addRam(0, ram, { name: 'ram' });

const vcpu = vm.createVcpu();
loadGuest(vcpu, {
  code: [
    ...[0x66, 0xb8, ...u32(0xcafe)], // mov eax, 0xcafe
    ...[0x66, 0x67, 0x89, 0x05, ...u32(0x2000)], // mov [0x2000], eax
    0xf4, // hlt
  ],
  *program() {
    yield store(0x2000, 4, 0xcafen);
    yield halt;
  },
});

const exit = await vcpu.run();
console.log(kvm);
console.log(vm);
console.log(`the guest came back with ${exit.reason}, and left ${hex(vm.memory.readU32(0x2000))} at 0x2000`);

vm.close();
ram.close();
kvm.close();
