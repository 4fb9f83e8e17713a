import { openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import {
  encodeFrame,
  type Frame,
  GUEST_ROOT,
  type GuestScript,
  JOB_FILE,
  type Job,
  PORT_NAME,
} from '../../../lib/lab/frames.ts';

/*
 * The first program of the guest: runs the job's script and sends what it returns through the virtio-serial port. The console stays
 * free for what the kernel and the script print.
 */

const PORTS = '/sys/class/virtio-ports';

function openPort(): number {
  const port = readdirSync(PORTS).find((name) => readFileSync(join(PORTS, name, 'name'), 'utf8').trim() === PORT_NAME);
  if (port === undefined) throw new Error(`no virtio port is named ${PORT_NAME}`);
  return openSync(join('/dev', port), 'w');
}

const port = openPort();

function send(frame: Frame): void {
  const bytes = Buffer.from(encodeFrame(frame));
  for (let sent = 0; sent < bytes.length; ) sent += writeSync(port, bytes, sent);
}

try {
  send({ kind: 'started' });
  const job = JSON.parse(readFileSync(JOB_FILE, 'utf8')) as Job;
  const module = (await import(pathToFileURL(join(GUEST_ROOT, 'out', job.script)).href)) as { default: GuestScript };
  const value = await module.default(job.args, (text) => send({ kind: 'progress', text }));
  send({ kind: 'result', value });
  while (job.spin);
} catch (error) {
  send({ kind: 'failure', message: error instanceof Error ? (error.stack ?? error.message) : String(error) });
}
// The host stops the machine when it has the frame; ending earlier could be taken for a failure of init.
await sleep(60_000);
