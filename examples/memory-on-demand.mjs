// Memory that is plugged in and out while a guest runs: a region over reserved addresses, filled piece by piece.
import { halt, store } from 'kvm-bridge/raw';
import { hex, loadGuest, openKvm, u32 } from './support/guest.mjs';

const PLUG = 0xd000_0000; // a store of an address here plugs in the MiB at it
const UNPLUG = 0xd000_0004;
const MORE = 0x4000_0000; // 1 GiB in which there is nothing yet
const MIB = 1 << 20;

const kvm = openKvm();
const vm = kvm.createVm();
vm.memory.addRam(0, kvm.mapAnonymous(MIB));
const reserved = kvm.reserve(1 << 30);
vm.memory.addRam(MORE, reserved, { name: 'more' });

vm.memory.addMmio(PLUG, 8, {
  write(offset, value) {
    const address = Number(value);
    console.log(`the guest ${offset === 0 ? 'asks for' : 'gives back'} the MiB at ${hex(address)}`);
    if (offset === 0) reserved.mapMemfd(address - MORE, MIB);
    else reserved.unmapPart(address - MORE, MIB);
  },
});

const first = MORE + 5 * MIB;
const second = MORE + 1000 * MIB;
const steps = [
  [PLUG, first],
  [first + 0x10, 0x11],
  [PLUG, second],
  [second + 0x20, 0x22],
  [UNPLUG, first],
];
const vcpu = vm.createVcpu();
loadGuest(vcpu, {
  // mov eax, value; mov [address], eax
  code: [
    ...steps.flatMap(([address, value]) => [0x66, 0xb8, ...u32(value), 0x66, 0x67, 0x89, 0x05, ...u32(address)]),
    0xf4,
  ],
  *program() {
    for (const [address, value] of steps) yield store(address, 4, BigInt(value));
    yield halt;
  },
});
await vcpu.run();

console.log(
  `at ${hex(second + 0x20)}: ${hex(vm.memory.readU32(second + 0x20))}, in one memslot of ${vm.memslots.size}`,
);
try {
  vm.memory.readU32(first + 0x10);
} catch (error) {
  console.log(`${error.code} ${error.explanation}`);
}
console.log(reserved);

vm.close();
kvm.close();
