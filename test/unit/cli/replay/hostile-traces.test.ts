import { type PassThrough, Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { cli } from '../../../../lib/cli/cli.ts';
import { fakeIo } from '../fake-io.ts';

const HEAD = {
  'kvm-bridge-trace': 1,
  backend: 'emulated',
  arch: 'x86_64',
  release: '6.12',
  pageSize: 4096,
  emulate: { arch: 'x86_64', release: '6.12' },
};
const OPENING = [
  { call: 'openKvm', args: [], result: 'kvm#1' },
  { call: 'createVm', args: ['kvm#1', 0], result: 'vm#1' },
  { call: 'mmap', args: [0x1_0000, 3, 0x22, -1, 0, 0, 0], result: 'map#1' },
  { call: 'setUserMemoryRegion', args: ['vm#1', 0, 1, 0, 0x1_0000, 'map#1'], result: '0' },
];

const text = (lines: readonly unknown[]): string =>
  lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n');

async function given(command: 'replay' | 'report', input: string) {
  const io = fakeIo({ input });
  const before = process.memoryUsage().rss;
  const status = await cli([command, '-'], io);
  return { status, err: io.err(), grown: process.memoryUsage().rss - before };
}

const DEEP = 200_000;
const nested = '['.repeat(DEEP) + ']'.repeat(DEEP);
const keys = { call: 'setSkeys', result: '0' };

const HOSTILE: readonly (readonly [name: string, lines: readonly unknown[]])[] = [
  ...['args', 'result', 'begins', 'ends', 'filled', 'before', 'after', 'stores', 'call'].flatMap((name) =>
    [true, { x: { y: 1 } }, [[[1]]], -1.5, [['x', 'y']], [[1e300, '00']]].map(
      (wrong) =>
        [
          `${name} is ${JSON.stringify(wrong)}`,
          [HEAD, ...OPENING, { call: 'run', args: ['vcpu#1'], [name]: wrong }],
        ] as const,
    ),
  ),
  ...['backend', 'arch', 'release', 'pageSize', 'emulate'].flatMap((name) =>
    [null, 0, -1, 'x', [], 1e308].map(
      (wrong) => [`${name} is ${wrong}`, [{ ...HEAD, [name]: wrong }, ...OPENING]] as const,
    ),
  ),
  ...[
    { arch: '__proto__' },
    { arch: 'x86_64', release: {} },
    { arch: 'x86_64', pageSize: '4096' },
    { arch: 'x86_64', maxFds: 1e308 },
    { arch: ['x86_64'] },
  ].map((emulate) => [`emulate is ${JSON.stringify(emulate)}`, [{ ...HEAD, emulate }, ...OPENING]] as const),
  ['a call is __proto__', [HEAD, { call: '__proto__', args: [] }]],
  ['a call is constructor', [HEAD, { call: 'constructor', args: [] }]],
  ['an object has a prototype of its own', [HEAD, `{"__proto__": {"call": "run"}, "args": []}`]],
  ['a call is nested deeply', [HEAD, `{"call": "run", "args": ${nested}}`]],
  ['a head is nested deeply', [`{"kvm-bridge-trace": ${nested}}`]],
  ['the version is an object', [{ 'kvm-bridge-trace': { toString: 1 } }]],
  ['2^60 bytes are read', [HEAD, ...OPENING, { call: 'readMemory', args: ['map#1', '00*1152921504606846976'] }]],
  ['a GiB is read', [HEAD, ...OPENING, { call: 'readMemory', args: ['map#1', '00*1073741824'], result: '0' }]],
  [
    'many runs of bytes are read',
    [HEAD, ...OPENING, { call: 'readMemory', args: ['map#1', '00*99999999 '.repeat(99).trim()] }],
  ],
  ['bytes are none', [HEAD, ...OPENING, { call: 'writeMemory', args: ['map#1', '0'] }]],
  [
    'a bitmap of everything',
    [
      HEAD,
      ...OPENING,
      { call: 'getDirtyLog', args: ['vm#1', 0, '00*8'], result: '0', filled: { bitmap: 'aa*268435456' } },
    ],
  ],
  [
    'a bitmap of everything, where there was room for it',
    [
      HEAD,
      ...OPENING,
      { call: 'getDirtyLog', args: ['vm#1', 0, '00*33554432'], result: '0', filled: { bitmap: 'aa*33554432' } },
    ],
  ],
  ['keys of everything', [HEAD, ...OPENING, { ...keys, args: ['vm#1', 0, 1, 0, '10*268435456'] }]],
  [
    'a store everywhere',
    [
      HEAD,
      ...OPENING,
      ...Array.from({ length: 100 }, (_, i) => ({
        call: 'run',
        args: ['vcpu#1', 0],
        stores: [[i * 2 ** 28, '00*268435455']],
        result: '-EINTR',
      })),
    ],
  ],
];

describe.each(['replay', 'report'] as const)('kvm-bridge %s of a trace that means no good', (command) => {
  it.each(HOSTILE)('%s', { timeout: 60_000 }, async (_name, lines) => {
    const { status, err, grown } = await given(command, text(lines));
    // Told in a line or two, or harmless; never a stack.
    expect(err).not.toMatch(/\n {4}at |TypeError|RangeError|Maximum call stack/);
    if (status !== 0 && status !== 1) expect(err).toMatch(/^kvm-bridge/);
    expect(grown).toBeLessThan(2 ** 31);
  });

  it('fills what it was given, and no more', async () => {
    const call = { call: 'getDirtyLog', args: ['vm#1', 0, '00*8'], result: '0', filled: { bitmap: '01 00*8' } };
    const { status, err } = await given(command, text([HEAD, ...OPENING, call]));
    expect(status).toBe(2);
    expect(err).toContain('line 6: getDirtyLog was given 8 bytes for its bitmap, and has filled 9');
  });

  it('has lines that end', { timeout: 60_000 }, async () => {
    let given = 0;
    const endless = Readable.from(
      (function* () {
        yield '{"kvm-bridge-trace"';
        for (; given < 2 ** 31; given += 2 ** 22) yield 'x'.repeat(2 ** 22);
      })(),
    );
    const io = { ...fakeIo(), stdin: endless as unknown as PassThrough };
    expect(await cli([command, '-'], io)).toBe(2);
    expect(io.err()).toContain('a line of more than 268435456 characters');
    expect(given).toBeLessThan(2 ** 30);
  });
});
