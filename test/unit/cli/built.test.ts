import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Look } from '../../../lib/cli/top/look.ts';
import { loadNative } from '../../../lib/raw.ts';
import { BuiltPackage } from './built-package.ts';
import { smallStream } from './small-stream.ts';

// Everything here runs in processes of its own, on the package compiled from the present sources.
const built = new BuiltPackage();
const scratch = mkdtempSync(join(tmpdir(), 'scripts-'));
beforeAll(() => built.build(), 120_000);
afterAll(() => {
  built.remove();
  rmSync(scratch, { recursive: true });
});

const LIMIT = 60_000;
const EMULATED = ['--backend', 'emulated'];
const withoutAddon = { KVM_BRIDGE_ADDON: '/nonexistent/kvm_bridge.node' };

/** Programs that take whatever kernel there is are told when it is the emulated one. */
const withoutWarning = (err: string) =>
  err.replace(/^\(node:\d+\) \[KVM_BRIDGE_EMULATED\] Warning: .*\n.*\n\(Use `node --trace-warnings .*\n/m, '');

function script(...lines: string[]): string {
  const path = join(scratch, 'script.kvm');
  writeFileSync(path, lines.join('\n'));
  return path;
}

describe('lines from a pipe', { timeout: LIMIT }, () => {
  const lines = (args: readonly string[], ...input: string[]) => built.cli(args, { input: input.join('\n') });

  it('are taken in order, awaited, and answered without a prompt', async () => {
    const { status, out, err } = await lines(
      EMULATED,
      'const late = await new Promise((resolve) => setTimeout(resolve, 50, 40));',
      'late + 2',
      'vm.memory.addRam(0, kvm.mapAnonymous(1 << 20)); undefined',
      'vm.memory.writeU32(0x1000, 0xcafe)',
      'vm.memory.readU32(0x1000)',
      'vm.memory.readExact(0x1000, 4)',
    );
    expect({ status, err }).toEqual({ status: 0, err: '' });
    expect(out.trimEnd().split('\n')).toEqual([
      '42  0x2a',
      '51966  0xcafe',
      expect.stringMatching(/^ {2}0x00000000 {2}fe ca 00 00 /),
    ]);
  });

  it('may fail one by one, each with its explanation on standard error and no stack', async () => {
    const { status, out, err } = await lines(
      EMULATED,
      'vm.memory.addRam(0, kvm.mapAnonymous(4096)); undefined',
      'vm.setUserMemoryRegion({ slot: 9, guestPhysAddr: 0x1234, memorySize: 4096, userspaceAddr: 0 })',
      'nonsense()',
      'setTimeout(() => { throw new Error("late") }, 1); undefined',
      'await new Promise((resolve) => setTimeout(resolve, 50))',
      'throw new RangeError("mine")',
      '1 + 1',
    );
    expect({ status, out }).toEqual({ status: 1, out: '2\n' });
    expect(err.trimEnd().split('\n')).toEqual([
      'KvmError EINVAL: guest_phys_addr 0x1234 is not a multiple of the page size, 0x1000',
      '  ioctl(KVM_SET_USER_MEMORY_REGION), slot 9, gpa 0x1234, size 0x1000',
      'ReferenceError: nonsense is not defined',
      'Error: late',
      'RangeError: mine',
    ]);
  });

  it('span lines where a statement does, and say when it never ends', async () => {
    const ended = await lines(EMULATED, 'const sum = [', '  1,', '  2].reduce((a, b) => a + b)', 'sum', 'if (sum) {');
    expect(ended).toEqual({ status: 1, out: '3\n', err: 'SyntaxError: Unexpected end of input\n' });
  });

  it('are of the kernel that was asked for', async () => {
    for (const arch of ['s390x', 'ppc64', 'aarch64', 'riscv64', 'x86_64']) {
      const { out } = await lines(['--arch', arch, ...EMULATED], '.kernel', 'kvm.arch', 'vm instanceof Vm');
      expect(out).toMatch(new RegExp(`^${arch}, the emulated kernel [\\d.]+\\n'${arch}'\\n`));
    }
  });

  it('tell why auto is not the real kernel', async () => {
    const { out } = await built.cli([], { input: 'kvm.fallbackReason', env: withoutAddon });
    expect(out).toMatch(/addon/);
  });

  it('are traced on request, on standard error', async () => {
    const { out, err } = await built.cli([...EMULATED, '--trace'], { input: 'kvm.getApiVersion()' });
    expect(out).toBe('12  0xc\n');
    expect(err.split('\n')).toContain('getApiVersion(kvm#1, 0) = 12');
    expect(err.split('\n')).toContain('close(vm#1) = 0');
  });

  it('may leave a guest running, or start one and go on', async () => {
    const { status, out, err } = await lines(
      EMULATED,
      'vm.memory.addRam(0, kvm.mapAnonymous(1 << 20)); undefined',
      "const vcpu = vm.createVcpu(); kvm.emulated.loadGuest(vcpu.fd, (function* () { yield { op: 'spin' } })()); vcpu.run()",
      'await new Promise((resolve) => setTimeout(resolve, 50)); vcpu.running',
    );
    expect({ status, err }).toEqual({ status: 0, err: '' });
    expect(out).toBe('a Promise: await it\ntrue\n');
  });

  it('show their own commands', async () => {
    const { out } = await lines(EMULATED, '.examples', '.doctor');
    expect(out).toContain('vm.memory.addRam(0');
    expect(out).toContain('What the real KVM has and lacks on this machine');
  });
});

describe('the lines that .examples shows', { timeout: LIMIT }, () => {
  it.each(['x86_64', 's390x', 'ppc64', 'aarch64', 'riscv64'])(
    'work on %s, but for the one that shows an error',
    async (arch) => {
      const options = ['--arch', arch, ...EMULATED];
      const { out: examples } = await built.cli(options, { input: '.examples' });
      const { err } = await built.cli(options, { input: examples });
      expect(err).toMatch(/^KvmError EINVAL: guest_phys_addr 0x1234 .*\n {2}ioctl.*\n$/);
    },
  );
});

describe('run', { timeout: LIMIT }, () => {
  it('takes a whole ES module, whatever its name, with its arguments and what the package exports', async () => {
    const path = script(
      '#!/usr/bin/env kvm-bridge run',
      "import { readFileSync } from 'node:fs';",
      "import { Kvm as imported } from 'kvm-bridge';",
      'const a = 1',
      '  + 2',
      'console.log(a, later(), [2, 1]',
      '  .map((x) => x * 2)',
      '  .join());',
      'if (a === 1) {',
      '}',
      'else console.log(await Promise.resolve(readFileSync(process.argv[1]).length > 0), imported === Kvm);',
      "function later() { return 'later'; }",
      'console.log(kvm.arch, typeof s390x.decodeAsce, typeof ppc64.Htab, typeof x86_64, process.argv.slice(2).join());',
      'setTimeout(() => console.log(vm.memory.addRam(0, kvm.mapAnonymous(1 << 20)).size), 20);',
    );
    expect(await built.cli(['run', '--arch', 's390x', ...EMULATED, path, 'one', '--two'])).toEqual({
      status: 0,
      out: '3 later 4,2\ntrue true\ns390x function function object one,--two\n1048576\n',
      err: '',
    });
  });

  it('takes standard input for -', async () => {
    const { status, out } = await built.cli(['run', ...EMULATED, '-'], { input: 'console.log(vm.memslots.size)' });
    expect({ status, out }).toEqual({ status: 0, out: '0\n' });
    expect((await built.cli(['run', ...EMULATED, '-'])).status).toBe(0);
  });

  it("has an error's place by the script's own lines, and its explanation", async () => {
    const path = script(
      'vm.memory.addRam(0, kvm.mapAnonymous(8192));',
      '',
      'vm.memory.addRam(4096,',
      '  kvm.mapAnonymous(4096));',
      'console.log("not reached");',
    );
    const { status, out, err } = await built.cli(['run', ...EMULATED, path]);
    expect({ status, out }).toEqual({ status: 1, out: '' });
    expect(err).toContain('slot 1 [0x1000, 0x2000) overlaps slot 0 [0x0, 0x2000)');
    expect(err).toContain(`${path}:3:`);
  });

  it.each([
    ['process.exitCode = 7', 7],
    ['process.exit(5)', 5],
    ['await new Promise(() => {})', 13],
    ['throw new Error("mine")', 1],
    ['Promise.reject(new Error("nobody cares"))', 1],
    ['setTimeout(() => { throw new Error("late"); })', 1],
    ['const a = {', 1],
    ['1', 0],
  ])('ends as Node does: %s', async (input, status) => {
    const ended = await built.cli(['run', ...EMULATED, '-'], { input });
    expect(ended.status).toBe(status);
    if (status === 1) expect(ended.err).toMatch(/Error/);
  });
});

describe('the command line as a process', { timeout: LIMIT }, () => {
  it('ends with the status', async () => {
    expect((await built.cli(['--version'])).status).toBe(0);
    expect((await built.cli(['frob'])).status).toBe(2);
    const { status, err } = await built.cli(['--backend', 'native'], { env: withoutAddon });
    expect(status).toBe(1);
    expect(err).not.toMatch(/^ {4}at /m);
  });

  it('plays the tour without the addon', async () => {
    const { status, out, err } = await built.cli(['tour'], { env: withoutAddon });
    expect({ status, err }).toEqual({ status: 0, err: '' });
    expect(out).toContain('The real kernel is not among them: addon: ');
  });

  it('lets the doctor say that the addon is missing', async () => {
    const { status, out } = await built.cli(['doctor', '--json'], { env: withoutAddon });
    expect(status).toBe(1);
    const { usable, findings } = JSON.parse(out) as {
      usable: boolean;
      findings: { subject: string; detail: string }[];
    };
    expect(usable).toBe(false);
    expect(findings.find(({ subject }) => subject === 'addon')?.detail).toContain(withoutAddon.KVM_BRIDGE_ADDON);
  });
});

describe('what is loaded before anything is asked for', () => {
  /** A module's files, itself among them, but for what it imports when it is run. */
  const filesOf = (entry: string): string[] => {
    const files = new Set([join(built.folder, 'dist', entry)]);
    for (const file of files) {
      const imports = readFileSync(file, 'utf8').matchAll(/^(?:import|export)\b[^;]*?"(\.[^"]+)"/gm);
      for (const [, path = ''] of imports) files.add(join(dirname(file), path));
    }
    return [...files];
  };
  const bytesOf = (files: readonly string[]): number => files.reduce((sum, file) => sum + statSync(file).size, 0);

  it('is no command, and of the library what tells of errors', () => {
    const files = filesOf('cli/main.js');
    expect(files.length).toBeGreaterThan(3);
    expect(bytesOf(files)).toBeLessThan(64 * 1024);
  });

  it('has no letter that V8 would have to read as two bytes, and no comment', () => {
    for (const file of filesOf('index.js')) {
      const text = readFileSync(file, 'utf8');
      expect({ file, wide: text.match(/[^\0-\x7f]+/g) }).toEqual({ file, wide: null });
      expect({ file, comments: text.match(/^ *(\/\*\*|\/\/(?!# sourceMappingURL)).*/gm) }).toEqual({
        file,
        comments: null,
      });
    }
  });

  it('is a dozen files of the library, for each of which Node takes a millisecond', () => {
    const files = filesOf('index.js');
    expect(bytesOf(files)).toBeGreaterThan(512 * 1024);
    expect(files.length).toBeLessThanOrEqual(12);
  });
});

describe('hpt', { timeout: LIMIT }, () => {
  // Prints the most memory it ever had, in MiB.
  const meter = 'process.on("exit", () => console.error(Math.round(process.resourceUsage().maxRSS / 1024)))';
  const measured = async (...args: string[]) => {
    const { status, err } = await built.node([
      '--import',
      `data:text/javascript,${encodeURIComponent(meter)}`,
      'dist/cli/main.js',
      'hpt',
      ...args,
    ]);
    return { status, mebibytes: Number(err.trimEnd().split('\n').at(-1)) };
  };
  const header = (index: number, nValid: number, nInvalid: number): Buffer => {
    const bytes = Buffer.alloc(8);
    bytes.writeUInt32LE(index);
    bytes.writeUInt16LE(nValid, 4);
    bytes.writeUInt16LE(nInvalid, 6);
    return bytes;
  };
  const file = (name: string, bytes: Uint8Array): string => {
    const path = join(scratch, name);
    writeFileSync(path, bytes);
    return path;
  };

  it('takes no memory for slots that a few bytes speak of', async () => {
    const { mebibytes: base } = await measured('--help');
    for (const index of [2 ** 24 - 2, 0xffff_fff0]) {
      const { mebibytes } = await measured('verify', file('far', header(index, 0, 1)));
      expect(mebibytes).toBeLessThan(base + 64);
    }
  });
});

describe('the examples', { timeout: LIMIT }, () => {
  const expected: Record<string, RegExp> = {
    'first-vm.mjs': /came back with HLT, and left 0xcafe at 0x2000\n$/,
    'dirty-pages.mjs':
      /^2 page\(s\) from 0x3000 on\n1 page\(s\) from 0x80000 on\n1 page\(s\) from 0xf0000 on\nand since then: 0\n$/,
    'mmio-device.mjs': /stores 0xc \(4 bytes\) at \+0\n.*gets 144\nin RAM: 144\n$/,
    'memory-on-demand.mjs':
      /asks for the MiB at 0x40500000\n(.*\n)*at 0x7e800020: 0x22, in one memslot of 2\nEFAULT 0x40500010: .*\n/,
    // Where the kernel tracks no writes, or this user may not have a userfaultfd, it says so.
    'lazy-restore.mjs':
      /^(the guest loads from 0x100000\nthe guest stores to 0x200000\n.* 0x100, .*: true\n409[34] pages .*\nthe rest .* 0x200000: true\nwritten .*: true\n|(.*\n)*Left out: .*\n(.*: true\n)*)$/,
    'sparse-terabyte.mjs': /1 TiB.*\nread back from the last sixteenth: true\n/,
    'dirty-ring.mjs': /ring of 65536 bytes.*\n96 pages from 0x10000 on\n$/,
    'ppc64-hpt.mjs':
      /^pass 0: 16384 slots\n(pass \d+: \d+ slots\n)+pass \d+, the last: \d+ slots\n500 entries.*; 0 differ\n(.*\n)*.*real address 0x0000000000102008/,
    'async-run.mjs': /TimeoutError; .*: true\nkicked: INTR\n$/,
  };
  const files = readdirSync(new URL('../../../examples', import.meta.url)).filter((name) => name.endsWith('.mjs'));

  it('are all there', () => {
    expect(files).toEqual(expect.arrayContaining(Object.keys(expected)));
  });

  for (const [where, env] of [
    ['on the best kernel there is', {}],
    ['without the addon', withoutAddon],
  ] as const) {
    it.each(files)(`%s works ${where}`, async (file) => {
      const { status, out, err } = await built.node([`examples/${file}`], { env });
      expect({ status, err: withoutWarning(err) }).toEqual({ status: 0, err: '' });
      expect(out).toMatch(expected[file] ?? /./);
    });
  }
});

describe('the README', { timeout: LIMIT }, () => {
  const readme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8');

  it('shows code that works, and what it prints', async () => {
    const [, code = ''] = /```js\n([\s\S]*?)```/.exec(readme) ?? [];
    expect(code).not.toBe('');
    const path = join(built.folder, 'readme.mjs');
    writeFileSync(path, code);
    for (const env of [{}, withoutAddon]) {
      const { status, out, err } = await built.node([path], { env });
      expect({ status, err: withoutWarning(err) }).toEqual({ status: 0, err: '' });
      const comments = [...code.matchAll(/\/\/ → (.*)$/gm)].map(([, text]) => text);
      expect(comments.length).toBeGreaterThan(0);
      expect(out.trimEnd().split('\n')).toEqual(comments);
    }
  });
});

describe('what a script does', { timeout: LIMIT }, () => {
  const file = () =>
    script(
      'vm.memory.addRam(0, kvm.mapAnonymous(1 << 20), { name: "ram" });',
      'const vcpu = vm.createVcpu();',
      'kvm.emulated.loadGuest(vcpu.fd, (function* () {',
      '  for (let i = 0; i < 5; i++) yield { op: "store", address: 0xd0000000, size: 1, value: 1n };',
      '})());',
      'for (let i = 0; i < 5; i++) console.log((await vcpu.run()).reason);',
    );

  it('is told by top, when it ends at the latest', async () => {
    const { status, out, err } = await built.cli(['top', ...EMULATED, '--arch', 'x86_64', file()]);
    expect({ status, out }).toEqual({ status: 0, out: 'MMIO\n'.repeat(5) });
    expect(err).toMatch(/\n {2}MMIO +[\d.]+ +5\n/);
  });

  it('is told by top as JSON: what it did in each second, and the sums are right', async () => {
    const looks = join(scratch, 'looks.jsonl');
    const slow = script(
      'vm.memory.addRam(0, kvm.mapAnonymous(1 << 20), { name: "ram" });',
      'const vcpu = vm.createVcpu();',
      'kvm.emulated.loadGuest(vcpu.fd, (function* () {',
      '  for (let i = 0; i < 5; i++) { yield { op: "store", address: 4096 * i, size: 1, value: 1n }; yield { op: "out", port: 1, size: 1, value: 0n }; }',
      '})());',
      'await new Promise((done) => setTimeout(done, 1500)); // Memory is looked at from the first second on.',
      'for (let i = 0; i < 5; i++) await vcpu.run();',
    );
    const { status, out, err } = await built.cli(['top', ...EMULATED, '--arch', 'x86_64', '--json', '-o', looks, slow]);
    expect({ status, out, err }).toEqual({ status: 0, out: '', err: '' });
    const lines = readFileSync(looks, 'utf8').trim().split('\n');
    expect(lines.length).toBeGreaterThanOrEqual(2);
    const each = lines.map((line) => JSON.parse(line) as Look);
    const sum = (of: (look: Look) => number) => each.reduce((total, look) => total + of(look), 0);
    expect(sum(({ exits }) => exits.find(({ reason }) => reason === 'IO')?.count ?? 0)).toBe(5);
    expect(sum(({ dirty }) => ('regions' in dirty ? dirty.regions[0]!.dirtyPages : 0))).toBe(5);
    expect(each[0]).toMatchObject({ vcpus: 1, dirty: { whyNot: 'dirty pages are looked at from now on' } });
  });

  it('is in a file that replay reads', async () => {
    const trace = join(scratch, 'trace.jsonl');
    const ran = await built.cli(['run', ...EMULATED, '--arch', 'x86_64', '--trace-out', trace, file()]);
    expect(ran).toEqual({ status: 0, out: 'MMIO\n'.repeat(5), err: '' });
    const { status, out } = await built.cli(['replay', trace]);
    expect(out).toMatch(/every answer is the same\n$/);
    expect(status).toBe(0);
  });
});

describe('a file of lines that gets no longer', { timeout: LIMIT }, () => {
  const path = join(scratch, 'short.jsonl');
  const limited = (bytes: number) =>
    `(await import('node:child_process')).execFileSync('prlimit', ['--pid', String(process.pid), '--fsize=${bytes}']);`;
  const told = (command: string) =>
    `kvm-bridge ${command}: ${path}: file too large (EFBIG)\n\`kvm-bridge ${command} --help\` says what there is.\n`;

  it('ends a run in its middle with a sentence', async () => {
    const file = script(limited(1000), 'for (;;) kvm.getApiVersion();');
    const ran = await built.cli(['run', ...EMULATED, '--trace-out', path, file]);
    expect(ran).toEqual({ status: 1, out: '', err: told('run') });
    expect(statSync(path).size).toBe(1000);
  });

  it('fails a run that has ended, and whose last line is cut', async () => {
    await built.cli(['run', ...EMULATED, '--trace-out', path, script(limited(1e6))]);
    const { size } = statSync(path);
    const ran = await built.cli(['run', ...EMULATED, '--trace-out', path, script(limited(size - 5))]);
    expect(ran).toEqual({ status: 1, out: '', err: told('run') });
  });

  it('ends what top tells', async () => {
    const ran = await built.cli(['top', ...EMULATED, '-o', path, script(limited(10))]);
    expect(ran).toEqual({ status: 1, out: '', err: told('top') });
  });

  it('ends the trace of a prompt, which goes on', async () => {
    const input = `.trace ${path}\n${limited(100)}\nfor (let i = 0; i < 9; i++) vm.checkExtension(1);\n1 + 1`;
    const { status, out, err } = await built.cli(EMULATED, { input });
    expect({ status, err }).toEqual({
      status: 1,
      err: `.trace: ${path}: file too large (EFBIG); the trace ends here\n`,
    });
    expect(out).toMatch(/^2$/m);
  });
});

