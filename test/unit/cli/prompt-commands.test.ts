import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { nearest } from '../../../lib/cli/nearest.ts';
import { HIDDEN } from '../../../lib/cli/repl/completion.ts';
import { dump, dumpFormat } from '../../../lib/cli/repl/dump.ts';
import { replCommand } from '../../../lib/cli/repl/index.ts';
import { sliceRuns } from '../../../lib/cli/repl/slices.ts';
import type { SessionOptions } from '../../../lib/cli/session.ts';
import type { Arch, KvmCalls } from '../../../lib/raw.ts';
import { fakeIo } from './fake-io.ts';

const scratch = mkdtempSync(join(tmpdir(), 'prompt-'));
afterAll(() => rmSync(scratch, { recursive: true }));
const captures = fileURLToPath(new URL('../../captures/', import.meta.url));

/** What lines from a pipe lead to. */
async function piped(options: Partial<SessionOptions> & { readonly arch?: Arch }, ...lines: string[]) {
  const io = fakeIo({ input: `${lines.join('\n')}\n` });
  const status = await replCommand(io, { backend: 'emulated', ...options });
  return { status, out: io.out(), err: io.err() };
}

const RAM = 'vm.memory.addRam(0x100000, kvm.mapAnonymous(1 << 20), { name: "ram" }); undefined';

it('.exit ends what comes from a pipe', async () => {
  expect(await piped({ arch: 'x86_64' }, '1 + 1', '.exit', 'throw new Error("not reached")')).toEqual({
    status: 0,
    out: '2\n',
    err: '',
  });
  expect(await piped({ arch: 'x86_64' }, 'nothing', '.exit', '2')).toMatchObject({ status: 1, out: '' });
  expect((await piped({ arch: 'x86_64' }, '.help exit')).out).toBe('.exit  The end: what follows is not looked at\n');
  expect((await piped({ arch: 'x86_64' }, '.exti')).err).toBe('there is no command .exti; did you mean .exit?\n');
});

describe('commands about memory', () => {
  it('show the map, with holes and devices, and the memslots', async () => {
    const { out } = await piped(
      { arch: 'x86_64' },
      '.mem',
      RAM,
      'vm.memory.addMmio(0x80000000, 4096, {}, { name: "uart" }); undefined',
      '.mem',
      '.slots',
    );
    const [empty, , ...rows] = out.trimEnd().split('\n');
    expect(empty).toMatch(/^there are no regions: /);
    expect(rows.map((row) => row.trim().split(/ {2,}/))).toEqual([
      ['0x0', '0xfffff', '1 MiB', 'hole'],
      ['0x100000', '0x1fffff', '1 MiB', 'ram', expect.stringMatching(/^anonymous at 0x/), 'ram'],
      ['0x200000', '0x7fffffff', '2.00 GiB', 'hole'],
      ['0x80000000', '0x80000fff', '4 KiB', 'mmio', 'handlers', 'uart'],
      ['slot', 'first', 'last', 'size', 'hva', 'flags'],
      ['0', '0x100000', '0x1fffff', '1 MiB', expect.stringMatching(/^0x/), '-'],
    ]);
  });

  it('write, dump and find, by the byte order of the guest', async () => {
    const lines = [
      RAM,
      '.poke 0x100010 0xcafe/4',
      '.poke 0x100020 "hello"',
      '.xp /2xw 0x100010',
      '.xp /8xb 0x100020',
      '.xp /s 0x100020',
      '.find "hello"',
      '.find ca fe',
      '.find de ad',
    ];
    const big = await piped({ arch: 's390x' }, ...lines);
    expect(big).toMatchObject({ status: 0, err: '' });
    expect(big.out.split('\n')).toEqual([
      '4 bytes at 0x100010',
      '5 bytes at 0x100020',
      '0x00100010  0000cafe 00000000',
      `0x00100020  ${'68 65 6c 6c 6f 00 00 00'.padEnd(47)}  hello...`,
      '0x00100020  "hello"',
      '0x100020',
      '0x100012',
      'nowhere',
      '',
    ]);
    const little = await piped({ arch: 'x86_64' }, ...lines, '.find 0xcafe/2');
    expect(little.out).toContain('0x00100010  0000cafe 00000000');
    expect(little.out.trimEnd().split('\n').at(-1)).toBe('0x100010');
  });

  it('say what was written since', async () => {
    const { out } = await piped(
      { arch: 'x86_64' },
      RAM,
      '.dirty',
      '.dirty',
      'vm.memory.fill(0x101000, 8192, 1)',
      '.dirty',
      '.dirty stop',
    );
    expect(out).toMatch(/^started: .*\nnothing was written\n.*\n {2}0x101000 +0x102fff +2 +8 KiB\nstopped\n$/);
  });

  it('refuse what they cannot read, with what would be right, and go on', async () => {
    const { status, out, err } = await piped(
      { arch: 'x86_64' },
      '.xp',
      '.xp nonsense',
      '.xp /3z 0',
      '.xp -1',
      '.poke 0 0x1234/1',
      '.poke 0 xyz',
      '.keys',
      '.walk 0',
      '.regs 7',
      '.dirty twice',
      '.memm',
      '.explain EFOO',
      '1 + 1',
    );
    expect({ status, out }).toEqual({ status: 1, out: '2\n' });
    for (const sentence of [
      '.xp: the address is missing\nusage: .xp [/FMT] ADDRESS',
      'the address nonsense: nonsense is not defined',
      'not /3z',
      'the address is a number ≥ 0, not -1',
      '0x1234 does not fit into 1 byte',
      'not xyz',
      "storage keys are s390x's, and this is x86_64",
      'there is no vCPU whose tables could be walked',
      '.regs: there is no vCPU: vm.createVcpu() makes one',
      '.dirty or .dirty stop, not .dirty twice',
      'there is no command .memm; did you mean .mem?',
      'there is nothing on EFOO',
    ]) {
      expect(err).toContain(sentence);
    }
  });
});

