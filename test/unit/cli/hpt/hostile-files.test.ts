import { readFileSync } from 'node:fs';
import { Writable } from 'node:stream';
import { gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { decodeHtabStream, encodeHtabStream, Htab } from '../../../../lib/arch/ppc64/model/index.ts';
import { cli } from '../../../../lib/cli/cli.ts';
import { fakeIo } from '../fake-io.ts';
import { run, scratch } from './run.ts';

const { file } = scratch();

const capture = (name: string): Buffer =>
  readFileSync(new URL(`../../../captures/ppc64-hpt-linux-6.12/${name}`, import.meta.url));
const real = gunzipSync(capture('htab.stream.gz'));
const delta = gunzipSync(capture('htab2.delta.stream.gz'));

const runOn = (bytes: Uint8Array, ...argv: string[]) => run(...argv, file('file', bytes));

/** One header. */
function header(index: number, nValid: number, nInvalid: number, order: 'little' | 'big' = 'little'): Buffer {
  const bytes = Buffer.alloc(8);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  view.setUint32(0, index, order === 'little');
  view.setUint16(4, nValid, order === 'little');
  view.setUint16(6, nInvalid, order === 'little');
  return bytes;
}

/** A stream with headers of the other byte order: entries stay as they are. */
function swapped(stream: Uint8Array): Uint8Array {
  const bytes = Buffer.from(stream);
  for (let at = 0; at < bytes.length; ) {
    const entries = bytes.readUInt16LE(at + 4);
    bytes.subarray(at, at + 4).swap32();
    bytes.subarray(at + 4, at + 8).swap16();
    at += 8 + entries * 16;
  }
  return bytes;
}

describe('a file that claims much', () => {
  it.each(['stats', 'dump', 'verify'])('gets no more than the largest table that is guessed: %s', async (command) => {
    const { status, out, err } = await runOn(header(0xffff_fff0, 0, 15), command);
    expect([status, out]).toEqual([2, '']);
    expect(err).toContain('slot 4294967280 and 0 valid and 15 empty entries from there, in a table of 16777216');
    expect(err).toContain('if the table is larger than order 28 (256 MiB), say --order');
  });

  it.each([[], ['--json']])('of which no slot is told to be valid, is not gone through (%j)', async (...options) => {
    onTestFinished(() => void vi.restoreAllMocks());
    const read = () => {
      throw new Error('a slot was read');
    };
    for (const method of ['isValid', 'vLo'] as const) vi.spyOn(Htab.prototype, method).mockImplementation(read);
    expect(await runOn(header(0, 0, 1), 'verify', ...options)).toMatchObject({ status: 0 });
  });

  it('may speak of the last slot of that table', async () => {
    const { status, out } = await runOn(header(2 ** 24 - 1, 0, 1), 'verify');
    expect(status).toBe(0);
    expect(out).toContain('part of a table of order 28');
  });

  it('is read no further than passes can go on', async () => {
    const chunk = Buffer.concat([
      header(1, 0xffff, 0),
      Buffer.alloc(0xffff * 16, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 1)),
    ]);
    const bomb = gzipSync(Buffer.concat(Array(33).fill(chunk)));
    const bytes = Buffer.concat(Array(16).fill(bomb));
    expect(bytes.length).toBeLessThan(1e6);
    const { status, err } = await runOn(bytes, 'verify');
    expect(status).toBe(2);
    expect(err).toContain('a stream of more than 512 MiB is not read; if the table is larger than order 28');
  });

  it('cannot have the same slots emptied for ever', async () => {
    const { status, err } = await runOn(
      Buffer.concat(Array(5000).fill(header(0, 0, 0xffff))),
      'stats',
      '--order',
      '20',
    );
    expect(status).toBe(2);
    expect(err).toMatch(/file: a stream that tells of more than 268435456 slots is not read\n/);
  });

  it('is refused by the decoder too, unless it is told the order', () => {
    const far = header(2 ** 24, 0, 1);
    expect(() => decodeHtabStream(far)).toThrow('a table of an order above 28 must be told of (at byte 0 ');
    expect(decodeHtabStream(far, { order: 29 }).order).toBe(29);
  });
});

