/** A value that JSON can carry. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** What a user's script left, the bytes in base64. */
export type OutputFrame =
  /** What it printed. */
  | { readonly kind: 'output'; readonly stream: 'stdout' | 'stderr'; readonly data: string }
  /** A piece of a file, the first of which makes it. */
  | { readonly kind: 'file'; readonly path: string; readonly first: boolean; readonly data: string };

/** What the guest sends through its virtio-serial port: one JSON object per line. */
export type Frame =
  /** Node runs; the script is about to. */
  | { readonly kind: 'started' }
  | { readonly kind: 'progress'; readonly text: string }
  | OutputFrame
  | { readonly kind: 'result'; readonly value: Json }
  | { readonly kind: 'failure'; readonly message: string };

/** The port's name, under which the guest finds it in /sys/class/virtio-ports. */
export const PORT_NAME = 'kvm-bridge';

/** What the guest finds in this file, as JSON, is what it has to do. */
export const JOB_FILE = '/lab/job.json';

/** And in this one what the job is given on standard input, if it is. */
export const INPUT_FILE = '/lab/input';

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
    case 'output':
      return 'stream' in value && (value.stream === 'stdout' || value.stream === 'stderr') && hasData(value);
    case 'file':
      return 'path' in value && typeof value.path === 'string' && 'first' in value && hasData(value);
    case 'result':
      return 'value' in value;
    case 'failure':
      return 'message' in value && typeof value.message === 'string';
    default:
      return false;
  }
}

function hasData(value: object): boolean {
  return 'data' in value && typeof value.data === 'string';
}
