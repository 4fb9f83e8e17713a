// ArrayBuffer.prototype.transfer moves the memory of a view into an ArrayBuffer that the addon has never seen.
import { calls } from './addon.mjs';

const LENGTH = 0x10000;
const turn = () => new Promise((resolve) => setImmediate(resolve));

{
  const hva = calls.mmap(LENGTH, 3, 0x22, -1, 0, 0, 0);
  let moved = calls.view(hva, LENGTH).transfer();
  new Uint8Array(moved).fill(1);
  if (calls.mprotect(hva, LENGTH, 1) !== -16) throw new Error('the memory is in use');
  if (calls.munmap(hva, LENGTH) !== 0) throw new Error('munmap');
  if (new Uint8Array(moved)[5] !== 0) throw new Error('the mapping is gone, but its bytes are still there');
  new Uint8Array(moved).fill(2);
  // The addresses aren't given to anybody else meanwhile.
  const others = Array.from({ length: 50 }, () => calls.mmap(LENGTH, 3, 0x22, -1, 0, 0, 0));
  for (const other of others) calls.writeMemory(other, new Uint8Array(LENGTH).fill(3));
  if (new Uint8Array(moved).some((byte) => byte !== 2)) throw new Error('another mapping took the place');
  moved = undefined;
  globalThis.gc();
  await turn();
  globalThis.gc();
  await turn();
}

let refused = false;
const hva = calls.mmap(LENGTH, 3, 0x22, -1, 0, 0, 0);
const view = calls.view(hva, LENGTH);
try {
  structuredClone(view, { transfer: [view] });
} catch {
  refused = true;
}
calls.munmap(hva, LENGTH);
if (!refused && view.byteLength !== 0) throw new Error('a view is left over');
