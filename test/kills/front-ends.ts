import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type KvmError, UnixListener } from '../../lib/index.ts';
import type { KvmCalls } from '../../lib/raw.ts';
import { BLOCK, type Chain, VhostUserBackEnd, type VirtioDevice } from '../../lib/vhost-user/index.ts';
import { compile } from '../unit/sharing/compile.ts';
import { held, until } from './held.ts';

/** A disk without content, some of whose answers take a while. */
class Nothing implements VirtioDevice {
  readonly queues = 1;
  readonly #random: (below: number) => number;
  requests = 0;

  constructor(random: (below: number) => number) {
    this.#random = random;
  }

  handle(chain: Chain): number | Promise<number> {
    this.requests++;
    const answer = () => {
      chain.write(chain.writableLength - 1, Uint8Array.of(BLOCK.OK));
      return chain.writableLength;
    };
    if (this.#random(4) > 0) return answer();
    return new Promise((resolve) => setImmediate(resolve)).then(answer);
  }
}

/** Kills front ends in C that use a device of ours; all that they had given must be given back. */
export async function killFrontEnds(calls: KvmCalls, count: number, random: (below: number) => number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-kills-'));
  const program = compile('front-end', ['-std=c11'], 'test/kills');
  const started = performance.now();
  const device = new Nothing(random);
  const ends = new Map<string, number>();
  let sessions = 0;
  let before: object | undefined;
  for (let i = 0; i <= count; i++) {
    const path = join(folder, `${i}.sock`);
    const listener = UnixListener.listen(calls, path);
    const backEnd = new VhostUserBackEnd(calls, device);
    const served: Promise<void>[] = [];
    const accepting = (async () => {
      for await (const connection of listener) {
        sessions++;
        const session = backEnd.serve(connection).then(
          () => 'between two messages',
          (error: KvmError) => error.code,
        );
        served.push(session.then((end) => void ends.set(end, (ends.get(end) ?? 0) + 1)));
      }
    })();
    const child = spawn(program.path, [path, String(random(2 ** 31))], { stdio: ['ignore', 'ignore', 'inherit'] });
    const exited = once(child, 'exit');
    // After so many connections and requests, whatever the machine's speed.
    const enough = sessions + device.requests + random(80);
    await until(() => sessions + device.requests >= enough);
    await new Promise((resolve) => setTimeout(resolve, random(3)));
    child.kill('SIGKILL');
    const [status, signal] = (await exited) as [number | null, string | null];
    if (signal !== 'SIGKILL') throw new Error(`a front end ended by itself, with status ${status}`);
    await new Promise((resolve) => setImmediate(resolve));
    listener.close();
    await accepting;
    await Promise.all(served);
    // The first has made what stays.
    before ??= held();
    if (JSON.stringify(held()) !== JSON.stringify(before)) {
      throw new Error(`after a death ${JSON.stringify(held())} are held, and before ${JSON.stringify(before)}`);
    }
    if (i > 0 && i % 100 === 0) console.log(`${i} of ${count}`);
  }
  program.remove();
  rmSync(folder, { recursive: true });
  const told = [...ends].map(([end, times]) => `${times} ${end}`).join(', ');
  console.log(`${count} front ends killed in ${Math.round((performance.now() - started) / 1000)} s:`);
  console.log(`  ${sessions} sessions, ${device.requests} requests; sessions ended: ${told}; nothing is left of any`);
}
