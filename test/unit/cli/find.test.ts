import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { replCommand } from '../../../lib/cli/repl/index.ts';
import { fakeIo, plain } from './fake-io.ts';

const scratch = mkdtempSync(join(tmpdir(), 'find-'));
afterAll(() => rmSync(scratch, { recursive: true }));

it('a search of a TiB tells how far it is, and ends with Ctrl-C', { timeout: 60_000 }, async () => {
  const io = fakeIo({ isTTY: true, columns: 80, env: { XDG_STATE_HOME: scratch }, input: undefined });
  const shown = async (what: RegExp): Promise<string> => {
    for (;;) {
      const found = what.exec(plain(io.out()));
      if (found !== null) return found[0];
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const ended = replCommand(io, { backend: 'emulated', arch: 'x86_64' });
  io.stdin.write('vm.memory.addRam(0, kvm.mapAnonymous(2 ** 40)); vm.memory.write(0x5000, Buffer.from("hello"))\r');
  io.stdin.write('.find "hello"\r');
  await shown(/[\d.]+ [MG]iB of 1 TiB, 0%/);
  io.stdin.write('\x03');
  await shown(/0x5000\r?\n… stopped at 0x[0-9a-f]+, after [\d.]+ [MG]iB/);
  io.stdin.write('.exit\r');
  expect(await ended).toBe(0);
});

async function piped(...lines: string[]): Promise<string> {
  const io = fakeIo({ input: `${lines.join('\n')}\n` });
  await replCommand(io, { backend: 'emulated', arch: 'x86_64' });
  return io.out() + io.err();
}

it('something is found over the seam of two pieces, and once', async () => {
  const found = await piped(
    'vm.memory.addRam(0, kvm.mapAnonymous(4 << 20)); 0',
    'for (const at of [0xffffe, 0x100003, 0x3ffffc]) vm.memory.write(at, Buffer.from("abcd"))',
    '.find "abcd"',
  );
  expect(found).toContain('0xffffe\n0x100003\n0x3ffffc\n');
});

it('nothing is not looked for', async () => {
  expect(await piped('.find ""')).toContain('what is looked for has no bytes');
});
