import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AddressSpace, UnixConnection } from '../../lib/index.ts';
import type { KvmCalls } from '../../lib/raw.ts';

/** Kills owners that change their address space without end; their consumers must keep memory that reads. */
export async function killOwners(calls: KvmCalls, count: number, random: (below: number) => number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-kills-'));
  const started = performance.now();
  let changes = 0;
  for (let i = 0; i < count; i++) {
    const path = join(folder, `${i}.sock`);
    const owner = spawn(process.execPath, [fileURLToPath(new URL('owner.js', import.meta.url)), path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(owner.stdout, 'data');
    const connection = await UnixConnection.connect(calls, path);
    let heard = (_reason: string) => {};
    const ended = new Promise<string>((resolve) => {
      heard = resolve;
    });
    const binding = await AddressSpace.attach(calls, connection, { onEnd: (reason) => heard(reason) });
    await new Promise((resolve) => setTimeout(resolve, random(20)));
    owner.kill('SIGKILL');
    const reason = await ended;
    if (reason !== 'died') throw new Error(`the owner was killed, and its consumer heard that it ${reason}`);
    for (const region of binding.regions) {
      const value = binding.readU32(region.start);
      if (value !== region.offset) throw new Error(`${region} reads ${value}, and should read ${region.offset}`);
    }
    changes += binding.generation;
    binding.release();
  }
  rmSync(folder, { recursive: true });
  console.log(`${count} owners killed in ${Math.round((performance.now() - started) / 1000)} s:`);
  console.log(`  after ${changes} changes; every consumer heard of it, and read all regions of one generation`);
}
