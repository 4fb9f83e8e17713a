// The n-th allocation, mmap, … of the addon fails, for every n: nothing crashes, the error is told, nothing is left over.
import { readdirSync, readFileSync } from 'node:fs';
import { calls } from './addon.mjs';

const KINDS = { allocation: 1, mmap: 2, mprotect: 3, mremap: 4, ioctl: 5, other: 6 };
const FAULT = 0x40000000;
const QUERY = 0x20000000;
const RW = 3;
const PRIVATE = 0x22;
const PAGE = calls.pageSize;
const LENGTH = 16 * PAGE;

const arm = (kind, n) => {
  if (calls.eventfd(FAULT + kind * 65536 + n) !== -33)
    throw new Error('the library that makes calls fail is not loaded');
};
const counted = () => -calls.eventfd(QUERY) - 1000;
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Everything that allocates, with every answer taken as it comes. The errors that there were. */
async function work() {
  const errors = [];
  const open = [];
  const mapped = [];
  const note = (result) => {
    if (result < 0) errors.push(result);
    return result;
  };
  const fd = (result) => {
    if (note(result) >= 0) open.push(result);
    return result;
  };
  const map = (length, prot, flags, of = -1) => {
    const hva = note(calls.mmap(length, prot, flags, of, 0, 0, 0));
    if (hva >= 0) mapped.push([hva, length]);
    return Math.max(hva, 0);
  };
  const kvm = fd(calls.openKvm());
  const vm = fd(calls.createVm(kvm, 0));
  const vcpu = fd(calls.createVcpu(vm, 0));
  const memfd = fd(calls.memfdCreate('faults', LENGTH, 0));
  fd(calls.eventfd(0));
  const ram = map(LENGTH, RW, PRIVATE);
  const shared = map(LENGTH, RW, 1, memfd);
  map(3 * PAGE, RW, 1, vcpu);
  note(calls.setUserMemoryRegion(vm, 0, 1, 0, LENGTH, ram));
  note(calls.getDirtyLog(vm, 0, new Uint8Array(4)));
  for (const hva of [ram, shared]) {
    for (const how of ['view', 'window']) {
      const view = calls[how](hva, LENGTH);
      if (typeof view === 'number') errors.push(view);
      else new Uint8Array(view).fill(1);
    }
  }
  note(calls.munmap(ram + PAGE, PAGE));
  note(calls.munmap(ram + 3 * PAGE, PAGE));
  note(calls.munmap(ram + 2 * PAGE, PAGE));
  const reservation = map(LENGTH, 0, PRIVATE);
  note(calls.mmapFixed(reservation, 8 * PAGE, RW, PRIVATE, -1, 0));
  note(calls.mmapFixed(reservation + 2 * PAGE, PAGE, 0, PRIVATE, -1, 0));
  note(calls.mmapFixed(reservation + 3 * PAGE, PAGE, RW, 1, memfd, 0));
  note(calls.mprotect(reservation + 3 * PAGE, PAGE, 1));
  note(calls.run(vcpu, 5));
  const running = calls.runAsync(vcpu);
  calls.kick(vcpu);
  note(await running);
  for (const [hva, length] of mapped) note(calls.munmap(hva, length));
  for (const number of open) calls.close(number);
  return errors;
}

async function counts() {
  for (let i = 0; i < 3; i++) {
    globalThis.gc();
    await turn();
  }
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    mappings: readFileSync('/proc/self/maps', 'utf8').split('\n').length,
  };
}

for (let i = 0; i < 3; i++) await work();
const before = await counts();
const usual = (await work()).length;
let tried = 0;
for (const [name, kind] of Object.entries(KINDS)) {
  for (let n = 1; ; n++) {
    arm(kind, n);
    const errors = await work();
    const happened = counted() >= n;
    arm(0, 0);
    if (!happened) break;
    tried++;
    if (errors.some((error) => !(error > -134 && error < 0))) throw new Error(`${name} ${n}: ${errors}`);
    const after = await counts();
    if (after.descriptors > before.descriptors)
      throw new Error(`${name} ${n}: ${after.descriptors} descriptors are open`);
    if (after.mappings > before.mappings + 20) {
      throw new Error(`${name} ${n}: ${before.mappings} mappings became ${after.mappings}`);
    }
  }
}
const errors = (await work()).length;
console.log(JSON.stringify({ tried, usual, errors }));
