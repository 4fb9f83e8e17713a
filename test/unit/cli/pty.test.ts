import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadNative } from '../../../lib/raw.ts';
import { whyNoKvm } from '../../scenarios/real-host.ts';
import { BuiltPackage } from './built-package.ts';
import { plain } from './fake-io.ts';

const hasPty = spawnSync('python3', ['-c', 'import pty']).status === 0;
const missing = hasPty ? '' : ': skipped, there is no python3, whose pty module makes the terminal';
const notReal = process.arch === 'x64' ? whyNoKvm(loadNative()) : 'the guest is machine code of x86_64';

const LIMIT = 120_000;

/** A program on a terminal, and who types there. */
class Terminal {
  readonly #child: ChildProcessWithoutNullStreams;
  #shown = '';
  #seen = 0;

  constructor(folder: string, state: string, args: readonly string[]) {
    const relay = 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)';
    this.#child = spawn('python3', ['-c', relay, process.execPath, 'dist/cli/main.js', ...args], {
      cwd: folder,
      env: { ...process.env, TERM: 'xterm', NO_COLOR: '1', XDG_STATE_HOME: state },
    });
    this.#child.stdout.on('data', (bytes: Buffer) => {
      this.#shown += plain(bytes.toString());
    });
  }

  press(keys: string): void {
    this.#child.stdin.write(keys);
  }

  /** What is shown from where it was looked at last, as soon as something is in it. */
  async until(what: RegExp): Promise<string> {
    const late = Date.now() + LIMIT / 2;
    for (;;) {
      const found = what.exec(this.#shown.slice(this.#seen));
      if (found !== null) {
        const text = this.#shown.slice(this.#seen, this.#seen + found.index + found[0].length);
        this.#seen += text.length;
        return text;
      }
      if (Date.now() > late) throw new Error(`${what} was not shown, but ${this.#shown.slice(this.#seen)}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** A line, and what it gave: up to a number that the line did not have in it. */
  async line(text: string): Promise<string> {
    this.press(`${text}\r`);
    const mark = Math.floor(Math.random() * 1e9);
    this.press(`'end' + ${mark}\r`);
    return this.until(new RegExp(`'end${mark}'`));
  }

  /** A line that goes on until Ctrl-C, and what is shown then. */
  async interrupted(text: string): Promise<string> {
    this.press(`console.log('be' + 'gins'); ${text}\r`);
    await this.until(/begins\r?\n/);
    await new Promise((resolve) => setTimeout(resolve, 300));
    this.press('\x03');
    const mark = Math.floor(Math.random() * 1e9);
    this.press(`'end' + ${mark}\r`);
    return this.until(new RegExp(`'end${mark}'`));
  }

  async end(): Promise<number | null> {
    const closed = new Promise<number | null>((resolve) => this.#child.once('close', resolve));
    this.press('\x04');
    return closed;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

const REAL = [
  'vm.memory.write(0x1000, Uint8Array.of(0xeb, 0xfe)); 0', // jmp to itself
  's = vcpu.x86_64.getSregs(); s.cs.base = 0n; s.cs.selector = 0; vcpu.x86_64.setSregs(s); 0',
  'vcpu.x86_64.setRegs({ rip: 0x1000, rflags: 2 }); 0',
];
// No generator: V8 takes one that Ctrl-C ended inside of itself for one that is running still.
const EMULATED = [
  'next = () => ({ done: false, value: raw.store(0x1000, 1, 1n) }); 0',
  'kvm.emulated.loadGuest(vcpu.fd, { next, throw: (error) => { throw error; } }); 0',
];

describe.skipIf(!hasPty)(`Ctrl-C at the prompt of a terminal${missing}`, { timeout: LIMIT }, () => {
  const built = new BuiltPackage();
  const state = mkdtempSync(join(tmpdir(), 'prompt-state-'));
  beforeAll(() => built.build(), LIMIT);
  afterAll(() => {
    built.remove();
    rmSync(state, { recursive: true, force: true });
  });

  const gets = async (options: readonly string[], guest: readonly string[]): Promise<void> => {
    const terminal = new Terminal(built.folder, state, options);
    try {
      await terminal.until(/x86_64> /);
      await terminal.line('vm.memory.addRam(0, kvm.mapAnonymous(1 << 20)); vcpu = vm.createVcpu(); 0');
      for (const line of guest) await terminal.line(line);
      for (const run of ['vcpu.runSync()', 'for (;;) vcpu.runSync({ timeoutMs: 50 })', 'await vcpu.run()']) {
        expect(await terminal.interrupted(run)).not.toContain('at ');
        expect(await terminal.line('["running", vcpu.running].join()')).toContain("'running,false'");
        expect(await terminal.line('vcpu.runSync({ timeoutMs: 20 }).reason')).toContain("'INTR'");
      }
      expect(await terminal.end()).toBe(0);
    } finally {
      terminal.kill();
    }
  };

  it('gets an emulated vCPU out of its guest, and the next run goes on', () =>
    gets(['--backend', 'emulated', '--arch', 'x86_64'], EMULATED));

  it.skipIf(notReal !== undefined)(
    `gets a real vCPU out of its guest, and the next run goes on${notReal === undefined ? '' : `: skipped, ${notReal}`}`,
    () => gets(['--backend', 'native'], REAL),
  );
});
