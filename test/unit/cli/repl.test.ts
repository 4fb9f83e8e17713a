import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { openSession } from '../../../lib/cli/open-session.ts';
import { replCommand } from '../../../lib/cli/repl/index.ts';
import { closeSession, type SessionOptions } from '../../../lib/cli/session.ts';
import { Kvm, KvmError } from '../../../lib/index.ts';
import { loadNative } from '../../../lib/raw.ts';
import { whyNoKvm } from '../../scenarios/real-host.ts';
import { fakeIo, plain } from './fake-io.ts';

const state = mkdtempSync(join(tmpdir(), 'state-'));
afterAll(() => rmSync(state, { recursive: true }));

const S390X: SessionOptions = { backend: 'emulated', arch: 's390x' };

/** What a terminal shows of a session in which these lines are typed. */
async function typed(
  lines: readonly string[],
  options: SessionOptions = S390X,
  { home = state, columns = 200 } = {},
): Promise<string> {
  const input = lines.map((line) => `${line}\n`).join('');
  const io = fakeIo({ isTTY: true, columns, env: { TERM: 'xterm', XDG_STATE_HOME: home }, input });
  expect(await replCommand(io, options)).toBe(0);
  return plain(io.out());
}

describe('the prompt', () => {
  it('says which kernel it has, and what to type', async () => {
    // Input that ends before Node has opened its history leaves that open, which Node 26 does not forgive.
    const text = await typed(['.exit']);
    expect(text).toMatch(/^kvm-bridge \d+\.\d+\.\d+: s390x, the emulated kernel [\d.]+\n/);
    expect(text).toContain('.examples');
    expect(text).toContain('s390x> ');
  });

  it('shows values, and errors in a line without a stack', async () => {
    const text = await typed(['kvm.arch', '4096', 'vm.memory.readU8(0)', '.exit']);
    expect(text).toContain("'s390x'\n");
    expect(text).toContain('4096  0x1000\n');
    expect(text).toContain('Uncaught KvmError EFAULT: 0x0: there are no memory regions\n  read, gpa 0x0, size 0x1\n');
    expect(text).not.toMatch(/^ {4}at /m);
  });

  it('folds what an error means between words, and keeps its points and paragraphs', async () => {
    const text = await typed(['.explain EINVAL'], S390X, { columns: 60 });
    const lines = text.slice(text.indexOf('EINVAL\n\n')).split('\n');
    for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(60);
    expect(lines.join('\n')).toMatch(/^EINVAL\n\nThe errno .*\none:\n\n\* \*\*Memslots\.\*\* .*\n {2}\w/);
    expect(await typed(['.help mem'], S390X, { columns: 60 })).toContain('.mem  The memory map: ');
  });

  it('takes the format of a dump with its command, as debuggers do, and beside it', async () => {
    const text = await typed([
      'vm.memory.addRam(0, kvm.mapAnonymous(1 << 20)); vm.memory.writeU32(0x1004, 0xcafe)',
      '.xp/2xw 0x1000',
      '.xp /2xw 0x1000',
      '.xq/2xw 0x1000',
    ]);
    expect(text.match(/^(s390x> )?0x00001000 {2}00000000 0000cafe$/gm)).toHaveLength(2);
    expect(text).toContain('Invalid REPL keyword');
  });

  it('lists its commands with those of Node', async () => {
    const text = await typed(['.help', '.kernel']);
    for (const command of ['.doctor', '.examples', '.kernel', '.exit'])
      expect(text).toMatch(new RegExp(`\\${command} +[A-Z]`));
    expect(text).toMatch(/^s390x, the emulated kernel/m);
  });

  it('folds the list of commands between words', async () => {
    const text = await typed(['.help'], S390X, { columns: 60 });
    const list = text.slice(text.indexOf('.break'), text.indexOf('Ctrl-D'));
    expect(list.split('\n').filter((line) => line.length > 60)).toEqual([]);
    expect(list).toMatch(
      /^\.caps \[NAME\] \[--json\]\n {4}The kernel's capabilities that are there, or those whose\n {4}name has a part\n/m,
    );
  });

  it('says which command was meant, and takes a line that goes on with a dot', async () => {
    const text = await typed(['.slot', '.nothing', '[1, 2,', '3]', '.map((n) => n * 2)', '(kvm', '.arch', ')']);
    expect(text).toContain('there is no command .slot; did you mean .slots?\n');
    expect(text).toContain('there is no command .nothing; .help lists them\n');
    expect(text).toContain("'s390x'\n");
  });

  it('remembers lines where XDG says, for this user alone', async () => {
    const home = join(state, 'remembering');
    const io = fakeIo({ isTTY: true, env: { TERM: 'xterm', XDG_STATE_HOME: home }, input: undefined });
    const ended = replCommand(io, S390X);
    const file = join(home, 'kvm-bridge', 'repl_history');
    await vi.waitFor(() => statSync(file));
    io.stdin.write('const remembered = 1\n');
    // Node writes them a moment later.
    await vi.waitFor(() => expect(readFileSync(file, 'utf8')).toContain('const remembered = 1'));
    io.stdin.end();
    expect(await ended).toBe(0);
    expect(statSync(join(home, 'kvm-bridge')).mode & 0o077).toBe(0);
  });

  it('works without a place to remember them', async () => {
    const file = join(state, 'a-file');
    writeFileSync(file, '');
    expect(await typed(['kvm.arch'], S390X, { home: file })).toContain("'s390x'\n");
  });

  it('leaves no name behind', async () => {
    await typed(['vm']);
    expect('kvm' in globalThis).toBe(false);
    expect('Kvm' in globalThis).toBe(false);
  });
});

describe('openSession', () => {
  it('traces the calls on request', async () => {
    const lines: string[] = [];
    const session = await openSession({ ...S390X, trace: (line) => lines.push(line) }, fakeIo());
    closeSession(session);
    expect(lines).toEqual(['openKvm() = kvm#1', 'createVm(kvm#1, 0) = vm#1', 'close(vm#1) = 0', 'close(kvm#1) = 0']);
  });

  const missing = whyNoKvm(loadNative());
  describe.skipIf(missing !== undefined)('on a real kernel that makes no VM', () => {
    const refuse = () =>
      vi.spyOn(Kvm.prototype, 'createVm').mockImplementationOnce(() => {
        throw new KvmError(-22, { syscall: 'ioctl(KVM_CREATE_VM)', explanation: 'allocate_pgste' });
      });

    it('takes the emulated one for auto, and says why', async () => {
      refuse();
      const session = await openSession({ backend: 'auto' }, fakeIo());
      expect(session.kvm.backend).toBe('emulated');
      expect(session.fallbackReason).toContain('allocate_pgste');
      closeSession(session);
    });

    it('fails for native', async () => {
      refuse();
      await expect(openSession({ backend: 'native' }, fakeIo())).rejects.toThrow('allocate_pgste');
    });
  });
});
