import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { peek, readInput } from '../../../lib/cli/input.ts';
import { fakeIo } from './fake-io.ts';

const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-input-'));
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => vi.restoreAllMocks());

const PIECE = 64 * 1024;
const path = join(folder, 'file');
writeFileSync(path, new Uint8Array(16 * PIECE));

/** A clock that goes on by so much whenever it is looked at. */
function clock(step: number): void {
  let now = 0;
  vi.spyOn(performance, 'now').mockImplementation(() => (now += step));
}

async function lengthOf(pieces: AsyncIterable<Uint8Array>): Promise<number> {
  let length = 0;
  for await (const piece of pieces) length += piece.length;
  return length;
}

describe('progress', () => {
  it('is told of a file on a terminal, and taken away', async () => {
    clock(60);
    const io = fakeIo({ isTTY: true });
    Object.assign(io.stderr, { isTTY: true });
    expect(await lengthOf(readInput(path, io))).toBe(16 * PIECE);
    const drawn = io.err().split('\r\x1b[K').slice(1);
    expect(drawn[0]).toBe(`${path}: ${9 * 64} KiB of 1 MiB, 56%`);
    expect(drawn.at(-2)).toMatch(/: \d+ KiB of 1 MiB, 9\d%$|: 1 MiB of 1 MiB, 100%$/);
    expect(drawn.at(-1)).toBe('');
  });

  it('of standard input has no end to be reckoned from', async () => {
    clock(600);
    const io = { ...fakeIo(), stdin: Readable.from([Buffer.alloc(3 * 1024)], { objectMode: false }) };
    Object.assign(io.stderr, { isTTY: true });
    expect(await lengthOf(readInput('-', io))).toBe(3 * 1024);
    expect(io.err()).toBe('\r\x1b[Kstandard input: 3 KiB\r\x1b[K');
  });

  it('is taken away before anybody says why it went no further', async () => {
    clock(600);
    const io = fakeIo();
    Object.assign(io.stderr, { isTTY: true });
    for await (const _ of readInput(path, io)) break;
    io.stderr.write('why');
    expect(io.err()).toSatisfy((text: string) => text.endsWith('\r\x1b[Kwhy'));
  });

  it('is not told in a pipe, nor of what takes no time', async () => {
    clock(600);
    const pipe = fakeIo();
    await lengthOf(readInput(path, pipe));
    expect(pipe.err()).toBe('');
    clock(1);
    const terminal = fakeIo();
    Object.assign(terminal.stderr, { isTTY: true });
    await lengthOf(readInput(path, terminal));
    expect(terminal.err()).toBe('');
  });
});

describe('the first bytes of an input', () => {
  it.each([[['ab', 'c', 'def']], [['abcdef']], [['a']], [[]]])(
    'of %j are looked at, and still there',
    async (parts) => {
      const { start, all } = await peek(Readable.from(parts.map((part) => Buffer.from(part))), 3);
      expect(start.length).toBeGreaterThanOrEqual(Math.min(3, parts.join('').length));
      const pieces: Buffer[] = [];
      for await (const piece of all) pieces.push(Buffer.from(piece));
      expect(Buffer.concat(pieces).toString()).toBe(parts.join(''));
    },
  );
});
