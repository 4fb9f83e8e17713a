// What waiting for an eventfd means to a process: how it lives, and how it ends.
import { Kvm } from '../../../../lib/index.ts';

const [how, options] = process.argv.slice(2);
const kvm = Kvm.open(JSON.parse(options ?? '{}'));
const eventfd = kvm.createEventFd();

switch (how) {
  case 'waits':
    // The timer doesn't keep the process alive.
    setTimeout(() => eventfd.signal(), 20).unref();
    await eventfd.wait();
    console.log('signalled');
    break;
  case 'left':
    eventfd.signal();
    for await (const _ of eventfd) break;
    console.log('left');
    break;
  case 'aborted':
    await eventfd.wait({ signal: AbortSignal.timeout(10) }).catch(() => console.log('aborted'));
    break;
  case 'exits':
    eventfd.wait();
    setTimeout(() => {
      console.log('exits');
      process.exit(0);
    }, 20);
    break;
  default:
    throw new Error('how?');
}