describe('dumps', () => {
  it.each([
    ['/16xb', { count: 16, letter: 'x', size: 1 }],
    ['/4xg', { count: 4, letter: 'x', size: 8 }],
    ['/2dh', { count: 2, letter: 'd', size: 2 }],
    ['/8', { count: 8, letter: 'x', size: 4 }],
    ['', { count: 64, letter: 'x', size: 1 }],
    ['/s', { count: 256, letter: 's', size: 1 }],
    ['/4q', undefined],
    ['/xx', undefined],
  ])('have the format %s', (text, format) => {
    expect(dumpFormat(text)).toEqual(format);
  });

  it('fold equal lines, and show the last one', () => {
    const bytes = new Uint8Array(80);
    bytes[0] = 1;
    const lines = dump(0x1000n, bytes, { count: 80, letter: 'x', size: 1 }, true).split('\n');
    expect(lines.map((line) => line.slice(0, 13))).toEqual(['0x00001000  0', '0x00001010  0', '*', '0x00001040  0']);
  });

  it('are signed for d and not for u', () => {
    const bytes = Uint8Array.of(0xff, 0xfe);
    expect(dump(0n, bytes, { count: 1, letter: 'd', size: 2 }, false)).toBe('0x00000000  -2');
    const kernel = Uint8Array.from({ length: 24 }, (_, i) => 0x41 + i);
    expect(dump(0xffff_ffff_8100_0000n, kernel, { count: 24, letter: 'x', size: 1 }, true, 80).split('\n')).toEqual([
      '0xffffffff81000000  41 42 43 44 45 46 47 48  ABCDEFGH',
      '0xffffffff81000008  49 4a 4b 4c 4d 4e 4f 50  IJKLMNOP',
      '0xffffffff81000010  51 52 53 54 55 56 57 58  QRSTUVWX',
    ]);
    expect(dump(0n, kernel, { count: 24, letter: 'x', size: 1 }, true, 80).split('\n')).toHaveLength(2);
    expect(dump(0n, bytes, { count: 1, letter: 'u', size: 2 }, true)).toBe('0x00000000  65279');
  });
});

