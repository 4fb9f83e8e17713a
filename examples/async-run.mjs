// A guest that never ends runs off the main thread, until an AbortSignal gets it out.
import { spin } from 'kvm-bridge/raw';
import { loadGuest, openKvm } from './support/guest.mjs';

const kvm = openKvm();
const vm = kvm.createVm();
vm.memory.addRam(0, kvm.mapAnonymous(1 << 20));
const vcpu = vm.createVcpu();

loadGuest(vcpu, {
  code: [0xeb, 0xfe], // here: jmp here
  *program() {
    yield spin;
  },
});

let ticks = 0;
const timer = setInterval(() => {
  ticks++;
}, 10);
try {
  await vcpu.run({ signal: AbortSignal.timeout(200) });
} catch (error) {
  console.log(`the run ended with ${error.name}; the event loop went on meanwhile: ${ticks > 1}`);
}
clearInterval(timer);

// kick() is the gentle way: the run comes back with INTR.
const running = vcpu.run();
setTimeout(() => vcpu.kick(), 20);
console.log(`kicked: ${(await running).reason}`);

vm.close();
kvm.close();