const PERMISSION = ['--permission', '--experimental-permission'].find((name) =>
  process.allowedNodeEnvironmentFlags.has(name),
)!;

describe('an addon that is there', { timeout: LIMIT }, () => {
  beforeEach((test) => {
    const loaded = loadNative();
    if ('reason' in loaded) test.skip(loaded.reason);
  });

  const PRINT = "const { reason, mend } = loadNative(); console.log([reason, mend].join('\\n'));";
  const printed = async (flags: readonly string[], ...lines: string[]) => {
    const code = ["import { loadNative } from './dist/raw.js';", ...lines].join('\n');
    const { out, err } = await built.node([...flags, '--no-warnings', '--input-type=module', '-e', code]);
    expect(err).toBe('');
    return out.trimEnd().split('\n');
  };

  it.each([
    ['without', '--no-addons', ['--no-addons']],
    ['with', '--allow-addons` beside `--permission', [PERMISSION, '--allow-fs-read=*']],
  ])('and may not be loaded wants Node started %s `%s`', async (how, flag, flags) => {
    const [reason, mend] = await printed(flags, PRINT);
    expect(mend).toBe(`start Node ${how} \`${flag}\``);
    expect(reason).toMatch(
      /^The addon \S+\.node is there, but Node v\S+ cannot load it: .*\w\. Start Node with\S* `\S+`[^.]*\.$/,
    );
    const doctor = await built.node([...flags, '--no-warnings', 'dist/cli/main.js', 'doctor', '--json']);
    expect(JSON.parse(doctor.out)).toMatchObject({
      findings: expect.arrayContaining([expect.objectContaining({ subject: 'addon', mend })]) as unknown,
    });
  });

  it('and may not be looked for is told of, and nothing is thrown', async () => {
    const [reason, mend] = await printed([PERMISSION, `--allow-fs-read=${join(built.folder, 'dist/*')}`], PRINT);
    expect(reason).toMatch(/^Access to this API has been restricted(?!.*\.\.).*\. Let Node read this package/);
    expect(mend).toBe('let Node read this package (`--allow-fs-read`)');
  });

  it('is not missing where the process has no descriptor left, and is found when it has', async () => {
    const [reason, mend, found] = await printed(
      [],
      "import { execFileSync } from 'node:child_process';",
      "import { closeSync, openSync } from 'node:fs';",
      "execFileSync('prlimit', ['--pid', String(process.pid), '--nofile=100']);",
      'const fds = [];',
      "try { for (;;) fds.push(openSync('/dev/null')); } catch {}",
      PRINT,
      'for (const fd of fds) closeSync(fd);',
      "console.log('calls' in loadNative());",
    );
    expect(reason).toMatch(/^The addon cannot be looked for: the process has no descriptor left to open a file\. /);
    expect(mend).toBe('close files, or let the process have more of them (`ulimit -n`)');
    expect(found).toBe('true');
  });
});

