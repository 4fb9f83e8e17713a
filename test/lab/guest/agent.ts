import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { JOB_FILE } from '../../../lib/lab/frames.ts';
import { describeThrown, openPort } from '../../../lib/lab/guest/port.ts';
import { GUEST_ROOT, type GuestScript, type Job } from '../job.ts';

/*
 * The first program of the guest: runs the job's script and sends what it returns through the virtio-serial port. The console stays
 * free for what the kernel and the script print.
 */

const send = openPort();

try {
  send({ kind: 'started' });
  const job = JSON.parse(readFileSync(JOB_FILE, 'utf8')) as Job;
  const module = (await import(pathToFileURL(join(GUEST_ROOT, 'out', job.script)).href)) as { default: GuestScript };
  const value = await module.default(job.args, (text) => send({ kind: 'progress', text }));
  send({ kind: 'result', value });
  while (job.spin);
} catch (error) {
  send({ kind: 'failure', message: describeThrown(error) });
}
// The host stops the machine when it has the frame; ending earlier could be taken for a failure of init.
await sleep(60_000);
