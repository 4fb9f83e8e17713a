import { beforeEach, expect, it } from 'vitest';
import { AddressSpace, EventFd, Mapping } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { Descriptor } from '../../../lib/sharing/descriptor.ts';
import { ServedQueue } from '../../../lib/vhost-user/back-end/served-queue.ts';
import { DriverQueue, layOut } from '../../../lib/vhost-user/index.ts';
import { MemoryTable } from '../../../lib/vhost-user/memory-table.ts';
import { hostCalls } from '../sharing/host.ts';

const RAM = 0x10_0000;
const LAYOUT = layOut(0, 16);

let calls: KvmCalls;
beforeEach((test) => {
  calls = hostCalls(test);
});

/** A queue that is served here, and its driver. */
function serve(handle: (queue: ServedQueue, token: number) => void, failed: (queue: ServedQueue) => void = () => {}) {
  const ram = Mapping.memfd(calls, RAM);
  const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  space.addRam(0, ram);
  const table = new MemoryTable(calls, true);
  table.add({ gpa: 0, size: RAM, userAddress: 0, mmapOffset: 0 }, Descriptor.duplicate(calls, ram.fd));
  const handled: number[] = [];
  const device = {
    queues: 1,
    handle: (chain: { read(at: number, into: Uint8Array): number }) => {
      const token = new Uint8Array(1);
      chain.read(0, token);
      handled.push(token[0]!);
      handle(queue, token[0]!);
      return 0;
    },
  };
  const queue = new ServedQueue({ device, table, queueOptions: {}, queueFailed: () => failed(queue) }, 0);
  queue.size = LAYOUT.size;
  queue.addresses = { index: 0, flags: 0, desc: LAYOUT.desc, avail: LAYOUT.avail, used: LAYOUT.used, log: 0 };
  const driver = new DriverQueue<number>(space, LAYOUT);
  const newKick = () => {
    const kick = new EventFd(calls);
    return { kick, device: new EventFd(calls, Descriptor.duplicate(calls, kick.fd)) };
  };
  let { kick, device: given } = newKick();
  queue.start(given);
  queue.enabled = true;
  return {
    handled,
    add: (token: number) => {
      space.writeU8(0x8000 + token, token);
      driver.add([{ gpa: 0x8000 + token, length: 1 }], [], token);
      if (driver.publish()) kick.signal();
    },
    restart: () => {
      kick.close();
      ({ kick, device: given } = newKick());
      queue.start(given);
    },
    [Symbol.dispose]: () => {
      queue.close();
      kick.close();
      table.clear();
      space.close();
      ram.close();
    },
  };
}

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await Promise.resolve();
}

it('a queue that is disabled and enabled again goes on, however soon that is', async () => {
  for (let soon = 0; soon < 12; soon++) {
    using served = serve((queue, token) => {
      if (token !== 1) return;
      queue.enabled = false;
      void turns(soon).then(() => {
        queue.enabled = true;
      });
    });
    served.add(1);
    await expect.poll(() => served.handled, { interval: 1 }).toEqual([1]);
    served.add(2);
    await expect.poll(() => served.handled, { interval: 1 }).toEqual([1, 2]);
  }
});

it('a queue that failed and is started anew goes on, however soon that is', async () => {
  for (let soon = 0; soon < 6; soon++) {
    using served = serve(
      (_queue, token) => {
        if (token === 1) throw new Error('not this one');
      },
      () => void turns(soon).then(() => served.restart()),
    );
    served.add(1);
    await expect.poll(() => served.handled, { interval: 1 }).toEqual([1]);
    await turns(20);
    served.add(2);
    await expect.poll(() => served.handled, { interval: 1 }).toEqual([1, 2]);
  }
});
