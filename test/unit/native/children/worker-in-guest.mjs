// Enters a guest that never leaves by itself.
import { parentPort, workerData } from 'node:worker_threads';
import { calls, spinningVcpu } from './addon.mjs';

const { vcpu } = spinningVcpu();
parentPort?.postMessage(vcpu);
switch (workerData.how) {
  case 'runAsync':
    await calls.runAsync(vcpu);
    break;
  case 'runUntilKicked':
    parentPort?.postMessage(calls.run(vcpu, 0));
    break;
  default:
    while (calls.run(vcpu, 0) === -4);
}
