import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { captureFiles } from '../../../lib/cli/capture-files.ts';
import { cli } from '../../../lib/cli/cli.ts';
import { fakeIo } from './fake-io.ts';

const captures = fileURLToPath(new URL('../../captures/', import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), 'archives-'));
afterAll(() => rmSync(scratch, { recursive: true }));

/** An archive by the system's tar(1), of a captured guest or of what is named. */
const tar = (...options: string[]): Buffer =>
  execFileSync('tar', ['-c', '-C', captures, ...options], { maxBuffer: 2 ** 26 });
const GUEST = 's390x-linux-6.12';

const written = (name: string, bytes: Uint8Array): string => {
  writeFileSync(join(scratch, name), bytes);
  return join(scratch, name);
};

async function run(argv: readonly string[], input: Uint8Array = Buffer.alloc(0)) {
  const io = fakeIo({ input: undefined });
  io.stdin.end(input);
  return { status: await cli(argv, io), out: io.out(), err: io.err() };
}

describe('an archive of a captured guest', () => {
  it.each([
    ['as GNU tar writes it', ['--format=gnu', GUEST]],
    ['as POSIX has it', ['--format=posix', GUEST]],
    ['of the files alone', ['--format=ustar', '-C', GUEST, '.']],
  ])('holds what the folder does: %s', async (_name, options) => {
    const folder = await captureFiles(join(captures, GUEST), fakeIo());
    expect([...folder.keys()]).toEqual(['capture.json', 'pages.bin', 'skeys.bin']);
    for (const bytes of [tar(...options), gzipSync(tar(...options))]) {
      const archive = await captureFiles(written('guest.tar', bytes), fakeIo());
      expect([...archive.keys()].sort()).toEqual([...folder.keys()]);
      for (const [name, content] of folder) expect([name, archive.get(name)?.equals(content)]).toEqual([name, true]);
    }
  });

  it('is loaded and reported as the folder is, from standard input too', async () => {
    const archive = written('guest.tgz', gzipSync(tar(GUEST)));
    expect((await run(['--load', archive], Buffer.from('.regs'))).out).toContain('cr1 000000001fc141c7');
    const of = async (...argv: Parameters<typeof run>) => {
      const { status, out, err } = await run(...argv);
      expect({ status, err }).toEqual({ status: 0, err: '' });
      return { ...(JSON.parse(out) as object), title: '' };
    };
    const folder = await of(['report', '--json', join(captures, GUEST)]);
    expect(await of(['report', '--json', archive])).toEqual(folder);
    expect(await of(['report', '--json', '-'], tar(GUEST))).toEqual(folder);
  });

  it('that is damaged is refused, and why is said', async () => {
    const archive = tar(GUEST);
    const twice = tar(`${GUEST}/capture.json.gz`, 's390x-linux-6.12-edat/capture.json.gz');
    const broken = Buffer.from(archive);
    broken[0]! ^= 1;
    for (const [bytes, why] of [
      [
        archive.subarray(0, archive.length - 200_000),
        /^.* is no archive of a capture: it ends at byte \d+, and .*\.gz at \d+\n/,
      ],
      [broken, / is no archive of a capture: at byte 0 of it there is no file's head\n/],
      [twice, / is no archive of a capture: there are two of capture\.json in it\n/],
      [tar(`${GUEST}/README.md`), / holds no capture: capture\.json and pages\.bin .* are wanted\n/],
      [gzipSync(archive).subarray(0, 5000), /: the gzipped data ends too early: the file is cut off\n/],
    ] as const) {
      for (const argv of [['report'], ['--load']]) {
        const { status, out, err } = await run([...argv, written('bad.tar', bytes)]);
        expect({ status, out }).toEqual({ status: 2, out: '' });
        expect(err).toMatch(why);
      }
    }
  });

  it('is of the architecture that it is of', async () => {
    const folder = join(captures, GUEST);
    expect(await run(['--arch', 'ppc64', '--load', folder])).toMatchObject({
      status: 2,
      err: expect.stringContaining(`--arch is ppc64, and ${folder} is the capture of a guest of s390x\n`),
    });
    expect(await run(['--backend', 'native', '--load', folder])).toMatchObject({
      status: 2,
      err: expect.stringContaining('--load wants the emulated kernel, not --backend native\n'),
    });
  });
});
