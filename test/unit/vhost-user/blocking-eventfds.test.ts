import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { compile, compilerMissing } from '../sharing/compile.ts';
import { hostCalls } from '../sharing/host.ts';

// In processes of their own: a plain read of such an eventfd waits in the kernel, and nothing ends that.
it('a front end whose eventfds block when they are read does not make a back end wait', {
  timeout: 90_000,
}, async (test) => {
  hostCalls(test);
  if (compilerMissing !== undefined) return test.skip(compilerMissing);
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-blocking-'));
  const path = join(folder, 'disk.sock');
  const program = compile('front-end', ['-std=c11'], 'test/kills');
  const register = new URL('../../typescript/register.mjs', import.meta.url).href;
  const child = fileURLToPath(new URL('children/back-end.ts', import.meta.url));
  const backEnd = spawn(process.execPath, ['--import', register, child, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    await once(backEnd.stdout, 'data');
    // It comes again and again, and is refused when the back end has ended.
    const frontEnd = spawn(program.path, [path, '1'], { stdio: 'ignore' });
    const said: Buffer[] = [];
    backEnd.stdout.on('data', (chunk: Buffer) => said.push(chunk));
    const closed = once(backEnd, 'close');
    await once(frontEnd, 'exit');
    await closed;
    expect(Buffer.concat(said).toString()).toBe('served\n');
  } finally {
    backEnd.kill('SIGKILL');
    program.remove();
    rmSync(folder, { recursive: true });
  }
});
