import fs, { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { COMMANDS, cli } from '../../../lib/cli/cli.ts';
import { fakeIo } from './fake-io.ts';
import { smallStream } from './small-stream.ts';

/*
 * What an impatient user gets wrong, tried on every command: a command that is new is tried, too, or fails here.
 */

const folder = mkdtempSync(join(tmpdir(), 'mistakes-'));
afterAll(() => rmSync(folder, { recursive: true }));

const at = (name: string): string => join(folder, name);
const stream = smallStream();
mkdirSync(at('folder'));
mkdirSync(at('broken-capture'));
writeFileSync(at('broken-capture/capture.json'), '{}');
mkdirSync(at('broken-capture/pages.bin'));
for (const [name, content] of [
  ['guest.mjs', ''],
  ['empty', ''],
  ['binary', Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 197) & 0xff))],
  ['cut.stream', stream.subarray(0, 100_000)],
  ['cut.gz', Buffer.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3)],
  ['cut.jsonl', '{"kvm-bridge-trace":1,"arch":"x86_64","pageSize":4096,"emulate":{"arch":"x86_64"}}\n{"call":"openK'],
] as const) {
  writeFileSync(at(name), content);
}

/** An error of two lines, and nothing else. @returns the first line, without the command */
async function refused(argv: readonly string[], statuses: readonly number[], input = ''): Promise<string> {
  const io = fakeIo({ input });
  const status = await cli(argv, io);
  expect({ statuses, out: io.out() }).toEqual({ statuses: expect.arrayContaining([status]), out: '' });
  const [, command, sentence] =
    /^kvm-bridge( \w+)?: (.+)\n`kvm-bridge\1 --help` says what there is\.\n$/.exec(io.err()) ?? [];
  expect({ err: io.err(), command }).toEqual({ err: io.err(), command: expect.stringMatching(/^ \w+$/) });
  return sentence!;
}

interface Tried {
  /** What stands before a file that is read. */
  readonly files: readonly (readonly string[])[];
  /** Those files are programs: anything may be one. */
  readonly programs?: true;
  /** The least that has to be there beside an option. */
  readonly least: readonly string[];
}

/** Each command with what it reads. */
const TRIED: Readonly<Record<string, Tried>> = {
  repl: { files: [['--load']], least: [] },
  run: { files: [[]], programs: true, least: [at('guest.mjs')] },
  top: { files: [[]], programs: true, least: [at('guest.mjs')] },
  replay: { files: [[]], least: ['-'] },
  lab: { files: [['s390x']], programs: true, least: ['s390x', at('guest.mjs')] },
  tour: { files: [], least: [] },
  doctor: { files: [], least: [] },
  hpt: { files: ['stats', 'dump', 'verify'].map((name) => [name]), least: ['stats', '-'] },
  report: { files: [[]], least: ['-'] },
};

it('every command is tried', () => {
  expect(Object.keys(TRIED)).toEqual(Object.keys(COMMANDS));
});

describe.each(Object.entries(TRIED))('%s', async (name, { files, programs = false, least }) => {
  const { options = {}, positionals } = await COMMANDS[name]!();
  const before = files.map((words) => [[name, ...words]] as const);
  const statuses = name === 'lab' ? [125] : programs ? [1] : [2];

  it('names the option that was meant, and what it takes', async () => {
    for (const [option, { type, value }] of Object.entries(options)) {
      const [first = '', second = '', ...rest] = option;
      const swapped = `--${second}${first}${rest.join('')}`;
      expect(await refused([name, swapped, ...least], [2])).toMatch(
        new RegExp(`^there is no option ${swapped}; did you mean --[a-z-]+\\?$`),
      );
      if (type === 'string') {
        const wants = `--${option} wants a value: --${option} ${value}`;
        expect(await refused([name, `--${option}=`, ...least], [2])).toBe(wants);
        expect(await refused([name, ...(name === 'lab' ? [] : least.slice(1)), `--${option}`], [2])).toBe(wants);
      } else {
        expect(await refused([name, `--${option}=yes`, ...least], [2])).toBe(`--${option} takes no value`);
      }
    }
    expect(await refused([name, '-X', ...least], [2])).toBe('there is no option -X');
  });

  it('takes no argument too few, too many or empty', async () => {
    expect(await refused([name, '', ...least], [2])).toBe('an argument is empty');
    if (least.length > 0) expect(await refused([name], [2])).toMatch(/ is missing$|^which /);
    if (positionals === undefined || Number.isFinite(positionals.most)) {
      expect(await refused([name, ...least, 'more'], [2])).toMatch(/^it takes (no arguments|1 argument), not /);
    }
  });

  if (before.length === 0) return;

  it.each(before)('%j says that a file is not there, and which is', async (words) => {
    expect(await refused([...words, at('gest.mjs')], statuses)).toBe(
      `${at('gest.mjs')}: no such file or directory (ENOENT); did you mean ${at('guest.mjs')}?`,
    );
  });

  it.each(before)('%j says that a folder is none of its files', async (words) => {
    const sentence = await refused([...words, at('folder')], statuses);
    const isCapture = name === 'repl' || name === 'report';
    expect(sentence).toBe(
      isCapture
        ? `${at('folder')} holds no capture: capture.json and pages.bin (or .gz of both) are wanted`
        : `${at('folder')}: illegal operation on a directory (EISDIR)`,
    );
    if (isCapture) {
      expect(await refused([...words, at('broken-capture')], [2])).toBe(
        `${at('broken-capture/pages.bin')}: illegal operation on a directory (EISDIR)`,
      );
    }
  });

  if (programs) return;

  it.each(before)('%j says what is wrong with a file', async (words) => {
    for (const file of ['empty', 'binary', 'cut.stream', 'cut.gz', 'cut.jsonl', 'guest.mjs']) {
      expect(await refused([...words, at(file)], [2])).toContain(at(file));
    }
  });

  if (name === 'repl') return;

  it.each(before)('%j says what is wrong with standard input', async (words) => {
    expect(await refused([...words, '-'], [2], '')).toMatch(/^standard input: it is empty/);
    expect(await refused([...words, '-'], [2], 'neither')).toMatch(/^standard input: /);
  });
});

