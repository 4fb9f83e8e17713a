import { describe, expect, it } from 'vitest';
import { explainError } from '../../../lib/cli/explain-error.ts';
import { columnsOf, styleFor } from '../../../lib/cli/io.ts';
import { hexDump, show } from '../../../lib/cli/repl/print.ts';
import { Kvm, KvmError } from '../../../lib/index.ts';
import { fakeIo, plain } from './fake-io.ts';

const bold = (text: string) => `\u001b[1m${text}\u001b[22m`;

describe('colours', () => {
  it.each([
    ['a pipe', {}, false, false],
    ['a terminal', { TERM: 'xterm' }, true, true],
    ['a terminal with NO_COLOR', { TERM: 'xterm', NO_COLOR: '1' }, true, false],
    ['a dumb terminal', { TERM: 'dumb' }, true, false],
    ['a pipe with FORCE_COLOR', { FORCE_COLOR: '1' }, false, true],
    ['a terminal with FORCE_COLOR=0', { TERM: 'xterm', FORCE_COLOR: '0' }, true, false],
  ])('on %s', (_name, env, isTTY, coloured) => {
    const style = styleFor(fakeIo({ isTTY }).stdout, env);
    expect(style.bold('x')).toBe(coloured ? bold('x') : 'x');
    expect(style.bold('')).toBe('');
  });

  it('takes 80 columns where none are known', () => {
    expect(columnsOf(fakeIo().stdout)).toBe(80);
    expect(columnsOf(fakeIo({ columns: 0 }).stdout)).toBe(80);
    expect(columnsOf(fakeIo({ columns: 132 }).stdout)).toBe(132);
  });
});

describe('explainError', () => {
  it('puts the explanation first, then the numbers', () => {
    const error = new KvmError(-22, { syscall: 'ioctl(X)', slot: 3, gpa: 4096, size: 8192n, explanation: 'so it is' });
    expect(explainError(error)).toBe('KvmError EINVAL: so it is\n  ioctl(X), slot 3, gpa 0x1000, size 0x2000');
  });

  it('leaves errors without one as they are, and shows no stack', () => {
    expect(explainError(new KvmError(5, { syscall: 'read' }))).toBe('KvmError: EIO: i/o error, read');
    const error = new TypeError('bad', { cause: new Error('worse') });
    expect(explainError(error)).toBe('TypeError: bad\n  because of Error: worse');
    expect(explainError('text')).toBe('thrown: text');
  });
});

describe('show', () => {
  it('gives numbers that could be addresses in both bases', () => {
    expect(show(4096)).toBe('4096  0x1000');
    expect(show(2n ** 63n)).toBe('9223372036854775808n  0x8000000000000000');
    expect(show(-22)).toBe('-22  -0x16');
    expect(show(9)).toBe('9');
    expect(show(1.5)).toBe('1.5');
    expect(show('text')).toBe("'text'");
  });

  it('dumps bytes', () => {
    expect(hexDump(new Uint8Array(), 80)).toBe('no bytes');
    const text = show(Buffer.from('Hello, guest!\n\0\x7f#'));
    expect(text.split('\n')).toEqual([
      '  0x00000000  48 65 6c 6c 6f 2c 20 67 75 65 73 74 21 0a 00 7f  Hello, guest!...',
      '  0x00000010  23                                               #',
    ]);
    const different = (length: number) => Uint8Array.from({ length }, (_, at) => at >> 4);
    expect(show(different(4000)).split('\n').at(-1)).toBe('  … 4000 bytes in all');
    expect(show(different(512)).split('\n')).toHaveLength(32);
    expect(
      show(new Uint8Array(5000))
        .split('\n')
        .map((line) => line.slice(0, 12).trim()),
    ).toEqual(['0x00000000', '*', '0x00001380']);
  });

  it('makes tables of plain objects, with addresses in hexadecimal', () => {
    expect(
      show([
        { gfn: 16, npages: 20 },
        { gfn: 255, note: 'last' },
      ]).split('\n'),
    ).toEqual(['  gfn   npages  note', '  0x10  20', '  0xff          last']);
    expect(show({ reason: 'MMIO', gpa: 0xd000_0000, data: Uint8Array.of(0x5a, 1) }).split('\n')).toEqual([
      '  field   value',
      '  reason  MMIO',
      '  gpa     0xd0000000',
      '  data    5a 01',
    ]);
    expect(show({ cs: { base: 0xffff_0000n, type: 11 } })).toContain('base 0xffff0000, type 11');
    expect(show([])).toBe('[]');
    expect(show({})).toBe('{}');
  });

  it('lets the handles show themselves', () => {
    const kvm = Kvm.open({ arch: 's390x', backend: 'emulated' });
    expect(show(kvm)).toMatch(/^Kvm fd \d+, s390x, emulated kernel/);
    kvm.close();
    expect(plain(show(new Map([[1, 2]]), { colors: true }))).toBe('Map(1) { 1 => 2 }');
  });
});