describe('what Node refuses', { timeout: LIMIT }, () => {
  const refused = (path: string) =>
    expect.stringMatching(
      new RegExp(
        `^kvm-bridge report: ${path}: Access to this API has been restricted.* \\(ERR_ACCESS_DENIED\\)\n.*\n$`,
      ),
    );
  const table = join(scratch, 'refused.stream');
  const page = join(scratch, 'refused.html');
  beforeAll(() => writeFileSync(table, smallStream()));

  it.each([
    ['writing', ['--allow-fs-read=*'], page, 1],
    ['reading', [`--allow-fs-read=${join(built.folder, '*')}`, '--allow-fs-write=*'], table, 2],
  ])('is told of with the file, without a stack: %s', async (_, allowed, path, status) => {
    const argv = ['--no-warnings', PERMISSION, ...allowed, 'dist/cli/main.js', 'report', '--json', table, '-o', page];
    expect(await built.node(argv)).toEqual({ status, out: '', err: refused(path) });
  });

  it('and a script runs with intrinsics that are frozen', async () => {
    const argv = ['--no-warnings', '--frozen-intrinsics', 'dist/cli/main.js', 'run', ...EMULATED];
    expect(await built.node([...argv, script('console.log(kvm.backend);')])).toEqual({
      status: 0,
      out: 'emulated\n',
      err: '',
    });
  });
});

