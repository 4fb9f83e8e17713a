import { openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { encodeFrame, type Frame, PORT_NAME } from '../frames.ts';

const PORTS = '/sys/class/virtio-ports';

/** Opens the guest's end of the port to the host, and returns what sends a frame through it. */
export function openPort(): (frame: Frame) => void {
  const name = readdirSync(PORTS).find((each) => readFileSync(join(PORTS, each, 'name'), 'utf8').trim() === PORT_NAME);
  if (name === undefined) throw new Error(`no virtio port is named ${PORT_NAME}`);
  const port = openSync(join('/dev', name), 'w');
  return (frame) => {
    const bytes = Buffer.from(encodeFrame(frame));
    for (let sent = 0; sent < bytes.length; ) sent += writeSync(port, bytes, sent);
  };
}

/** Whatever was thrown, with its stack where it has one. */
export function describeThrown(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
