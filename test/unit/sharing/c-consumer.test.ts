import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AddressSpace, type ConsumerEvent, Mapping } from '../../../lib/index.ts';
import {
  CONSUMER,
  HEADER,
  LITTLE_ENDIAN_GUEST,
  LOG_PAGE,
  MAGIC,
  REGION,
  REGION_FLAG,
  VERSION,
} from '../../../lib/sharing/table/layout.ts';
import { UNIT } from '../handles/backends.ts';
import { collector } from './collector.ts';
import { compile, compilerMissing } from './compile.ts';
import { hostCalls } from './host.ts';

const PAGE = 4096;
const why = compilerMissing === undefined ? '' : ` (${compilerMissing})`;
/** On a machine that is busy. */
const PATIENT = { timeout: 15_000 };

describe.skipIf(compilerMissing !== undefined)(`the C header${why}`, () => {
  it.each([
    ['C11', ['-std=c11']],
    ['C++17', ['-xc++', '-std=c++17']],
  ])('has everything where the TypeScript has it, in %s', (_language, flags) => {
    const program = compile('layout', flags);
    const lines = spawnSync(program.path).stdout.toString().trim().split('\n');
    program.remove();
    const told = Object.fromEntries(lines.map((line) => line.split(' ') as [string, string]));
    const fields = (of: string, table: Readonly<Record<string, number>>) =>
      Object.entries(table).map(([name, value]) => [`${of}.${name.toLowerCase()}`, String(value)]);
    expect(told).toEqual({
      ...Object.fromEntries([
        ...fields('header', HEADER),
        ...fields('region', REGION),
        ...fields('consumer', CONSUMER),
      ]),
      magic: MAGIC,
      version: String(VERSION),
      log_page: String(LOG_PAGE),
      little_endian_guest: String(LITTLE_ENDIAN_GUEST),
      read_only: String(REGION_FLAG.READ_ONLY),
      device: String(REGION_FLAG.DEVICE),
    });
  });
});

describe.each(['s390x', 'powerpc64le', 'aarch64', 'riscv64'])('the C header on %s', (machine) => {
  const command = `${machine}-linux-gnu-gcc`;
  const isThere = spawnSync(command, ['--version']).error === undefined;

  it.skipIf(!isThere)(`has everything at the same place${isThere ? '' : ` (there is no ${command} here)`}`, () => {
    const asserts = (of: string, table: Readonly<Record<string, number>>) =>
      Object.entries(table)
        .filter(([name]) => name !== 'BYTES')
        .map(
          ([name, at]) =>
            `_Static_assert(offsetof(struct kvm_bridge_space_${of}, ${name.toLowerCase()}) == ${at}, "${of}.${name}");`,
        );
    const compileLines = (lines: readonly string[]) =>
      spawnSync(
        command,
        ['-std=c11', '-Wall', '-Wextra', '-Wpedantic', '-Werror', '-Inative/include', '-fsyntax-only', '-xc', '-'],
        {
          input: `#define _GNU_SOURCE\n#include "kvm_bridge_space.h"\n${lines.join('\n')}\n`,
          encoding: 'utf8',
        },
      ).stderr;
    const all = [...asserts('header', HEADER), ...asserts('region', REGION), ...asserts('consumer', CONSUMER)];
    expect(compileLines(all)).toBe('');
    expect(compileLines(asserts('region', { SIZE: 9 }))).toContain('region.SIZE');
  });
});

describe.skipIf(compilerMissing !== undefined)(`a consumer in C${why}`, () => {
  let program: ReturnType<typeof compile>;
  beforeAll(() => {
    program = compile('consumer');
  });
  afterAll(() => program.remove());

  /** Starts it, with what asks it something and gives its answer. */
  async function start(space: AddressSpace) {
    const child: ChildProcess = spawn(program.path, [], { stdio: ['pipe', 'pipe', 'inherit', ...space.descriptors] });
    const answers = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    const next = async () => (await answers.next()).value as string | undefined;
    return {
      child,
      attached: await next(),
      ask: (command: string, gpa: number, value = 0) => {
        child.stdin!.write(`${command} ${gpa.toString(16)} ${value.toString(16)}\n`);
        return next();
      },
    };
  }

  function sharedSpace(test: Parameters<typeof hostCalls>[0], options = {}) {
    const calls = hostCalls(test);
    const space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
    const rams = [0, 4 * UNIT].map((gpa) => {
      using ram = Mapping.memfd(calls, UNIT);
      return space.addRam(gpa, ram);
    });
    space.share(options);
    return { space, rams };
  }

  it('reads and writes the memory; what it writes is dirty; it follows a move, and leaves', async (test) => {
    const events: ConsumerEvent[] = [];
    const { space, rams } = sharedSpace(test, { onConsumer: (event: ConsumerEvent) => events.push(event) });
    using vm = collector(space);
    const { child, attached, ask } = await start(space);
    expect(attached).toBe('attached 2');
    expect(space.consumers).toEqual([{ name: 'consumer in C', pid: child.pid }]);
    space.writeU8(0x1234, 0xab);
    vm.pages();
    expect(await ask('r', 0x1234)).toBe('ab');
    expect(await ask('w', 4 * UNIT + 5 * PAGE, 0x77)).toBe('written');
    expect(space.readU8(4 * UNIT + 5 * PAGE)).toBe(0x77);
    expect(vm.pages()).toEqual([(4 * UNIT) / PAGE + 5]);
    rams[1]!.move(8 * UNIT);
    await expect(space.settled({ timeoutMs: 30 })).rejects.toThrow(
      expect.objectContaining({ code: 'ETIMEDOUT', message: expect.stringContaining("'consumer in C'") }),
    );
    expect(await ask('r', 4 * UNIT + 5 * PAGE)).toBe('no memory');
    expect(await ask('r', 8 * UNIT + 5 * PAGE)).toBe('77');
    await space.settled();
    child.stdin!.end();
    await once(child, 'exit');
    await expect
      .poll(() => events, PATIENT)
      .toEqual([{ kind: 'left', consumer: { name: 'consumer in C', pid: child.pid } }]);
    space.close();
  });

  it('that dies in the middle of a write leaves every page dirty, and its place free', async (test) => {
    const events: ConsumerEvent[] = [];
    const { space } = sharedSpace(test, { consumers: 1, onConsumer: (event: ConsumerEvent) => events.push(event) });
    using vm = collector(space);
    const { child, ask } = await start(space);
    vm.pages();
    expect(await ask('k', PAGE, 1)).toBeUndefined();
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    expect(child.signalCode).toBe('SIGABRT');
    // At once, for this may be the last pass.
    expect(vm.pages().length).toBe((2 * UNIT) / PAGE);
    await expect
      .poll(() => events, PATIENT)
      .toMatchObject([{ kind: 'died', allDirty: true, consumer: { pid: child.pid } }]);
    const second = await start(space);
    expect(second.attached).toBe('attached 2');
    second.child.kill('SIGKILL');
    await expect.poll(() => events.length, PATIENT).toBe(2);
    expect(events[1]).toMatchObject({ kind: 'died', allDirty: false });
    expect(vm.pages()).toEqual([]);
    space.close();
  });
});
