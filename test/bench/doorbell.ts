import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { EventFd } from '../../lib/sharing/eventfd.ts';
import { type Bench, type Benchmark, nativeCalls } from './benchmark.ts';
import type { Comparators } from './comparators.ts';
import type { Case } from './measure.ts';

/** A process of Node's that answers each ring of one eventfd by one of another. */
function startPeer(there: EventFd, back: EventFd): Disposable {
  // Benchmarks are compiled, their tests are not.
  const isCompiled = import.meta.url.endsWith('.js');
  const peer = fileURLToPath(new URL(`doorbell-peer.${isCompiled ? 'js' : 'ts'}`, import.meta.url));
  const register = new URL('../typescript/register.mjs', import.meta.url).href;
  const args = [...(isCompiled ? [] : ['--import', register]), peer];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit', there.fd, back.fd] });
  return { [Symbol.dispose]: () => void child.kill() };
}

/** The same in C. */
function startPeerInC(c: Comparators['c'], there: EventFd, back: EventFd): Disposable {
  c.doorbellStart(there.fd, back.fd);
  return { [Symbol.dispose]: () => c.doorbellEnd() };
}

/** Until it is disposed of, this thread and what it starts stay on one processor. */
function onOneProcessor(c: Comparators['c']): Disposable {
  c.oneProcessor(1);
  return { [Symbol.dispose]: () => c.oneProcessor(0) };
}

export const doorbells: Benchmark = {
  name: 'doorbell',
  needsKvm: false,
  *cases({ comparators: { c } }: Bench): Generator<Case> {
    const calls = nativeCalls();
    using there = new EventFd(calls);
    using back = new EventFd(calls);
    // Of the same kind, for two processes in C.
    using thereInC = new EventFd(calls);
    using backInC = new EventFd(calls);
    using _stay = onOneProcessor(c);
    using _peer = startPeer(there, back);
    using _peerInC = startPeerInC(c, thereInC, backInC);
    yield {
      title: 'doorbell round trip between two processes on one processor, by eventfds',
      meter: 'clock',
      per: 'round trip',
      contenders: [
        {
          name: 'await wait()',
          run: async (n) => {
            for (let i = 0; i < n; i++) {
              there.signal();
              await back.wait();
            }
          },
        },
        { name: 'C', run: (n) => c.doorbell(thereInC.fd, backInC.fd, n) },
      ],
      comparisons: [{ of: 'await wait()', to: 'C' }],
    };
  },
};
