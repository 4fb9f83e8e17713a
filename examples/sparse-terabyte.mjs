// A guest of one TiB on a machine of any size: only pages that are touched cost memory.
import { openKvm } from './support/guest.mjs';

const TIB = 2 ** 40;
const MIB = 2 ** 20;

const kvm = openKvm();
const vm = kvm.createVm();
const ram = kvm.mapAnonymous(TIB);
vm.memory.addRam(0, ram, { name: 'a terabyte' });
for (let gpa = 0; gpa < TIB; gpa += TIB / 16) vm.memory.writeU64(gpa + 0x1234_5678, BigInt(gpa));

const last = (TIB / 16) * 15;
console.log(vm.memory);
console.log(`read back from the last sixteenth: ${vm.memory.readU64(last + 0x1234_5678) === BigInt(last)}`);
console.log(`this process has ${Math.round(process.memoryUsage.rss() / MIB)} MiB of memory`);

vm.close();
ram.close();
kvm.close();
