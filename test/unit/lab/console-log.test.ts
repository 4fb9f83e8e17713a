import { describe, expect, it } from 'vitest';
import { ConsoleLog } from '../../../lib/lab/console-log.ts';

function logOf(...chunks: string[]): ConsoleLog {
  const log = new ConsoleLog();
  for (const chunk of chunks) log.push(Buffer.from(chunk));
  return log;
}

describe("the guest's console", () => {
  it('keeps the last lines, also one that is not ended', () => {
    const log = logOf('one\r\n\r\n\x1b[31mtwo\x1b[0m\r\nth', 'ree\r\nfo');
    expect(log.last(3)).toEqual(['two', 'three', 'fo']);
    expect(log.last(10)).toEqual(['one', 'two', 'three', 'fo']);
  });

  it('keeps a bounded number of them', () => {
    expect(logOf('x\n'.repeat(10_000)).last(10_000).length).toBe(200);
  });

  it('tells a panic, by its first line', () => {
    const log = logOf('[ 1.0] Kernel panic - not syncing: Attempt', 'ed to kill init!\r\n[ 1.1] lab: failed: x\n');
    expect(log.failure).toBe('the kernel panicked (Attempted to kill init!)');
  });

  it('tells that init gave up, but not that somebody quotes it', () => {
    expect(logOf('lab: failed: the kernel refused 00-kvm.ko\n').failure).toBe('the kernel refused 00-kvm.ko');
    expect(logOf('he said lab: failed: no\n').failure).toBeUndefined();
  });
});
