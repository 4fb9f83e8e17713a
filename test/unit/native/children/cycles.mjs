// Opens and closes everything again and again: neither descriptors nor memory may become more.
import { readdirSync, readFileSync } from 'node:fs';
import { calls, spinningVcpu } from './addon.mjs';

const cycles = Number(process.argv[2] ?? 10_000);
const RAM_BYTES = 0x10000;
const descriptors = () => readdirSync('/proc/self/fd').length;
const mappings = () => readFileSync('/proc/self/maps', 'utf8').split('\n').length;

async function cycle(i) {
  const { kvm, vm, vcpu, release } = spinningVcpu();
  if (i % 100 === 0) {
    const running = calls.runAsync(vcpu);
    calls.kick(vcpu);
    await running;
  }
  const ram = calls.mmap(RAM_BYTES, 3, 0x22, -1, 0, 0, 0);
  new Uint8Array(calls.view(ram, RAM_BYTES))[0] = 1;
  calls.setUserMemoryRegion(vm, 1, 1, 0x100000, RAM_BYTES, ram);
  calls.getDirtyLog(vm, 1, new Uint8Array(8));
  const memfd = calls.memfdCreate('cycle', RAM_BYTES, 0);
  const event = calls.eventfd(0);
  calls.ioeventfd(vm, 0x200000, 4, event, 0, 0);
  for (const fd of [vcpu, event, memfd, vm, kvm]) calls.close(fd);
  calls.munmap(ram, RAM_BYTES);
  release();
}

async function measure(count) {
  for (let i = 0; i < count; i++) await cycle(i);
  globalThis.gc();
  await new Promise((resolve) => setImmediate(resolve));
  globalThis.gc();
  return { descriptors: descriptors(), mappings: mappings(), rss: process.memoryUsage.rss() };
}

const before = await measure(Math.ceil(cycles / 4));
const after = await measure(cycles);
console.log(JSON.stringify({ before, after }));
