import { expect, it } from 'vitest';
import { FileTable } from '../../../lib/emulated/file-table.ts';
import { EmulatedEventfd } from '../../../lib/emulated/open-file.ts';
import { pollFile } from '../../../lib/emulated/poll.ts';
import { ERRNO, POLL } from '../../../lib/raw.ts';

const eventfd = (): EmulatedEventfd => new EmulatedEventfd(0, true);

it('gives the lowest descriptor that is free, as POSIX says', () => {
  const files = new FileTable(9);
  const [first = -1, second = -1, third = -1] = [eventfd(), eventfd(), eventfd()].map((file) => files.open(file));
  expect([second, third]).toEqual([first + 1, first + 2]);
  for (const fd of [second, first]) expect(files.close(fd)).toBe(0);
  expect([eventfd(), eventfd(), eventfd()].map((file) => files.open(file))).toEqual([first, second, third + 1]);
  expect(files.size).toBe(4);
});

it('releases a file for which there is no descriptor left, or not any more', () => {
  const files = new FileTable(1);
  const released: string[] = [];
  const file = (name: string) => ({ kind: 'kvm', released: () => released.push(name) }) as const;
  const fd = files.open(file('first'));
  expect(files.open(file('one too many'))).toBe(-ERRNO.EMFILE);
  expect(released).toEqual(['one too many']);
  expect(files.close(fd)).toBe(0);
  expect(released).toEqual(['one too many', 'first']);
  expect([files.close(fd), files.get(fd), files.size]).toEqual([-ERRNO.EBADF, undefined, 0]);
});

it('tells those who wait for a descriptor that it was closed', async () => {
  const files = new FileTable(1);
  const file = eventfd();
  const fd = files.open(file);
  const polled = pollFile(file.polled, POLL.IN);
  files.close(fd);
  expect(await polled).toBe(-ERRNO.EBADF);
});

it('tells an eventfd from other files, and from none', () => {
  const files = new FileTable(2);
  const file = eventfd();
  const [fd, kvm] = [files.open(file), files.open({ kind: 'kvm' })];
  expect([files.eventfd(fd), files.eventfd(kvm), files.eventfd(kvm + 1)]).toEqual([file, -ERRNO.EINVAL, -ERRNO.EBADF]);
});
