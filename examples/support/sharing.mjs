// What the examples of shared memory need: the addon's calls, and passes of a migration.
import { loadNative } from 'kvm-bridge/raw';

/** The addon's calls; the example ends with what is missing when there is no addon. */
export function addonCalls() {
  const native = loadNative();
  if ('calls' in native) return native.calls;
  console.log(`This needs the addon, to share memory with others: ${native.reason}`);
  process.exit(0);
}

/** Copies the pages that have become dirty to another VM's memory: how many. */
export function copyDirtyPages(dirty, from, to) {
  const { pageSize } = from;
  dirty.collect();
  for (const { gfn, npages } of dirty.runs()) {
    to.writeExact(gfn * pageSize, from.readExact(gfn * pageSize, npages * pageSize));
  }
  return dirty.count;
}

/** Prints a number, and remembers when it isn't the right one: the example then ends with exit status 1. */
export function report(what, value, right) {
  const isRight = right === undefined || value === right;
  console.log(`${what}: ${value}${isRight ? '' : `, and should be ${right}`}`);
  if (!isRight) process.exitCode = 1;
}