describe('what cannot be written', () => {
  it.each([
    ['run', '--trace-out', 'FILE', at('guest.mjs')],
    ['top', '--trace-out', 'FILE', at('guest.mjs')],
    ['top', '-o', 'FILE', at('guest.mjs')],
    ['repl', '--trace-out', 'FILE'],
    ['report', at('whole.stream'), '-o', 'FILE'],
  ])('%s %s %s says why', async (...argv) => {
    writeFileSync(at('whole.stream'), stream);
    const to = (file: string) => argv.map((word) => (word === 'FILE' ? file : word));
    expect(await refused(to(at('folder')), [1])).toBe(`${at('folder')}: illegal operation on a directory (EISDIR)`);
    expect(await refused(to(at('no/file')), [1])).toBe(`${at('no/file')}: no such file or directory (ENOENT)`);
  });
});

describe('a page for which the disk has no room', () => {
  const report = (to: string) => refused(['report', at('whole.stream'), '-o', to], [1]);

  it('is told of by its name', async (test) => {
    if (!existsSync('/dev/full')) test.skip('there is no /dev/full');
    writeFileSync(at('whole.stream'), stream);
    expect(await report('/dev/full')).toBe('/dev/full: no space left on device (ENOSPC)');
  });

  it('leaves the old one', async () => {
    writeFileSync(at('whole.stream'), stream);
    writeFileSync(at('page.html'), 'old');
    const full = Object.assign(new Error('ENOSPC'), { code: 'ENOSPC', errno: -28, syscall: 'write' });
    const { writeFileSync: own } = fs;
    const spy = vi.spyOn(fs, 'writeFileSync').mockImplementation((file) => {
      // Its beginning is there.
      own(file, 'n');
      throw full;
    });
    syncBuiltinESMExports();
    onTestFinished(() => {
      spy.mockRestore();
      syncBuiltinESMExports();
    });
    expect(await report(at('page.html'))).toBe(`${at('page.html')}: no space left on device (ENOSPC)`);
    expect(readFileSync(at('page.html'), 'utf8')).toBe('old');
  });
});

describe('wrong values', () => {
  it.each([
    ['hpt stats --order 5 -', '--order is a number from 18 to 46, not 5'],
    ['hpt stats --order many -', '--order is a number from 18 to 46, not many'],
    ['hpt stats --headers middle -', '--headers is little or big, not middle'],
    ['hpt dump --slots 5 -', '--slots is FROM-TO, two numbers, not 5'],
    ['hpt dump --slots 9-5 -', '--slots is FROM-TO with FROM below TO, and TO at most 4398046511104, not 9-5'],
    ['hpt verify --findings 0 -', '--findings is a number above 0, not 0'],
    ['hpt stats a b', 'stats takes 1 file, not 2'],
    ['hpt diff a', 'diff takes 2 files, not 1'],
    ['hpt diff - -', 'standard input can be only one of the files'],
    ['hpt stats --slots 0-5 -', '--slots is of no use to stats'],
    ['lab --list s390', 'there is no lab s390; did you mean s390x?'],
    ['lab s390x --timeout 0 -', '--timeout is a number of minutes up to 1440, not "0"'],
    ['run --load - -', 'standard input can be only one of the script and the capture'],
    ['repl --load -', 'standard input has what is typed here: --load - is for run and top, and wants a file here'],
  ])('%s', async (words, sentence) => {
    expect(await refused(words.split(' '), [2])).toBe(sentence);
  });
});
