/** A value that JSON can carry. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** What the guest sends through its virtio-serial port: one JSON object per line. */
export type Frame =
  /** Node runs; the script is about to. */
  | { readonly kind: 'started' }
  | { readonly kind: 'progress'; readonly text: string }
  | { readonly kind: 'result'; readonly value: Json }
  | { readonly kind: 'failure'; readonly message: string };

/** The port's name, under which the guest finds it in /sys/class/virtio-ports. */
export const PORT_NAME = 'kvm-bridge';

/** What the guest finds in this file is what it has to run. */
export const JOB_FILE = '/lab/job.json';

/** Where the compiled tree lies in the guest. */
export const GUEST_ROOT = '/app';

export interface Job {
  /** A module inside `out/`, whose default export is a `GuestScript`. */
  readonly script: string;
  readonly args: Json;
  /** Keep the processor busy in user mode after the result, for someone who stops the machine to look into it. */
  readonly spin: boolean;
}

export type GuestScript = (args: Json, progress: (text: string) => void) => Promise<Json> | Json;

export function encodeFrame(frame: Frame): string {
  return `${JSON.stringify(frame)}\n`;
}

/** Puts frames together from chunks that end anywhere. */
export class FrameReader {
  private pending: Buffer[] = [];

  /**
   * @returns the frames completed by this chunk
   * @throws SyntaxError if a line is not a frame
   */
  push(chunk: Buffer): Frame[] {
    const frames: Frame[] = [];
    let start = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, start)) {
      frames.push(parseFrame(Buffer.concat([...this.pending, chunk.subarray(start, end)]).toString()));
      this.pending = [];
      start = end + 1;
    }
    if (start < chunk.length) this.pending.push(chunk.subarray(start));
    return frames;
  }
}

function parseFrame(line: string): Frame {
  const value: unknown = JSON.parse(line);
  if (!isFrame(value)) throw new SyntaxError(`not a frame of the lab: ${line.slice(0, 80)}`);
  return value;
}

function isFrame(value: unknown): value is Frame {
  if (typeof value !== 'object' || value === null || !('kind' in value)) return false;
  switch (value.kind) {
    case 'started':
      return true;
    case 'progress':
      return 'text' in value && typeof value.text === 'string';
    case 'result':
      return 'value' in value;
    case 'failure':
      return 'message' in value && typeof value.message === 'string';
    default:
      return false;
  }
}
