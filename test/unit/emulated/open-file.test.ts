import { describe, expect, it } from 'vitest';
import { Irqfds } from '../../../lib/emulated/irqfds.ts';
import { EmulatedEventfd, EmulatedMemfd } from '../../../lib/emulated/open-file.ts';
import { pollFile } from '../../../lib/emulated/poll.ts';
import { ERRNO, MAP, POLL } from '../../../lib/raw.ts';

const MAX = 2n ** 64n - 2n;

const bytesOf = (value: bigint, littleEndian = true): Uint8Array => {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, littleEndian);
  return bytes;
};
const readOf = (eventfd: EmulatedEventfd, littleEndian = true): bigint | number => {
  const into = new Uint8Array(8);
  const result = eventfd.read(into);
  return result === 8 ? new DataView(into.buffer).getBigUint64(0, littleEndian) : result;
};

// eventfd(2), without EFD_SEMAPHORE and with EFD_NONBLOCK.
describe('an eventfd', () => {
  it('counts what is written until it is read, which empties it', () => {
    const eventfd = new EmulatedEventfd(3, true);
    expect(eventfd.count).toBe(3n);
    expect(eventfd.write(bytesOf(4n))).toBe(8);
    eventfd.signal();
    expect(eventfd.count).toBe(8n);
    expect(readOf(eventfd)).toBe(8n);
    expect(readOf(eventfd)).toBe(-ERRNO.EAGAIN);
    expect(eventfd.write(bytesOf(0n))).toBe(8);
    expect(readOf(eventfd)).toBe(-ERRNO.EAGAIN);
  });

  it('has its integers in the byte order of the host', () => {
    const eventfd = new EmulatedEventfd(0, false);
    eventfd.write(bytesOf(5n, false));
    expect(eventfd.count).toBe(5n);
    expect(readOf(eventfd, false)).toBe(5n);
  });

  it('takes eight bytes at the least, wherever they lie', () => {
    const eventfd = new EmulatedEventfd(1, true);
    expect(eventfd.write(new Uint8Array(7))).toBe(-ERRNO.EINVAL);
    expect(eventfd.read(new Uint8Array(7))).toBe(-ERRNO.EINVAL);
    expect(eventfd.count).toBe(1n);
    const wide = new Uint8Array(24);
    wide.set(bytesOf(6n), 8);
    expect(eventfd.write(wide.subarray(8))).toBe(8);
    expect(eventfd.read(wide.subarray(3))).toBe(8);
    expect(wide[3]).toBe(7);
  });

  it('has 2^64 - 2 as its largest count', () => {
    const eventfd = new EmulatedEventfd(0, true);
    expect(eventfd.write(bytesOf(MAX + 1n))).toBe(-ERRNO.EINVAL);
    expect(eventfd.write(bytesOf(MAX - 1n))).toBe(8);
    expect(eventfd.write(bytesOf(2n))).toBe(-ERRNO.EAGAIN);
    expect(eventfd.count).toBe(MAX - 1n);
    eventfd.signal();
    expect(eventfd.count).toBe(MAX);
    // The kernel's own signals are lost then, and wait for nobody.
    eventfd.signal();
    expect(readOf(eventfd)).toBe(MAX);
  });

  it('can be read when it counts something, and written until it is full', async () => {
    const eventfd = new EmulatedEventfd(0, true);
    const both = POLL.IN | POLL.OUT;
    expect(await pollFile(eventfd.polled, both)).toBe(POLL.OUT);
    eventfd.signal();
    expect(await pollFile(eventfd.polled, both)).toBe(both);
    expect(await pollFile(eventfd.polled, POLL.IN)).toBe(POLL.IN);
    eventfd.write(bytesOf(MAX - 1n));
    expect(await pollFile(eventfd.polled, both)).toBe(POLL.IN);
  });

  it('wakes who waits for what has come, and nobody else', async () => {
    const eventfd = new EmulatedEventfd(0, true);
    eventfd.write(bytesOf(MAX));
    const woken: string[] = [];
    const writable = pollFile(eventfd.polled, POLL.OUT).then((ready) => void woken.push(`out ${ready}`));
    await new Promise((turn) => setImmediate(turn));
    expect(woken).toEqual([]);
    readOf(eventfd);
    const readable = pollFile(eventfd.polled, POLL.IN).then((ready) => void woken.push(`in ${ready}`));
    await writable;
    expect(woken).toEqual([`out ${POLL.OUT}`]);
    eventfd.signal();
    await readable;
    expect(woken).toEqual([`out ${POLL.OUT}`, `in ${POLL.IN}`]);
  });

  it('ends all waits when nothing is asked for, and each with a result of its own when it goes', async () => {
    const eventfd = new EmulatedEventfd(0, true);
    const wait = pollFile(eventfd.polled, POLL.IN);
    const order: number[] = [];
    void wait.then(() => order.push(1));
    expect(await pollFile(eventfd.polled, 0).finally(() => order.push(2))).toBe(0);
    expect([await wait, ...order]).toEqual([0, 1, 2]);
    const ended = pollFile(eventfd.polled, POLL.IN);
    eventfd.polled.settle(-ERRNO.EBADF);
    expect(await ended).toBe(-ERRNO.EBADF);
  });

  it('is asked for no other events, and other files for none', async () => {
    const eventfd = new EmulatedEventfd(1, true);
    expect(await pollFile(eventfd.polled, 0x10)).toBe(-ERRNO.EINVAL);
    expect(await pollFile(eventfd.polled, POLL.IN | 0x10)).toBe(-ERRNO.EINVAL);
    expect(await pollFile(undefined, POLL.IN)).toBe(-ERRNO.EPERM);
    expect(await pollFile(undefined, 0)).toBe(0);
  });
});

