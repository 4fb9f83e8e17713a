import { readFileSync } from 'node:fs';
import { describe, expect, it, vi } from 'vitest';
import { cli } from '../../../lib/cli/cli.ts';
import { ARCHES } from '../../../lib/raw.ts';
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
    for (const command of ['repl', 'run', 'top', 'replay', 'lab', 'tour', 'doctor', 'hpt', 'report'])
      expect(out).toMatch(new RegExp(`\\b${command}\\b`));
    for (const line of out.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  });

  it('tells the version of package.json', async () => {
    const manifest = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
      version: string;
    };
    expect(await run('--version')).toEqual({ status: 0, out: `${manifest.version}\n`, err: '' });
  });

  it.each([
    [['frob'], 'kvm-bridge: there is no command frob', 'kvm-bridge'],
    [['docter'], 'kvm-bridge: there is no command docter; did you mean doctor?', 'kvm-bridge'],
    [['toString'], 'kvm-bridge: there is no command toString', 'kvm-bridge'],
    [['tour', '--quick'], 'kvm-bridge tour: there is no option --quick', 'kvm-bridge tour'],
    [['doctor', '--jsno'], 'kvm-bridge doctor: there is no option --jsno; did you mean --json?', 'kvm-bridge doctor'],
    [['doctor', 'now'], 'kvm-bridge doctor: it takes no arguments, not 1: now', 'kvm-bridge doctor'],
    [['run'], 'kvm-bridge run: FILE|- is missing', 'kvm-bridge run'],
    [['--arch', 'vax'], `kvm-bridge repl: --arch is one of ${ARCHES.join(', ')}, not "vax"`, 'kvm-bridge repl'],
    [['--arch', 's390'], 'not "s390"; did you mean s390x?', 'kvm-bridge repl'],
    [['--backend', 'fake'], '--backend is one of auto, native, emulated, not "fake"', 'kvm-bridge repl'],
    [['run', '--page-size', '17', 'x.mjs'], '--page-size is 4096 or 65536, not "17"', 'kvm-bridge run'],
    [['replay', 'a', 'b'], 'kvm-bridge replay: it takes 1 argument, not 2: a b', 'kvm-bridge replay'],
    [['--arch'], 'kvm-bridge repl: --arch wants a value: --arch ARCH', 'kvm-bridge repl'],
    [['report', 'x', '-o'], 'kvm-bridge report: --out wants a value: --out FILE', 'kvm-bridge report'],
    [['doctor', '--json=yes'], 'kvm-bridge doctor: --json takes no value', 'kvm-bridge doctor'],
    [['help', 'docter'], 'kvm-bridge: there is no command docter; did you mean doctor?', 'kvm-bridge'],
    [['replay', '--arch', 's390', '-'], 'not "s390"; did you mean s390x?', 'kvm-bridge replay'],
    [['replay', '--page-size', '5', '-'], '--page-size is 4096 or 65536, not "5"', 'kvm-bridge replay'],
    [
      ['--release', 'new'],
      'kvm-bridge repl: --release must be like "6.12" or "6.12.107", not \'new\'',
      'kvm-bridge repl',
    ],
    [['--release', '5.15'], '--release must be 6.1 or newer (older ones are not emulated), not', 'kvm-bridge repl'],
    [
      ['--arch', 's390x', '--page-size', '65536'],
      '--page-size must be 4096, as hosts of s390x have, not',
      'kvm-bridge repl',
    ],
    [['--backend', 'native', '--release', '6.1'], '--release must be left out with backend', 'kvm-bridge repl'],
    [['--load', '/nonexistent'], '/nonexistent: no such file or directory (ENOENT)', 'kvm-bridge repl'],
    [['hpt', 'stat', 'x'], 'kvm-bridge hpt: there is no command stat; did you mean stats?', 'kvm-bridge hpt'],
  ])('takes %j for a mistake', async (argv, sentence, help) => {
    const { status, out, err } = await run(...argv);
    expect({ status, out }).toEqual({ status: 2, out: '' });
    const [first = '', second, ...rest] = err.split('\n');
    expect(first).toContain(sentence);
    expect([second, ...rest]).toEqual([`\`${help} --help\` says what there is.`, '']);
  });

  it.each(['repl', 'run', 'top', 'replay', 'lab', 'tour', 'doctor', 'hpt', 'report'])('helps with %s', async (name) => {
    const { status, out, err } = await run(name, '--help');
    expect({ status, err }).toEqual({ status: 0, err: '' });
    expect(out).toMatch(new RegExp(`^usage: kvm-bridge ${name}`));
    expect(out).toContain('--help');
    expect((await run('help', name)).out).toBe(out);
    expect((await run(name, '-h')).out).toBe(out);
    for (const line of out.split('\n')) expect(line.length).toBeLessThanOrEqual(140);
  });

  it('hands over to the HPT tools', async () => {
    const { status, err } = await run('hpt', 'verify', '/nonexistent');
    expect(status).toBe(2);
    expect(err).toBe(
      'kvm-bridge hpt: /nonexistent: no such file or directory (ENOENT)\n`kvm-bridge hpt --help` says what there is.\n',
    );
  });

  it('says which script cannot be read', async () => {
    const { status, out, err } = await run('run', '/nonexistent');
    expect({ status, out }).toEqual({ status: 1, out: '' });
    expect(err).toBe(
      'kvm-bridge run: /nonexistent: no such file or directory (ENOENT)\n`kvm-bridge run --help` says what there is.\n',
    );
  });

  it.each(['run', 'top', 'replay', 'report', 'hpt stats', 'report -o x'])(
    '%s names the file that was meant',
    async (words) => {
      const { err } = await run(...words.split(' '), 'test/unit/cli/cli.test.js');
      expect(err.split('\n')[0]).toMatch(
        /no such file or directory \(ENOENT\); did you mean (.*\/)?test\/unit\/cli\/cli.test.ts\?$/,
      );
    },
  );

  it('refuses another architecture than this machine has of the real kernel', async () => {
    const other = process.arch === 's390x' ? 'ppc64' : 's390x';
    const { status, err } = await run('--backend', 'native', '--arch', other);
    expect(status).toBe(2);
    expect(err).toMatch(/^kvm-bridge repl: --arch must be .* as this machine is, not '(s390x|ppc64)'\n/);
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

  it('has the same cure in the error, the banner, the tour and the doctor', async () => {
    vi.stubEnv('KVM_BRIDGE_ADDON', '/nonexistent');
    try {
      const mend = '→ unset KVM_BRIDGE_ADDON, or let it name the addon';
      expect((await run('--backend', 'native')).err).toContain(mend);
      for (const command of ['doctor', 'tour']) expect((await run(command)).out).toContain(mend);
      const io = fakeIo({ isTTY: true, env: { TERM: 'dumb', XDG_STATE_HOME: '/dev/null' }, input: '' });
      await cli(['repl'], io);
      expect(io.out()).toContain(mend);
      expect(io.out().replaceAll(/\s+/g, ' ')).toContain(
        'Not the real one: addon: The environment variable KVM_BRIDGE_ADDON names',
      );
    } finally {
      vi.unstubAllEnvs();
    }
  });
});
