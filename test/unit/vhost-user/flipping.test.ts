import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AddressSpace, KvmError, Mapping } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { type Chain, DeviceQueue, DriverQueue, layOut } from '../../../lib/vhost-user/index.ts';
import { whileFlipping } from '../flipping.ts';
import { hostCalls } from '../sharing/host.ts';

const RAM = 0x10_0000;
const SIZE = 16;
const LAYOUT = layOut(0, SIZE);

let calls: KvmCalls;
let ram: Mapping;
let memory: AddressSpace;
beforeEach((test) => {
  calls = hostCalls(test);
  ram = Mapping.memfd(calls, RAM);
  memory = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  memory.addRam(0, ram);
});
afterEach(() => {
  memory.close();
  ram.close();
});

const refused = (error: unknown): string => {
  expect(error).toBeInstanceOf(KvmError);
  const { code } = error as KvmError;
  expect(['EPROTO', 'EFAULT']).toContain(code);
  return code;
};

describe('rings that another thread writes while they are read', () => {
  it('give a device chains that virtio allows, or EPROTO and EFAULT', async () => {
    const every = Array.from({ length: SIZE }, (_, i) => i);
    const { desc, avail } = LAYOUT;
    let chains = 0;
    let refusals = 0;
    const check = (chain: Chain): void => {
      for (const { gpa, length } of [...chain.readable, ...chain.writable]) {
        expect(length).toBeGreaterThan(0);
        expect(Number.isSafeInteger(gpa)).toBe(true);
      }
      expect(chain.readableLength + chain.writableLength).toBeLessThanOrEqual(2 ** 32);
      expect(chain.direct).toBeLessThanOrEqual(SIZE);
    };
    const { attempts } = await whileFlipping(
      { fd: ram.fd, size: RAM },
      [
        ...every.flatMap(
          (i) =>
            [
              // Of an address mostly the lower half, so that some are memory.
              [desc + 16 * i, 4],
              [desc + 16 * i + 8, 4, [16, 0, 32, 0xffff_ffff, 512]],
              [desc + 16 * i + 12, 2, [0, 1, 2, 4, 3, 0xffff]],
              [desc + 16 * i + 14, 2, [0, 1, i, 15, 16]],
              [avail + 4 + 2 * i, 2, [0, i, 15, 16, 0xffff]],
            ] as const,
        ),
        [avail + 2, 2, [0, 1, 2, 16, 17, 0x8000]],
      ],
      () => {
        const queue = new DeviceQueue(memory, LAYOUT, { indirect: true });
        try {
          for (let i = 0; i < SIZE; i++) {
            const chain = queue.take();
            if (chain === undefined) break;
            check(chain);
            chains++;
            chain.read(0, new Uint8Array(64));
            queue.complete(chain, chain.write(0, new Uint8Array(64)));
          }
        } catch (error) {
          refused(error);
          refusals++;
        }
      },
      () => chains > 0 && refusals > 0,
    );
    expect(attempts).toBeGreaterThan(10);
    expect([chains > 0, refusals > 0]).toEqual([true, true]);
  });

  it('give a driver what it made available and no more, or EPROTO', async () => {
    const { used } = LAYOUT;
    let taken = 0;
    let refusals = 0;
    const { attempts } = await whileFlipping(
      { fd: ram.fd, size: RAM },
      [
        ...Array.from({ length: SIZE }, (_, i) => i).flatMap(
          (i) =>
            [
              [used + 4 + 8 * i, 4, [0, 1, 2, 3, 16, 0xffff_ffff]],
              [used + 8 + 8 * i, 4, [0, 16, 17, 0xffff_ffff]],
            ] as const,
        ),
        [used + 2, 2, [1, 2, 3, 5, 0xffff]],
      ],
      () => {
        const queue = new DriverQueue<number>(memory, LAYOUT);
        const left = new Set([0, 1, 2]);
        for (const token of left) queue.add([], [{ gpa: 0x8_0000, length: 16 }], token);
        queue.publish();
        try {
          for (let chain = queue.take(); chain !== undefined; chain = queue.take()) {
            expect(left.delete(chain.token)).toBe(true);
            expect(chain.written).toBeLessThanOrEqual(16);
            taken++;
          }
        } catch (error) {
          refused(error);
          refusals++;
        }
        expect(queue.inFlight).toBe(left.size);
      },
      () => taken > 0 && refusals > 0,
    );
    expect(attempts).toBeGreaterThan(10);
    expect([taken > 0, refusals > 0]).toEqual([true, true]);
  });
});