describe('commands about the session', () => {
  it('explain an error number by its document, however it is written', async () => {
    const { out } = await piped({ arch: 'x86_64' }, '.explain EEXIST');
    expect(out).toMatch(/^EEXIST\n/);
    expect((await piped({ arch: 'x86_64' }, '.explain -17')).out).toBe(out);
    expect((await piped({ arch: 'x86_64' }, '.explain eexist')).out).toBe(out);
  });

  it('trace to a file, and save what was typed as a script', async () => {
    const trace = join(scratch, 'trace.txt');
    const saved = join(scratch, 'saved.mjs');
    const ended = await piped(
      { arch: 's390x' },
      `.trace ${trace}`,
      'const version = kvm.getApiVersion(); undefined',
      'kvm.nonsense()',
      '.trace off',
      'kvm.getApiVersion()',
      `.save ${saved}`,
    );
    expect(ended.err).toMatch(/kvm\.nonsense is not a function/);
    expect(readFileSync(trace, 'utf8')).toBe('getApiVersion(kvm#1, 0) = 12\n');
    expect(readFileSync(saved, 'utf8').split('\n')).toEqual([
      `// kvm-bridge run --backend emulated --arch s390x --release 6.12 ${saved}`,
      'const version = kvm.getApiVersion(); undefined',
      'kvm.getApiVersion()',
      '',
    ]);
  });

  it('list capabilities and themselves', async () => {
    const { out } = await piped({ arch: 's390x' }, '.caps SKEYS', '.help');
    expect(out).toMatch(/S390_SKEYS +1\n/);
    const json = await piped({ arch: 's390x' }, '.caps skeys --json');
    expect(JSON.parse(json.out)).toEqual({ S390_SKEYS: 1 });
    for (const name of ['.mem', '.x [/FMT] ADDRESS', '.trace on|off|FILE']) expect(out).toContain(name);
  });
});

describe('what a new user types', () => {
  it.each<Arch>(['x86_64', 's390x', 'ppc64', 'aarch64', 'riscv64'])('is answered in words on %s', async (arch) => {
    const { out, err, status } = await piped(
      { arch },
      ...[
        '.regs',
        '.xp 0',
        'vm.memory.addRam(0, kvm.mapAnonymous(1 << 20)); undefined',
        '.xp /0xb 0',
        '.xp /9999999xb 0',
      ],
      ...['.slots all', '.mem 0', '.kernel now', '.explain', '.explain EINVALL', '.save /nonexistent/x', '.trace /tmp'],
      ...[
        '.help mem',
        '.help .slots',
        '.help memm',
        '.poke 0 0x41',
        '.poke 0 0x4142',
        '.dirty',
        'vm.memory.markDirty(0, 1)',
      ],
      ...['vm.dirtyPages.collect(); vm.dirtyPages', 'vm.createVcpu(); vm', '.save /dev/null'],
    );
    expect(status).toBe(1);
    expect(err.split('\n').filter((line) => !line.startsWith('usage: '))).toEqual([
      '.regs: there is no vCPU: vm.createVcpu() makes one',
      '.xp: there is no memory at 0x0',
      '.xp: the format is /COUNT from 1 on, one of x d u c s, one of b h w g, not /0xb',
      '.xp: it shows no more than 1 MiB at once, and /9999999xb is 9.54 MiB',
      '.slots: it takes nothing behind it',
      '.mem: it takes nothing behind it',
      '.kernel: it takes nothing behind it',
      '.explain: which errno? A name, or its number',
      '.explain: there is nothing on EINVALL; did you mean EINVAL?',
      '.save: /nonexistent/x: no such file or directory (ENOENT)',
      '.trace: /tmp: illegal operation on a directory (EISDIR)',
      'there is no command .memm; did you mean .mem?',
      '',
    ]);
    const lines = out.split('\n');
    expect(lines.slice(0, 4)).toEqual([
      expect.stringMatching(/^\.mem {2}The memory map: /),
      expect.stringMatching(/^\.slots {2}The memslots, /),
      '1 byte at 0x0',
      '2 bytes at 0x0',
    ]);
    expect(out).toContain('DirtyPages (log), 1 page collected in 1 memslot\n');
    expect(out).toMatch(/^Vm fd .*, 1 vCPU\n/m);
    expect(lines.at(-2)).toBe('4 lines in /dev/null');
  });

  it.each<Arch>(['x86_64', 's390x', 'ppc64', 'aarch64', 'riscv64'])(
    'of .examples on %s fits 60 columns',
    async (arch) => {
      const { out } = await piped({ arch }, '.examples');
      for (const line of out.split('\n')) expect(line.length).toBeLessThanOrEqual(60);
    },
  );
});