describe('a file that is something else', () => {
  it.each(['stats', 'dump', 'verify'])('empty: %s', async (command) => {
    const { status, out, err } = await runOn(Buffer.alloc(0), command);
    expect([status, out]).toEqual([2, '']);
    expect(err).toMatch(/file: it is empty/);
    expect((await runOn(gzipSync(''), command)).err).toMatch(/file: it is empty/);
  });

  it.each([
    ['a letter', 'a'],
    ['a line', 'hello, world'],
    ['lines', 'line after line\n'.repeat(99)],
    ['other scripts', 'Ünïcödé ✓\r\n'.repeat(200)],
    ['code', readFileSync(import.meta.filename, 'utf8')],
  ])('text: %s', async (_what, text) => {
    const { status, err } = await runOn(Buffer.from(text), 'stats');
    expect(status).toBe(2);
    expect(err).toMatch(/file: this is text, and no HTAB stream\n/);
  });

  it('not all that breaks is called text', async () => {
    const { err } = await runOn(real.subarray(0, 100), 'stats');
    expect(err).toMatch(/file: a chunk header has 8 bytes, 4 are left \(at byte 96 of the HTAB stream\)\n/);
  });

  it('cut off gzip, at any byte, and damaged gzip', async () => {
    const zipped = gzipSync(real.subarray(0, 5000));
    for (const length of [2, 5, 10, 11, 500, zipped.length - 8, zipped.length - 1]) {
      const { status, out, err } = await runOn(zipped.subarray(0, length), 'verify');
      expect([status, out]).toEqual([2, '']);
      expect(err).toMatch(/file: the gzipped data ends too early: the file is cut off\n/);
    }
    const damaged = Buffer.from(zipped);
    damaged[zipped.length - 6]! ^= 1;
    expect((await runOn(damaged, 'verify')).err).toMatch(
      /file: the gzipped data is damaged \(incorrect data check\)\n/,
    );
  });

  it('one byte of gzip’s two', async () => {
    expect((await runOn(Uint8Array.of(0x1f), 'verify')).err).toMatch(/file: a chunk header has 8 bytes, 1 are left/);
  });
});

describe('headers of the other byte order', () => {
  const empty = encodeHtabStream(new Htab(18));
  it.each([
    ['a real table', real],
    ['a later pass', delta],
    ['an empty table', empty],
    ['a larger empty table', encodeHtabStream(new Htab(24))],
    ['a real table that is cut off', real.subarray(0, 100_000)],
  ])('are recognised: %s', async (_what, stream) => {
    const big = swapped(stream.length === 100_000 ? real : stream).subarray(0, stream.length);
    const { status, out, err } = await runOn(big, 'verify');
    expect([status, out]).toEqual([2, '']);
    expect(err).toContain('it makes more sense with big-endian headers: say --headers big');
    const back = await runOn(stream, 'verify', '--headers', 'big');
    expect(back.err).toContain('it makes more sense with little-endian headers: say --headers little');
  });

  it('are read when they are told, in pieces and gzipped', async () => {
    const right = await runOn(real, 'stats');
    expect((await runOn(swapped(real), 'stats', '--headers', 'big')).out).toBe(right.out);
    expect((await runOn(gzipSync(swapped(real)), 'stats', '--headers', 'big')).out).toBe(right.out);
  });
});

it('an empty table verifies nothing', async () => {
  const { status, out } = await runOn(encodeHtabStream(new Htab(18)), 'verify');
  expect(status).toBe(0);
  expect(out).toMatch(/0 valid entries, 16384 empty slots: a whole first pass of order 18\nthere is no entry in it/);
});

it('writes no faster than is read', async () => {
  const chunk = Buffer.concat([header(0, 4000, 0), Buffer.alloc(4000 * 16, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 1))]);
  let [open, most, blocks] = [0, 0, 0];
  const slow = new Writable({
    highWaterMark: 1,
    write(_text, _encoding, done) {
      open++;
      blocks++;
      most = Math.max(most, open);
      setImmediate(() => {
        open--;
        done();
      });
    },
  });
  expect(await cli(['hpt', 'dump', file('many', chunk)], { ...fakeIo(), stdout: slow })).toBe(0);
  expect(most).toBe(1);
  // 4000 lines of more than 100 characters.
  expect(blocks).toBeGreaterThan(4);
});

it('any bytes end in a status and a sentence that names the file', async () => {
  const chunk = fc
    .tuple(
      fc.oneof(fc.nat(20), fc.nat(2 ** 24), fc.nat(0xffff_ffff)),
      fc.array(fc.uint8Array({ minLength: 16, maxLength: 16 }), { maxLength: 4 }),
      fc.nat(0xffff),
    )
    .map(([index, entries, nInvalid]) => Buffer.concat([header(index, entries.length, nInvalid), ...entries]));
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.array(chunk, { maxLength: 6 }).map((chunks) => Buffer.concat(chunks)),
  );
  const command = fc.constantFrom('stats', 'dump', 'verify');
  await fc.assert(
    fc.asyncProperty(bytes, command, fc.boolean(), async (content, name, zipped) => {
      const { status, err } = await runOn(zipped ? gzipSync(content) : content, name);
      if (status === 2)
        expect(err).toMatch(/^kvm-bridge hpt: \/.*file: .+\n`kvm-bridge hpt --help` says what there is\.\n$/);
      else expect(err).toBe('');
    }),
    { numRuns: 150 },
  );
});
