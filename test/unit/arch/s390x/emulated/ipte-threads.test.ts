import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { build } from 'vite';
import { beforeAll, describe, expect, it } from 'vitest';
import { IPTE_LOCK_BYTES } from '../../../../../lib/arch/s390x/emulated/ipte-lock.ts';
import type { IpteOutcome, IpteWork } from './ipte-worker.ts';

let workerCode = '';

beforeAll(async () => {
  const built = await build({
    configFile: false,
    logLevel: 'silent',
    build: { write: false, ssr: join(import.meta.dirname, 'ipte-worker.ts'), target: 'node20' },
  });
  const outputs = Array.isArray(built) ? built : [built];
  for (const output of outputs) if ('output' in output) workerCode = output.output[0].code;
});

function start(work: IpteWork): Promise<IpteOutcome> {
  const url = new URL(`data:text/javascript,${encodeURIComponent(workerCode)}`);
  return new Promise((resolve, reject) => {
    new Worker(url, { workerData: work }).once('message', resolve).once('error', reject);
  });
}

/** One remapper and two readers over the same storage, for a while. */
async function contend(form: IpteWork['form'], milliseconds: number): Promise<IpteOutcome[]> {
  const lock = new SharedArrayBuffer(IPTE_LOCK_BYTES);
  const storage = new SharedArrayBuffer(0x4_0000);
  const stop = new SharedArrayBuffer(4);
  const view = new DataView(storage);
  view.setBigUint64(0x1000, 0x2000n);
  for (let page = 0; page < 16; page++) view.setBigUint64(0x2000 + 8 * page, BigInt(0x1_0000 + page * 4096));
  const threads = (['remapper', 'reader', 'reader'] as const).map((role) => start({ role, form, lock, storage, stop }));
  setTimeout(() => Atomics.store(new Int32Array(stop), 0, 1), milliseconds);
  return Promise.all(threads);
}

const mixed = (outcomes: IpteOutcome[]) => outcomes.reduce((sum, { mixed }) => sum + mixed, 0);

describe('the IPTE interlock between threads', () => {
  it.each(['siif', 'simple'] as const)('%s: no read mixes the old and the new mapping', async (form) => {
    const outcomes = await contend(form, 1500);
    expect(mixed(outcomes)).toBe(0);
    // Everybody gets on.
    for (const { role, rounds } of outcomes) expect(rounds, role).toBeGreaterThan(10);
  });

  it('without it they do, so that the test above says something', async () => {
    expect(mixed(await contend('none', 1500))).toBeGreaterThan(0);
  });
});
