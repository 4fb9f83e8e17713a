import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { cli } from '../../../lib/cli/cli.ts';
import { ARCHES } from '../../../lib/uapi/arch.ts';
import { fakeIo } from './fake-io.ts';

async function run(...argv: string[]) {
  const io = fakeIo();
  const status = await cli(argv, io);
  return { status, out: io.out(), err: io.err() };
}

describe('the command line', () => {
  it.each(['--help', '-h', 'help'])('tells its usage for %s', async (word) => {
    const { status, out, err } = await run(word);
    expect({ status, err }).toEqual({ status: 0, err: '' });
    for (const command of ['repl', 'run', 'tour', 'doctor', 'hpt']) expect(out).toMatch(new RegExp(`\\b${command}\\b`));
    for (const line of out.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  });

  it('tells the version of package.json', async () => {
    const manifest = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
      version: string;
    };
    expect(await run('--version')).toEqual({ status: 0, out: `${manifest.version}\n`, err: '' });
  });

  it.each([
    [['frob'], 'there is no command "frob"'],
    [['tour', '--quick'], "Unknown option '--quick'"],
    [['doctor', 'now'], "Unexpected argument 'now'"],
    [['run'], 'run takes one script, or - for standard input, not 0'],
    [['run', 'a', 'b'], 'not 2'],
    [['--arch', 'vax'], `--arch is one of ${ARCHES.join(', ')}, not "vax"`],
    [['--backend', 'fake'], '--backend is one of auto, native, emulated, not "fake"'],
    [['--arch'], '--arch'],
    [['repl', 'file'], "Unexpected argument 'file'"],
  ])('takes %j for a mistake', async (argv, sentence) => {
    const { status, out, err } = await run(...argv);
    expect({ status, out }).toEqual({ status: 2, out: '' });
    const [first = '', second, third = ''] = err.split('\n');
    expect(first).toContain(sentence);
    expect(second).toBe('');
    expect(third).toMatch(/^usage: kvm-bridge/);
  });

  it('hands over to the HPT tools', async () => {
    const { status, err } = await run('hpt', 'verify', '/nonexistent');
    expect(status).toBe(2);
    expect(err).toMatch(/^kvm-bridge hpt: \/nonexistent: ENOENT/);
  });

  it('says which script cannot be read', async () => {
    const { status, out, err } = await run('run', '/nonexistent');
    expect({ status, out }).toEqual({ status: 1, out: '' });
    expect(err).toBe("kvm-bridge: Error: ENOENT: no such file or directory, open '/nonexistent'\n");
  });

  it('explains why the real kernel cannot be had, and points to the doctor', async () => {
    const before = process.env.KVM_BRIDGE_ADDON;
    process.env.KVM_BRIDGE_ADDON = '/nonexistent';
    try {
      const { status, out, err } = await run('--backend', 'native');
      expect({ status, out }).toEqual({ status: 1, out: '' });
      expect(err).toMatch(/^kvm-bridge: KvmError ENOSYS: /);
      expect(err).toContain('kvm-bridge doctor');
    } finally {
      if (before === undefined) delete process.env.KVM_BRIDGE_ADDON;
      else process.env.KVM_BRIDGE_ADDON = before;
    }
  });
});