describe('an eventfd that is an irqfd', () => {
  it('is read by KVM as soon as it rises, and once more when that ends', () => {
    const eventfd = new EmulatedEventfd(5, true);
    const released: EmulatedEventfd[] = [];
    const irqfds = { eventfdReleased: (one: EmulatedEventfd) => void released.push(one) };
    eventfd.irqfds.add(irqfds);
    expect(eventfd.count).toBe(5n);
    eventfd.signal();
    expect(eventfd.count).toBe(0n);
    expect(eventfd.write(bytesOf(9n))).toBe(8);
    expect(eventfd.count).toBe(0n);
    eventfd.released();
    expect(released).toEqual([eventfd]);
    eventfd.irqfdEnded(irqfds);
    eventfd.signal();
    expect(eventfd.count).toBe(1n);
    eventfd.irqfds.add(irqfds);
    eventfd.irqfdEnded(irqfds);
    expect([eventfd.count, eventfd.irqfds.size]).toEqual([0n, 0]);
  });
});

it('an eventfd that went is nobody’s irqfd any more, and of several VMs each has its own', () => {
  const eventfd = new EmulatedEventfd(0, true);
  const [mine, other] = [new Irqfds(), new Irqfds()];
  expect([mine.add(eventfd, 5), mine.add(eventfd, 6), other.add(eventfd, 5)]).toEqual([0, -ERRNO.EBUSY, 0]);
  mine.delete(eventfd, 6);
  expect(mine.add(eventfd, 6)).toBe(-ERRNO.EBUSY);
  mine.delete(eventfd, 5);
  expect([mine.add(eventfd, 6), other.add(eventfd, 6)]).toEqual([0, -ERRNO.EBUSY]);
  eventfd.released();
  expect([mine.add(eventfd, 7), other.add(eventfd, 7)]).toEqual([0, 0]);
});

it('a memfd shows its memory from an offset on', () => {
  const memfd = new EmulatedMemfd(0x3000, 0, 4096);
  const [whole, behind] = [memfd.mmap(0, MAP.SHARED), memfd.mmap(0x2000, MAP.SHARED)];
  expect(behind.backing).toBe(whole.backing);
  expect([whole.offset, behind.offset]).toEqual([0, 0x2000]);
});

it('a memfd has whole pages, which may be huge', () => {
  const MFD_HUGETLB = 4;
  const memory = (size: number, flags: number): unknown => {
    const { backing } = new EmulatedMemfd(size, flags, 4096).mmap(0, MAP.SHARED);
    return [backing.unit, backing.size()];
  };
  expect([memory(100, 0), memory(0x2000, 0), memory(0x40_0000, MFD_HUGETLB)]).toEqual([
    [4096, 4096],
    [4096, 0x2000],
    [0x20_0000, 0x40_0000],
  ]);
});