describe('a captured guest', () => {
  it('of s390x is ready to walk', async () => {
    const capture = JSON.parse(
      Buffer.from(gunzipSync(readFileSync(join(captures, 's390x-linux-6.12/capture.json.gz')))).toString(),
    ) as { linux_banner: { abs: string; text: string } };
    const { status, out, err } = await piped(
      { load: join(captures, 's390x-linux-6.12') },
      '.regs',
      '.walk 0x3ffd0efa278',
      `.xp /s ${capture.linux_banner.abs}`,
      '.mem',
    );
    expect(status).toBe(0);
    expect(err).toMatch(/^A captured s390x guest of Linux version 6\.12.*: 512 MiB/);
    expect(out).toContain('cr1 000000001fc141c7');
    expect(out).toContain('absolute 0x000000000202e278');
    expect(out).toContain('"Linux version 6.12');
  });

  it('of ppc64 has its table and segments', async () => {
    const { status, out, err } = await piped(
      { load: join(captures, 'ppc64-hpt-linux-6.12') },
      '.hpt',
      '.walk 0xc000000000001000n',
    );
    expect(status).toBe(0);
    expect(err).toContain('2 entries of its table are left out');
    expect(out).toMatch(/valid +201951\n/);
    expect(out).toContain('real address 0x0000000000001000, in a page of 4K');
  });

  it('is refused where there is none', async () => {
    writeFileSync(join(scratch, 'capture.json'), '{}');
    await expect(piped({ load: scratch })).rejects.toThrow('holds no capture: capture.json and pages.bin');
  });
});

describe('values', () => {
  it('of generators are shown as what they give', async () => {
    const { out } = await piped(
      { arch: 'x86_64' },
      RAM,
      'vm.memory.holes(0x400000)',
      'vm.memory.regions()',
      'vm.memory.slices(0x100000, 0)',
    );
    expect(out).not.toContain('Generator');
    expect(out).toMatch(
      /gpa +size\n {2}0x0 +0x100000\n {2}0x200000 +0x200000\nram 'ram' \[0x100000, 0x200000\).*\nnothing\n$/,
    );
  });

  it('that throw while they are shown are errors like others, and the next line is taken', async () => {
    const { out, err, status } = await piped(
      { arch: 'x86_64' },
      RAM,
      '(function* () { yield 1; throw new RangeError("halfway"); })()',
      '({ [Symbol.for("nodejs.util.inspect.custom")]() { throw new TypeError("unprintable"); } })',
      '6 * 7',
    );
    expect(err).toMatch(/halfway(.|\n)*unprintable/);
    expect(out).toContain('42');
    expect(status).toBe(1);
  });

  it('of dirty pages show what was collected', async () => {
    const { out } = await piped(
      { arch: 'x86_64' },
      RAM,
      'vm.dirtyPages.start(); vm.memory.writeU8(0x103000, 1)',
      'vm.dirtyPages.collect()',
    );
    expect(out).toMatch(/1 page collected in 1 memslot\n {2}gfn +pages\n {2}0x103 +1\n$/);
  });
});

describe('completion', () => {
  it('hides exactly the members that TypeScript hides', () => {
    const lib = fileURLToPath(new URL('../../../lib/', import.meta.url));
    const files = [
      'calls/handle.ts',
      ...['arch/ppc64/handles', 'handles', 'memory', 'sharing'].flatMap((folder) =>
        readdirSync(join(lib, folder))
          .filter((name) => name.endsWith('.ts'))
          .map((name) => join(folder, name)),
      ),
    ];
    const source = files.map((file) => readFileSync(join(lib, file), 'utf8')).join('\n');
    const protectedOnes = [
      ...source.matchAll(/^ {2}protected (?:override |abstract |readonly |async )*(?!static)(\w+)/gm),
    ].map((match) => match[1]);
    const internal = [...source.matchAll(/@internal[^\n]*\n {2}(?:get |readonly |async )*(\w+)/g)].map(
      (match) => match[1],
    );
    const hidden = HIDDEN.flatMap(([, names]) => names);
    const wanted = [...protectedOnes, ...internal].filter((name) => name !== 'constructor');
    expect(new Set(hidden)).toEqual(new Set(wanted));
  });
});

describe('the nearest word', () => {
  it.each([
    ['docter', 'doctor'],
    ['rnu', 'run'],
    ['sna', undefined],
    ['tou', 'tour'],
    ['', undefined],
  ])('to %j is %j', (word, meant) => {
    expect(nearest(word, ['repl', 'run', 'tour', 'doctor'])).toBe(meant);
  });
});

describe('a run without an end', () => {
  it('comes back to JavaScript now and then, and ends for a kick', () => {
    const asked: number[] = [];
    const wait = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
    const results = [() => wait(250) && -4, () => wait(250) && -4, () => -4];
    const calls = {
      run: (_vcpu: number, timeoutMs: number) => {
        asked.push(timeoutMs);
        return Number(results.shift()!());
      },
    } as unknown as KvmCalls;
    sliceRuns({ calls });
    expect(calls.run(1, 0)).toBe(-4);
    expect(asked).toEqual([200, 200, 200]);
  });
});
