// A little of everything, for the leak check (native/sanitize/run.mjs --leaks): what is closed and what is left open.
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { calls, spinningVcpu } from './addon.mjs';

for (let i = 0; i < 20; i++) {
  const { kvm, vm, vcpu } = spinningVcpu();
  const running = calls.runAsync(vcpu);
  calls.kick(vcpu);
  await running;
  calls.run(vcpu, 1);
  const bitmap = new Uint8Array(8);
  calls.getDirtyLog(vm, 0, bitmap);
  for (const fd of [vcpu, vm, kvm]) calls.close(fd);
  const hva = calls.mmap(0x10000, 3, 0x22, -1, 0, 0, 0);
  calls.view(hva, 0x10000);
  if (i % 2 === 0) calls.munmap(hva, 0x10000);
  const ends = new Int32Array(2);
  calls.sharing.socketPair(1, ends);
  const waits = [calls.poll(ends[0], 1), calls.poll(ends[0], 1), calls.poll(ends[1], 4)];
  calls.sharing.sendMessage(ends[1], new Uint8Array(1), ends);
  await Promise.all(waits);
  const received = new Int32Array(3);
  calls.sharing.receiveMessage(ends[0], new Uint8Array(1), received);
  calls.poll(received[0], 1);
  if (i % 2 === 0) for (const fd of [...ends, ...received]) calls.close(fd);
}
for (const how of ['run', 'runAsync']) {
  const worker = new Worker(new URL('worker-in-guest.mjs', import.meta.url), { workerData: { how } });
  await once(worker, 'message');
  await worker.terminate();
}
calls.runAsync(spinningVcpu().vcpu);
setTimeout(() => process.exit(0), 20);
