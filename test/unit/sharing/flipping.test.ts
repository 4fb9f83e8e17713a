import { expect, it } from 'vitest';
import { AddressSpace, KvmError, Mapping } from '../../../lib/index.ts';
import { CONSUMER, HEADER, LOG_PAGE, REGION, shapeOf } from '../../../lib/sharing/table/layout.ts';
import { type Places, whileFlipping } from '../flipping.ts';
import { UNIT } from '../handles/backends.ts';
import { hostCalls } from './host.ts';

const LOG_BYTES = 2 ** 31 / LOG_PAGE / 8;
/** What an owner may have written, and what it can't. */
const values = [0n, 4096n, BigInt(UNIT), 1n << 63n];

it('a table that another thread writes while it is read shows a consumer memory that is there, or is EPROTO', async (test) => {
  const calls = hostCalls(test);
  const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  const ram = Mapping.memfd(calls, UNIT);
  space.addRam(0, ram);
  space.share({ calls, regions: 4, consumers: 2, end: 2 ** 31 });
  const binding = await AddressSpace.attach(calls, space.token);
  const { regionsOffset } = shapeOf(4, 2, LOG_BYTES);
  const table: Places = [
    ...Array.from({ length: 8 }, (_, i) => regionsOffset + i * REGION.BYTES).flatMap(
      (at) =>
        [
          [at + REGION.GPA, 8, [0n, BigInt(UNIT), 4096n, 1n]],
          [at + REGION.SIZE, 8, [4096n, ...values]],
          [at + REGION.OFFSET, 8, values],
          [at + REGION.MEMORY_BYTES, 8, [BigInt(UNIT), ...values]],
          [at + REGION.OWNER_FD, 4],
        ] as const,
    ),
    [HEADER.REGION_COUNT, 4, [0, 1, 2, 4, 5, 0xffff_ffff]],
    [HEADER.REGION_COUNT + 4, 4, [1, 0, 3, 0x8000_0000]],
    [HEADER.GENERATION, 8],
  ];
  let seen = 0;
  let refusals = 0;
  const { attempts } = await whileFlipping(
    { fd: space.fd, size: 0x1_0000 },
    table,
    () => {
      try {
        for (const { start, end, mapping, offset } of binding.regions as readonly {
          readonly start: number;
          readonly end: number;
          readonly offset: number;
          readonly mapping: { readonly size?: number };
        }[]) {
          if (mapping.size !== undefined) expect(offset + (end - start)).toBeLessThanOrEqual(mapping.size);
          seen++;
        }
        binding.writeU32(0, 1);
        binding.readU32(0);
      } catch (error) {
        expect(error).toBeInstanceOf(KvmError);
        expect(['EPROTO', 'EFAULT', 'EAGAIN', 'EACCES']).toContain((error as KvmError).code);
        refusals++;
      }
    },
    () => seen > 0 && refusals > 0,
  );
  expect(attempts).toBeGreaterThan(10);
  expect(refusals).toBeGreaterThan(0);
  binding.release();
  space.close();
  ram.close();
});

it('consumers’ records that another thread writes leave an owner its wits', async (test) => {
  const calls = hostCalls(test);
  const events: string[] = [];
  const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  const ram = Mapping.memfd(calls, UNIT);
  space.addRam(0, ram);
  space.share({ calls, regions: 4, consumers: 4, end: 2 ** 31, onConsumer: ({ kind }) => events.push(kind) });
  const { consumersOffset } = shapeOf(4, 4, LOG_BYTES);
  const { attempts } = await whileFlipping(
    { fd: space.fd, size: 0x1_0000 },
    Array.from({ length: 4 }, (_, i) => consumersOffset + i * CONSUMER.BYTES).flatMap(
      (at) =>
        [
          [at + CONSUMER.PID, 4, [0, 1, process.pid, 0xffff_ffff]],
          [at + CONSUMER.WRITERS, 4],
          [at + CONSUMER.ACKNOWLEDGED, 8],
          [at + CONSUMER.NAME, 8],
        ] as const,
    ),
    () => {
      expect(space.consumers.length).toBeLessThanOrEqual(4);
      space.addRam(2 * UNIT, ram).remove();
    },
    () => events.length > 0,
  );
  expect(attempts).toBeGreaterThan(10);
  expect(ram.pins).toBeGreaterThan(0);
  space.close();
  ram.close();
  expect(ram.pins).toBe(0);
});
