// A device of two registers: what is stored to the first is squared in the second.
import { halt, load, store } from 'kvm-bridge/raw';
import { hex, loadGuest, openKvm, u32 } from './support/guest.mjs';

const DEVICE = 0xd000_0000;

const kvm = openKvm();
const vm = kvm.createVm();
vm.memory.addRam(0, kvm.mapAnonymous(1 << 20));

let operand = 0;
vm.memory.addMmio(
  DEVICE,
  8,
  {
    write(offset, value, size) {
      console.log(`the guest stores ${hex(value)} (${size} bytes) at +${offset}`);
      operand = Number(value);
    },
    read(offset, size) {
      console.log(`the guest loads ${size} bytes at +${offset}, and gets ${operand ** 2}`);
      return operand ** 2;
    },
  },
  { name: 'squarer' },
);

const vcpu = vm.createVcpu();
loadGuest(vcpu, {
  code: [
    ...[0x66, 0xb8, ...u32(12)], // mov eax, 12
    ...[0x66, 0x67, 0x89, 0x05, ...u32(DEVICE)], // mov [DEVICE], eax
    ...[0x66, 0x67, 0x8b, 0x05, ...u32(DEVICE + 4)], // mov eax, [DEVICE + 4]
    ...[0x66, 0x67, 0x89, 0x05, ...u32(0x2000)], // mov [0x2000], eax
    0xf4, // hlt
  ],
  *program() {
    yield store(DEVICE, 4, 12n);
    const square = yield load(DEVICE + 4, 4);
    yield store(0x2000, 4, square);
    yield halt;
  },
});

await vcpu.run(); // comes back with the first exit that no handler takes: the halt
console.log(`in RAM: ${vm.memory.readU32(0x2000)}`);

vm.close();
kvm.close();
