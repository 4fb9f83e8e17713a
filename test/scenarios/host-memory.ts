import { MADV, MAP, POLL, PROT } from '../../lib/uapi/flags.ts';
import { EVERYWHERE, type Scenario } from './scenario.ts';

const RW = PROT.READ | PROT.WRITE;
const ANONYMOUS = MAP.PRIVATE | MAP.ANONYMOUS;

/** The system calls beside the ioctls: mappings and their copies, views, eventfds that are waited for. */
export const hostMemoryScenarios: readonly Scenario[] = [
  {
    name: 'host-memory/refused',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const size = calls.pageSize;
      const eventfd = calls.eventfd(0);
      calls.mmap(0, RW, ANONYMOUS, -1, 0, 0, 0);
      calls.mmap(size, RW, MAP.ANONYMOUS, -1, 0, 0, 0);
      calls.mmap(size, RW, MAP.SHARED, eventfd, 0, 0, 0);
      calls.mmap(size, RW, MAP.SHARED, 0x7fff_ffff, 0, 0, 0);
      const reservation = calls.mmap(2 * size, PROT.NONE, ANONYMOUS | MAP.NORESERVE, -1, 0, 0, 0);
      calls.mmapFixed(reservation + 1, size, RW, ANONYMOUS, -1, 0);
      calls.mmapFixed(reservation, size, RW, MAP.SHARED, 0x7fff_ffff, 0);
      calls.mmapFixed(reservation, size, RW, MAP.SHARED, eventfd, 0);
      calls.mmapFixed(reservation, size, RW, ANONYMOUS, -1, 0);
      calls.munmap(reservation + 1, size);
      calls.munmap(0x1000, size);
      calls.mprotect(0x1000, size, RW);
      calls.mprotect(reservation + 1, size, RW);
      calls.madvise(reservation + 1, size, MADV.DONTNEED);
      calls.madvise(0x1000, size, MADV.DONTNEED);
      calls.madvise(reservation, size, 99);
      calls.madvise(reservation, 2 * size, MADV.DONTNEED);
      calls.memfdCreate('x', size, 0x8000);
    },
  },
  {
    name: 'host-memory/views',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const size = calls.pageSize;
      const hva = s.memory(2);
      const shown = calls.view(hva, 2 * s.unit);
      calls.window(hva, 2 * s.unit);
      for (const [address, length] of [
        [hva, 3 * s.unit],
        [hva + 1, size],
        [0x1000, size],
      ] as const) {
        calls.view(address, length);
        calls.window(address, length);
      }
      // Who has a view may be using it.
      calls.mprotect(hva, size, PROT.NONE);
      if (typeof shown === 'number') return;
      new Uint8Array(shown)[0] = 0x5a;
      calls.readMemory(hva, new Uint8Array(2));
      const other = s.memory(2);
      calls.mprotect(other, size, PROT.READ);
      calls.view(other, 2 * s.unit);
      calls.window(other, 2 * s.unit);
    },
  },
  {
    name: 'host-memory/advice',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const size = calls.pageSize;
      for (const flags of [MAP.SHARED, MAP.PRIVATE]) {
        const hva = calls.mmap(2 * size, RW, flags | MAP.ANONYMOUS, -1, 0, 0, 0);
        for (const advice of [MADV.NORMAL, MADV.WILLNEED, MADV.DONTNEED, MADV.REMOVE]) {
          calls.writeMemory(hva + size, Uint8Array.of(1, 2));
          calls.madvise(hva, 2 * size, advice);
          calls.readMemory(hva + size, new Uint8Array(2));
        }
      }
    },
  },
  {
    name: 'host-memory/beyond-a-memfd',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const size = calls.pageSize;
      for (const flags of [MAP.SHARED, MAP.PRIVATE]) {
        const memfd = calls.memfdCreate('short', size, 0);
        const hva = calls.mmap(3 * size, RW, flags, memfd, 0, 0, 0);
        for (const page of [0, 1]) calls.writeMemory(hva + page * size, Uint8Array.of(1, 2));
        for (const advice of [MADV.POPULATE_READ, MADV.WILLNEED, MADV.DONTNEED, MADV.REMOVE]) {
          for (const page of [0, 1]) {
            calls.madvise(hva + page * size, 2 * size, advice);
            calls.readMemory(hva, new Uint8Array(2));
            calls.readMemory(hva + page * size, new Uint8Array(2));
          }
        }
      }
    },
  },
  {
    name: 'host-memory/populate',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const size = calls.pageSize;
      const populate = (hva: number, length: number): void => {
        for (const advice of [MADV.POPULATE_READ, MADV.POPULATE_WRITE]) calls.madvise(hva, length, advice);
      };
      for (const flags of [MAP.SHARED, MAP.PRIVATE]) {
        const hva = calls.mmap(3 * size, RW, flags | MAP.ANONYMOUS, -1, 0, 0, 0);
        calls.writeMemory(hva + size, Uint8Array.of(1, 2));
        populate(hva, 3 * size);
        calls.readMemory(hva + size, new Uint8Array(2));
        for (const prot of [PROT.READ, PROT.NONE]) {
          calls.mprotect(hva + size, size, prot);
          populate(hva, 3 * size);
          populate(hva + size, size);
          populate(hva + 2 * size, size);
        }
        calls.munmap(hva + size, size);
        populate(hva, 3 * size);
      }
      const reservation = calls.mmap(2 * size, PROT.NONE, ANONYMOUS | MAP.NORESERVE, -1, 0, 0, 0);
      populate(reservation, size);
      const memfd = calls.memfdCreate('x', size, 0);
      const beyond = calls.mmap(2 * size, RW, MAP.SHARED, memfd, 0, 0, 0);
      populate(beyond, size);
      populate(beyond, 2 * size);
      populate(beyond + size, size);
    },
  },
  {
    name: 'host-memory/pieces',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls, unit } = s;
      const hva = s.memory(1);
      const end = hva + unit;
      calls.scatter(
        Float64Array.of(hva, hva + 8, end - 2),
        Uint32Array.of(2, 3, 2),
        Uint8Array.of(1, 2, 3, 4, 5, 6, 7),
      );
      calls.readMemory(hva, new Uint8Array(12));
      calls.gather(Float64Array.of(end - 2, hva + 8, hva), Uint32Array.of(2, 3, 2), new Uint8Array(7));
      // What comes after a piece that is nowhere is left alone.
      calls.scatter(Float64Array.of(hva, end - 1, hva + 4), Uint32Array.of(1, 2, 1), Uint8Array.of(9, 9, 9, 9));
      calls.gather(Float64Array.of(hva, end - 1, hva + 4), Uint32Array.of(1, 2, 1), new Uint8Array(4));
    },
  },
  {
    name: 'host-memory/eventfd',
    arches: EVERYWHERE,
    run: async (s) => {
      const { calls } = s;
      const fd = calls.eventfd(0);
      const one = new Uint8Array(8);
      const little = s.arch !== 's390x';
      const word = (value: bigint): Uint8Array => {
        new DataView(one.buffer).setBigUint64(0, value, little);
        return one;
      };
      await calls.poll(fd, POLL.OUT);
      calls.write(fd, word(2n));
      calls.write(fd, word(3n));
      await calls.poll(fd, POLL.IN);
      await calls.poll(fd, POLL.IN | POLL.OUT);
      calls.read(fd, new Uint8Array(8));
      // As much as it holds, and one more.
      calls.write(fd, word(0xffff_ffff_ffff_fffen));
      calls.write(fd, word(1n));
      calls.read(fd, new Uint8Array(8));
      await calls.poll(fd, 0x4000);
      await calls.poll(-1, POLL.IN);
      await calls.poll(calls.memfdCreate('x', calls.pageSize, 0), POLL.IN);
      // Waits that are ended, and that the descriptor's end ends.
      const ended = calls.poll(fd, POLL.IN);
      await calls.poll(fd, 0);
      await ended;
      const closed = calls.poll(fd, POLL.IN);
      calls.close(fd);
      await closed;
      for (const gone of [fd, -1]) {
        calls.read(gone, one);
        calls.write(gone, one);
      }
    },
  },
];