describe('a reader that has seen enough', { timeout: LIMIT }, () => {
  const noisy = () => script('for (let i = 0; i < 20000; i++) { kvm.getApiVersion(); console.log("x".repeat(100)); }');
  const cases: readonly [words: string, stream: 'stdout' | 'stderr'][] = [
    ['--help', 'stdout'],
    ['doctor', 'stdout'],
    ['tour', 'stdout'],
    ['lab --list', 'stdout'],
    ['run --backend emulated SCRIPT', 'stdout'],
    ['run --backend emulated --trace-out - SCRIPT', 'stdout'],
    ['run --backend emulated --trace SCRIPT', 'stderr'],
    ['top --backend emulated --json -o - SCRIPT', 'stdout'],
    ['hpt dump STREAM', 'stdout'],
    ['report --json STREAM', 'stdout'],
  ];
  const stream = join(scratch, 'table.stream');
  beforeAll(() => writeFileSync(stream, smallStream()));
  const argv = (words: string) =>
    words.split(' ').map((word) => (word === 'SCRIPT' ? noisy() : word === 'STREAM' ? stream : word));

  it.each(cases)('ends %s quietly: %s', async (words, stream) => {
    const { err, status } = await built.cli(argv(words), { closes: stream });
    expect({ err: withoutWarning(err), status: words === 'doctor' ? 0 : status }).toEqual({
      err: stream === 'stderr' ? expect.stringMatching(/^openKvm/) : '',
      status: 0,
    });
  });

  it.each(cases.filter(([, stream]) => stream === 'stdout'))('a full disk is said to be: %s', async (words) => {
    const { status, err } = await built.cli(argv(words), { stdout: '/dev/full' });
    expect({ status, err: withoutWarning(err) }).toEqual({
      status: 1,
      err: 'kvm-bridge: standard output: no space left on device (ENOSPC)\n',
    });
  });
});
