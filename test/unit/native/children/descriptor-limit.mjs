// Opens until there are no descriptors left, closes, and opens again.
import { readdirSync, readFileSync } from 'node:fs';
import { calls } from './addon.mjs';

const EMFILE = -24;
const READ = 1;
const WRITE = 2;
const SHARED = 1;
/** Then no memfd has views. */
const isStrict = readFileSync('/proc/sys/vm/overcommit_memory', 'utf8').startsWith('2');

function openAll() {
  const fds = [];
  for (;;) {
    const fd = calls.eventfd(0);
    if (fd < 0) return { fds, last: fd };
    fds.push(fd);
  }
}

const kvm = calls.openKvm();
const before = readdirSync('/proc/self/fd').length;
for (let i = 0; i < 2; i++) {
  const { fds, last } = openAll();
  if (last !== EMFILE) throw new Error(`the limit gave ${last}`);
  const more = [calls.openKvm(), calls.createVm(kvm, 0), calls.memfdCreate('x', 4096, 0)];
  if (more.some((fd) => fd !== EMFILE)) throw new Error(`at the limit: ${more}`);
  // The last one is a memfd's: whether its pages are sure to be had was asked before.
  calls.close(fds.pop());
  const memfd = calls.memfdCreate('x', 4096, 0);
  const hva = calls.mmap(4096, READ | WRITE, SHARED, memfd, 0, 0, 0);
  const view = calls.view(hva, 4096);
  if (!isStrict && !(view instanceof ArrayBuffer)) throw new Error(`the memfd has no view: ${view}`);
  calls.munmap(hva, 4096);
  calls.close(memfd);
  for (const fd of fds) calls.close(fd);
}
const after = readdirSync('/proc/self/fd').length;
if (after !== before) throw new Error(`${before} descriptors became ${after}`);
