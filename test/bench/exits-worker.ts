// Runs a vCPU in this worker, with MMIO handlers here or with a loop in C, and tells the processor time of one access.
import { parentPort, workerData } from 'node:worker_threads';
import { loadNative } from '../../lib/backends/native.ts';
import { Vcpu } from '../../lib/handles/vcpu.ts';
import { requireEqual } from './benchmark.ts';
import { loadComparators } from './comparators.ts';

const ACCESSES = 5000;
const native = loadNative();
const comparators = await loadComparators();
if (!('calls' in native)) throw native.error;
if (typeof comparators === 'string') throw new Error(comparators);
const { c, threadTime } = comparators;
const { code, mmio, size, token, tokenInC } = workerData;
const vcpu = await Vcpu.attach(native.calls, token);
const vcpuInC = await Vcpu.attach(native.calls, tokenInC);
let handled = 0;
let stored: number | bigint = 0;
vcpu.vm.memory.addMmio(mmio, size, {
  read: () => {
    handled++;
    return 0x42;
  },
  write: (_offset, value) => {
    handled++;
    stored = value;
  },
});
const accesses = new Uint32Array(1);
parentPort!.on('message', (how: 'runSync' | 'C') => {
  handled = 0;
  const at = how === 'C' ? vcpuInC : vcpu;
  at.x86_64.setRegs({ rip: code, rflags: 2, rcx: ACCESSES });
  const start = threadTime();
  if (how === 'C') c.runUntilHlt(at.fd, at.kvmRun.bytes, mmio, size, accesses);
  else {
    // Signals of somebody else's, as the loop in C takes them.
    while (at.runSync().reason === 'INTR');
  }
  const time = threadTime() - start;
  requireEqual(how === 'C' ? accesses[0]! : handled, ACCESSES, `MMIO accesses (the last stored ${stored})`);
  parentPort!.postMessage(time / ACCESSES);
});
parentPort!.postMessage('ready');
