// What is done with the addon while one of its calls fails: each takes every answer as it comes, gives everything back, and tells the errors.
import { mkdtempSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { calls } from './addon.mjs';

const RW = 3;
const READ = 1;
const SHARED = 1;
const PRIVATE = 0x22;
const POLLIN = 1;
const STREAM = 1;
const SEQPACKET = 5;
const SEAL_SHRINK = 2;
const DIRTY_LOG_RING = 192;
const DIRTY_LOG_PAGE_OFFSET = 64;
const PUNCH_HOLE = 3;
const WP_ASYNC = 1n << 15n;
const EAGAIN = 11;
const PAGE = calls.pageSize;
const LENGTH = 16 * PAGE;
const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
const file = join(folder, 'file');
writeFileSync(file, new Uint8Array(PAGE));
process.on('exit', () => rmSync(folder, { recursive: true }));

/** What one workload opened and mapped, and the errors that there were. */
class Work {
  errors = [];
  #open = [];
  #mapped = [];

  note(result) {
    if (result < 0) this.errors.push(result);
    return result;
  }

  /** A descriptor, which is closed in the end. */
  fd(result) {
    if (this.note(result) >= 0) this.#open.push(result);
    return result;
  }

  /** An address of so many bytes; 0 where there is none. */
  map(length, prot, flags, of = -1) {
    const hva = this.note(calls.mmap(length, prot, flags, of, 0, 0, 0));
    if (hva >= 0) this.#mapped.push([hva, length]);
    return Math.max(hva, 0);
  }

  end() {
    for (const [hva, length] of this.#mapped) this.note(calls.munmap(hva, length));
    for (const number of this.#open) calls.close(number);
    return this.errors;
  }
}

/** Guests, their memory, and views of it. */
async function guests() {
  const work = new Work();
  const kvm = work.fd(calls.openKvm());
  const vm = work.fd(calls.createVm(kvm, 0));
  const vcpu = work.fd(calls.createVcpu(vm, 0));
  const memfd = work.fd(calls.memfdCreate('faults', LENGTH, 0));
  work.fd(calls.eventfd(0));
  const ram = work.map(LENGTH, RW, PRIVATE);
  const shared = work.map(LENGTH, RW, SHARED, memfd);
  work.map(3 * PAGE, RW, SHARED, vcpu);
  work.note(calls.setUserMemoryRegion(vm, 0, 1, 0, LENGTH, ram));
  work.note(calls.getDirtyLog(vm, 0, new Uint8Array(4)));
  for (const hva of [ram, shared]) {
    for (const how of ['view', 'window']) {
      const view = calls[how](hva, LENGTH);
      if (typeof view === 'number') work.errors.push(view);
      else new Uint8Array(view).fill(1);
    }
  }
  for (const page of [1, 3, 2]) work.note(calls.munmap(ram + page * PAGE, PAGE));
  const reservation = work.map(LENGTH, 0, PRIVATE);
  work.note(calls.mmapFixed(reservation, 8 * PAGE, RW, PRIVATE, -1, 0));
  work.note(calls.mmapFixed(reservation + 2 * PAGE, PAGE, 0, PRIVATE, -1, 0));
  work.note(calls.mmapFixed(reservation + 3 * PAGE, PAGE, RW, SHARED, memfd, 0));
  work.note(calls.mprotect(reservation + 3 * PAGE, PAGE, READ));
  work.note(calls.run(vcpu, 5));
  const running = calls.runAsync(vcpu);
  calls.kick(vcpu);
  work.note(await running);
  return work.end();
}

/** A table in a memfd, with its locks, and descriptors that go over sockets. */
async function sharing() {
  const work = new Work();
  const { sharing } = calls;
  const table = work.fd(calls.memfdCreate('table', LENGTH, 0));
  work.note(sharing.addSeals(table, SEAL_SHRINK));
  work.note(sharing.getSeals(table));
  const own = work.fd(sharing.reopen(table));
  const other = work.fd(sharing.duplicate(table));
  work.note(sharing.lockRange(own, 0, 8));
  work.note(sharing.isLocked(table, 0, 8));
  work.note(sharing.unlockRange(own, 0, 8));
  work.map(LENGTH, RW, SHARED, own);
  const ends = new Int32Array(2).fill(-1);
  if (work.note(sharing.socketPair(STREAM, ends)) >= 0) {
    if (ends.some((end) => end < 0)) throw new Error(`a pair of ${ends}`);
    for (const end of ends) work.fd(end);
  }
  work.note(sharing.peerCredentials(ends[0], new Uint32Array(3)));
  for (let i = 0; i < 2; i++) {
    work.note(sharing.sendMessage(ends[0], new Uint8Array(8), Int32Array.of(table, other, table)));
    receive(work, ends[1]);
  }
  const path = join(folder, 'socket');
  const listener = work.fd(sharing.socketListen(path, SEQPACKET, 4));
  const client = work.fd(sharing.socketConnect(path, SEQPACKET));
  const served = work.fd(sharing.socketAccept(listener));
  work.note(sharing.sendMessage(client, new Uint8Array(8), Int32Array.of(table)));
  receive(work, served);
  try {
    unlinkSync(path);
  } catch {
    // Nobody listened.
  }
  return work.end();
}

function receive(work, socket) {
  const fds = new Int32Array(8);
  work.note(calls.sharing.receiveMessage(socket, new Uint8Array(8), fds));
  let ended = false;
  for (const fd of fds) {
    if (fd < -1 || (ended && fd !== -1)) throw new Error(`descriptors ${fds}`);
    ended ||= fd === -1;
    if (fd >= 0) work.fd(fd);
  }
}

/** Eventfds that KVM has, and those who wait for one. */
async function eventfds() {
  const work = new Work();
  const kvm = work.fd(calls.openKvm());
  const vm = work.fd(calls.createVm(kvm, 0));
  const [doorbell, interrupt] = [work.fd(calls.eventfd(0)), work.fd(calls.eventfd(0))];
  work.note(calls.ioeventfd(vm, 0x1000, 4, doorbell, 0, 0));
  work.note(calls.irqfd(vm, interrupt, 1, 0, -1));
  work.note(calls.registerCoalescedMmio(vm, 0x2000, 0x100, 0));
  const counter = new Uint8Array(8);
  counter[0] = 1;
  const first = calls.poll(doorbell, POLLIN);
  const second = calls.poll(doorbell, POLLIN);
  // Who waits for what never comes is told to stop.
  if (work.note(calls.write(doorbell, counter)) < 0) await calls.poll(doorbell, 0);
  for (const ready of await Promise.all([first, second])) work.note(ready);
  work.note(calls.read(doorbell, counter));
  const waiting = calls.poll(interrupt, POLLIN);
  await calls.poll(interrupt, 0);
  work.note(await waiting);
  return work.end();
}

/** Memory that may be gone when it is touched, which is copied by the kernel. */
async function guarded() {
  const work = new Work();
  const kvm = work.fd(calls.openKvm());
  const vm = work.fd(calls.createVm(kvm, 0));
  const vcpu = work.fd(calls.createVcpu(vm, 0));
  // A mapping of two pages, of which the file has one.
  const memfd = work.fd(calls.memfdCreate('short', PAGE, 0));
  const short = work.map(2 * PAGE, RW, SHARED, memfd);
  const reservation = work.map(4 * PAGE, 0, PRIVATE);
  work.note(calls.mmapFixed(reservation + PAGE, PAGE, RW, PRIVATE, -1, 0));
  const bytes = new Uint8Array(64);
  for (const hva of [short, short + PAGE - 32, reservation + PAGE, reservation + 2 * PAGE - 32]) {
    work.note(calls.readMemory(hva, bytes));
    work.note(calls.writeMemory(hva, bytes));
  }
  const pieces = Float64Array.of(short, reservation + PAGE);
  work.note(calls.gather(pieces, Uint32Array.of(32, 32), bytes));
  work.note(calls.scatter(pieces, Uint32Array.of(32, 32), bytes));
  // Structures whose length only the kernel knows go through memory that ends at a guard.
  work.note(calls.getDeviceAttr(vm, 0, 0, bytes));
  work.note(calls.ioctlUnchecked(vcpu, 0x4048aec0, new Uint8Array(3 * PAGE)));
  return work.end();
}

/** Memory of a guest's own, and what KVM tells of stores in rings. */
async function ofOneVm() {
  const work = new Work();
  const kvm = work.fd(calls.openKvm());
  const vm = work.fd(calls.createVm(kvm, 0));
  work.note(calls.enableCap(vm, DIRTY_LOG_RING, 0, [PAGE]));
  const vcpu = work.fd(calls.createVcpu(vm, 0));
  const ring = work.note(calls.mmap(PAGE, RW, SHARED, vcpu, DIRTY_LOG_PAGE_OFFSET * PAGE, 0, 0));
  if (ring >= 0) {
    const view = calls.view(ring, PAGE);
    if (typeof view === 'number') work.errors.push(view);
    else new Int32Array(view).fill(2);
  }
  const guestMemory = work.fd(calls.createGuestMemfd(vm, LENGTH, 3));
  if (guestMemory >= 0) work.note(calls.fallocate(guestMemory, 0, 0, LENGTH));
  const ram = work.map(LENGTH, RW, PRIVATE);
  const shown = work.map(LENGTH, RW, SHARED, guestMemory);
  work.note(calls.setUserMemoryRegion2(vm, 0, 4, 0, LENGTH, ram, guestMemory, 0));
  work.note(calls.setMemoryAttributes(vm, 0, LENGTH, 8, 0));
  work.note(calls.writeMemory(shown, new Uint8Array(64)));
  work.note(calls.readMemory(shown, new Uint8Array(64)));
  work.note(calls.fallocate(guestMemory, PUNCH_HOLE, PAGE, PAGE));
  work.note(calls.run(vcpu, 2));
  work.note(calls.resetDirtyRings(vm));
  work.note(calls.setUserMemoryRegion2(vm, 0, 4, 0, 0, ram, guestMemory, 0));
  if (ring >= 0) work.note(calls.munmap(ring, PAGE));
  return work.end();
}

/** Pages that are brought when they are asked for, and writes that are tracked: as far as this process may. */
async function userfaults() {
  const work = new Work();
  const { uffd } = calls;
  const bytes = new Uint8Array(PAGE);
  const ram = work.map(LENGTH, RW, PRIVATE);
  const served = work.fd(uffd.userfaultfd(0));
  work.note(uffd.uffdApi(served, new BigUint64Array(2)));
  work.note(uffd.uffdRegister(served, ram, LENGTH, 1));
  work.note(uffd.uffdCopy(served, ram, bytes, 0));
  work.note(uffd.uffdZeropage(served, ram + PAGE, PAGE, 0));
  const waiting = calls.poll(served, POLLIN);
  work.note(uffd.uffdWake(served, ram, LENGTH));
  await calls.poll(served, 0);
  work.note(await waiting);
  // That it is missing is no failure; what it is where this cannot be told, is.
  const missing = calls.readMemory(ram + 2 * PAGE, bytes);
  if (missing < 0 && missing !== -EAGAIN) work.errors.push(missing);
  work.note(calls.readMemory(ram, bytes));
  work.note(uffd.uffdUnregister(served, ram, LENGTH));
  const tracked = work.map(LENGTH, RW, PRIVATE);
  const tracking = work.fd(uffd.userfaultfd(0));
  work.note(uffd.uffdApi(tracking, BigUint64Array.of(WP_ASYNC, 0n)));
  work.note(uffd.uffdRegister(tracking, tracked, LENGTH, 2));
  work.note(uffd.uffdWriteprotect(tracking, tracked, LENGTH, 1));
  work.note(calls.writeMemory(tracked + PAGE, bytes));
  work.note(uffd.pagemapScan(tracked, LENGTH, 1, 0, 2, 0, new Uint8Array(8)));
  return work.end();
}

const THREAD = `
const { parentPort, workerData } = require('node:worker_threads');
import(workerData.addon).then(async ({ calls }) => {
  const errors = [];
  const vcpu = calls.sharing.duplicate(workerData.vcpu);
  for (const result of [vcpu, calls.run(vcpu, 2)]) if (result < 0) errors.push(result);
  const running = calls.runAsync(vcpu);
  calls.kick(vcpu);
  const result = await running;
  if (result < 0) errors.push(result);
  calls.close(vcpu);
  parentPort.postMessage(errors);
});`;

/** A vCPU that another thread drives. */
async function threads() {
  const work = new Work();
  const kvm = work.fd(calls.openKvm());
  const vm = work.fd(calls.createVm(kvm, 0));
  const vcpu = work.fd(calls.createVcpu(vm, 0));
  if (vcpu < 0) return work.end();
  const addon = new URL('addon.mjs', import.meta.url).href;
  const worker = new Worker(THREAD, { eval: true, workerData: { addon, vcpu } });
  worker.on('message', (errors) => work.errors.push(...errors));
  worker.on('error', ({ message }) => {
    if (message !== 'kvm-bridge: no memory') throw new Error(message);
    work.errors.push(-12);
  });
  await new Promise((resolve) => worker.once('exit', resolve));
  work.note(calls.stop(vcpu));
  return work.end();
}

export const WORKLOADS = { guests, sharing, eventfds, guarded, threads, ofOneVm, userfaults };
