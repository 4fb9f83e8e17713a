// Opens until there are no descriptors left, closes, and opens again.
import { readdirSync } from 'node:fs';
import { calls } from './addon.mjs';

const EMFILE = -24;

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
  for (const fd of fds) calls.close(fd);
}
const after = readdirSync('/proc/self/fd').length;
if (after !== before) throw new Error(`${before} descriptors became ${after}`);
