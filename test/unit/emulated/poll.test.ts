import { expect, it } from 'vitest';
import { PollQueue, pollFile } from '../../../lib/emulated/poll.ts';
import { ERRNO, POLL } from '../../../lib/raw.ts';

const turn = (): Promise<void> => new Promise((done) => void setImmediate(done));

it('those who wait hear in a later turn, of what they wait for alone', async () => {
  let ready = 0;
  let asked = 0;
  const queue = new PollQueue(() => {
    asked++;
    return ready;
  });
  const heard: string[] = [];
  const wait = (name: string, events: number) =>
    queue.wait(events).then((result) => void heard.push(`${name}: ${result}`));
  // Nobody waits: nobody is asked.
  queue.changed();
  await turn();
  expect(asked).toBe(0);
  const [first, second] = [wait('in', POLL.IN), wait('both', POLL.IN | POLL.OUT)];
  // They are asked together once.
  queue.changed();
  await turn();
  expect([asked, heard]).toEqual([1, []]);
  ready = POLL.OUT;
  queue.changed();
  expect(heard).toEqual([]);
  await second;
  expect(heard).toEqual([`both: ${POLL.OUT}`]);
  ready = POLL.IN | POLL.OUT;
  queue.changed();
  await first;
  expect([heard, asked]).toEqual([[`both: ${POLL.OUT}`, `in: ${POLL.IN}`], 3]);
  queue.changed();
  await turn();
  expect(asked).toBe(3);
});

it('the process lives for as long as somebody waits', async () => {
  const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
  const before = timers();
  const queue = new PollQueue(() => 0);
  const waits = [queue.wait(POLL.IN), queue.wait(POLL.IN)];
  expect(timers()).toBe(before + 1);
  queue.settle(0);
  expect(await Promise.all(waits)).toEqual([0, 0]);
  expect(timers()).toBe(before);
  const again = queue.wait(POLL.IN);
  expect(timers()).toBe(before + 1);
  queue.settle(-ERRNO.EBADF);
  expect([await again, timers()]).toEqual([-ERRNO.EBADF, before]);
});

it('events are those that there are, and none ends all waits', async () => {
  const queue = new PollQueue(() => POLL.IN);
  expect(await Promise.all([POLL.ERR, POLL.IN | POLL.ERR, 0x10].map((events) => pollFile(queue, events)))).toEqual(
    Array(3).fill(-ERRNO.EINVAL),
  );
  expect(await pollFile(queue, POLL.IN | POLL.OUT)).toBe(POLL.IN);
  const waiting = pollFile(queue, POLL.OUT);
  expect([await pollFile(queue, 0), await waiting]).toEqual([0, 0]);
});
