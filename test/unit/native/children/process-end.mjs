// The ways in which a process may end while there are guests.
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { calls, spinningVcpu } from './addon.mjs';

const { vcpu } = spinningVcpu();
switch (process.argv[2]) {
  case 'exit-async':
    calls.runAsync(vcpu);
    setTimeout(() => process.exit(7), 20);
    break;
  case 'exit-worker': {
    const worker = new Worker(new URL('worker-in-guest.mjs', import.meta.url), { workerData: { how: 'run' } });
    await once(worker, 'message');
    setTimeout(() => process.exit(7), 20);
    break;
  }
  case 'end':
    calls.runAsync(vcpu);
    setTimeout(() => calls.kick(vcpu), 20);
    break;
  case 'leave-open':
    calls.view(calls.mmap(0x10000, 3, 0x22, -1, 0, 0, 0), 0x10000);
    break;
  case 'signal':
    // From another thread, because this one doesn't come back.
    new Worker("setTimeout(() => process.kill(process.pid, 'SIGTERM'), 100)", { eval: true });
    calls.run(vcpu, 0);
    break;
  default:
    throw new Error('how?');
}
