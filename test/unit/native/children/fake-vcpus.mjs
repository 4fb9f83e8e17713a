// vCPU threads, close and kicks on the fake KVM (preload/preload.c): no hardware, and guests that don't leave when told to.
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { calls } from './addon.mjs';

const EINTR = -4;
const EAGAIN = -11;
const EBUSY = -16;
/** Such a guest leaves after that many tenths of a second, and no signal gets it out before. */
const stuckFor = (tenths) => 100 + tenths;

function equal(actual, expected, what) {
  if (actual !== expected) throw new Error(`${what}: ${actual} instead of ${expected}`);
}

const descriptors = () => readdirSync('/proc/self/fd').length;

/** A guest that stays inside for longer than close waits, in a worker that ends before it. */
async function stuck() {
  // What Node keeps from its first worker is Node's.
  await new Promise((resolve) => new Worker('', { eval: true }).once('exit', resolve));
  const before = descriptors();
  const worker = new Worker(
    `import(${JSON.stringify(new URL('addon.mjs', import.meta.url).href)}).then(({ calls }) => {
      const kvm = calls.openKvm();
      const vm = calls.createVm(kvm, 0);
      const vcpu = calls.createVcpu(vm, ${stuckFor(18)});
      calls.runAsync(vcpu);
      setTimeout(() => {
        if (calls.stop(vcpu) !== ${EBUSY}) throw new Error('a stuck guest was stopped');
        for (const fd of [vcpu, vm, kvm]) calls.close(fd);
        process.exit(0);
      }, 20);
    });`,
    { eval: true },
  );
  await new Promise((resolve) => worker.once('exit', resolve));
  await delay(1500);
  if (descriptors() > before) throw new Error(`${before} descriptors became ${descriptors()}`);
}

/** Many runs, kicks and closes at once. */
async function storm(rounds) {
  const kvm = calls.openKvm();
  const vm = calls.createVm(kvm, 0);
  const before = descriptors();
  let kicks = 0;
  for (let round = 0; round < rounds; round++) {
    const vcpus = Array.from({ length: 8 }, (_, id) => calls.createVcpu(vm, id));
    const running = vcpus.map((vcpu) => calls.runAsync(vcpu));
    for (let i = 0; i < 40; i++) {
      equal(calls.kick(vcpus[(i * 5) % 8]), 0, 'kick');
      kicks++;
    }
    if (round % 3 === 0) await delay(1);
    // Some are closed while they run, the others kicked or stopped.
    for (const [i, vcpu] of vcpus.entries()) if (i % 3 === 0) equal(calls.stop(vcpu), 0, 'stop');
    for (const [i, vcpu] of vcpus.entries()) if (i % 2 === round % 2) equal(calls.close(vcpu), 0, 'close');
    for (const result of await Promise.all(running)) equal(result, EINTR, 'runAsync');
    for (const vcpu of vcpus) calls.close(vcpu);
    equal(descriptors(), before, 'descriptors');
  }
  for (const fd of [vm, kvm]) calls.close(fd);
  console.log(JSON.stringify({ rounds, kicks }));
}

/** What is asked of the kernel right after a run is never interrupted by what got the run out. */
function quiet() {
  const NAP = 0x10000;
  const kvm = calls.openKvm();
  const vcpu = calls.createVcpu(calls.createVm(kvm, 0), 0);
  for (const timeout of [5, 150]) {
    equal(calls.run(vcpu, timeout), EINTR, 'run');
    equal(calls.checkExtension(kvm, NAP + 250), 0, 'the call after it');
  }
  // And a run after that still ends in time.
  const start = performance.now();
  equal(calls.run(vcpu, 20), EINTR, 'run');
  if (performance.now() - start < 15) throw new Error('the run ended early');
}

/** Threads that block all signals but the one that ends runs, those that nobody can block, and those of the C library. */
function blockingThreads() {
  const blocked = readdirSync('/proc/self/task').map((task) => {
    const [, mask] = /^SigBlk:\t([0-9a-f]+)$/m.exec(readFileSync(`/proc/self/task/${task}/status`, 'utf8'));
    return [...BigInt(`0x${mask}`).toString(2)].filter((bit) => bit === '1').length;
  });
  return blocked.filter((count) => count >= 58).length;
}

/** A vCPU that changes threads blocks in the guest what its thread does, and what ends runs gets through to both. */
async function masks() {
  const vcpu = calls.createVcpu(calls.createVm(calls.openKvm(), 0), 0);
  const others = blockingThreads();
  for (let turn = 0; turn < 3; turn++) {
    for (const timeout of [5, 20]) equal(calls.run(vcpu, timeout), EINTR, 'run');
    const running = calls.runAsync(vcpu);
    await delay(50);
    equal(blockingThreads(), others + 1, 'threads that block all, with its own');
    calls.kick(vcpu);
    equal(await running, EINTR, 'runAsync');
  }
}

switch (process.argv[2]) {
  case 'masks':
    await masks();
    break;
  case 'quiet':
    quiet();
    break;
  case 'stuck':
    await stuck();
    break;
  case 'storm':
    await storm(Number(process.argv[3]));
    break;
  case 'no-signal': {
    const vcpu = calls.createVcpu(calls.createVm(calls.openKvm(), 0), 0);
    equal(calls.run(vcpu, 5), EAGAIN, 'run');
    equal(await calls.runAsync(vcpu), EAGAIN, 'runAsync');
    break;
  }
  default:
    throw new Error('how?');
}
