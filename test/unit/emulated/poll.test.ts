import { afterEach, expect, it, vi } from 'vitest';
import { PollQueue, pollFile } from '../../../lib/emulated/poll.ts';
import { ERRNO, POLL } from '../../../lib/raw.ts';

afterEach(() => vi.restoreAllMocks());

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
  const [set, clear] = [vi.spyOn(globalThis, 'setInterval'), vi.spyOn(globalThis, 'clearInterval')];
  const queue = new PollQueue(() => 0);
  const waits = [queue.wait(POLL.IN), queue.wait(POLL.IN)];
  expect([set.mock.calls.length, clear.mock.calls.length]).toEqual([1, 0]);
  queue.settle(0);
  expect(await Promise.all(waits)).toEqual([0, 0]);
  expect(clear.mock.calls).toEqual([[set.mock.results[0]!.value]]);
  // Also while some of them have heard.
  let ready = 0;
  const two = new PollQueue(() => ready);
  const [readable, writable] = [two.wait(POLL.IN), two.wait(POLL.OUT)];
  ready = POLL.OUT;
  two.changed();
  const isCleared = () => clear.mock.calls.some(([timer]) => timer === set.mock.results[1]!.value);
  expect([await writable, isCleared()]).toEqual([POLL.OUT, false]);
  two.settle(0);
  expect([await readable, isCleared()]).toEqual([0, true]);
  for (const mock of [set, clear]) mock.mockClear();
  const again = queue.wait(POLL.IN);
  expect(set.mock.calls.length).toBe(1);
  queue.settle(-ERRNO.EBADF);
  expect(await again).toBe(-ERRNO.EBADF);
  expect(clear.mock.calls).toEqual([[set.mock.results[0]!.value]]);
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
