// What may be had of a memfd's memory: where the kernel may have no page for it when it is touched, only copies.
import { calls } from './addon.mjs';

const LENGTH = 4 * calls.pageSize;
const memfd = calls.memfdCreate('overcommit', LENGTH, 0);
const hva = calls.mmap(LENGTH, 3, 1, memfd, 0, 0, 0);
const view = calls.view(hva, LENGTH);
const copied = calls.writeMemory(hva, new Uint8Array(8)) === 8;
if (typeof view !== 'number') console.log('views');
else console.log(view === -13 && copied ? 'EACCES, and copies' : `${view}`);
