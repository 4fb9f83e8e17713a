import { afterEach, describe, expect, it, vi } from 'vitest';
import { tourCommand } from '../../../lib/cli/tour/index.ts';
import { loadNative } from '../../../lib/raw.ts';
import { whyNoKvm } from '../../scenarios/real-host.ts';
import { fakeIo, plain } from './fake-io.ts';

afterEach(() => {
  vi.unstubAllEnvs();
});

function tour(terminal: Parameters<typeof fakeIo>[0] = {}): string {
  const io = fakeIo(terminal);
  expect(tourCommand(io)).toBe(0);
  expect(io.err()).toBe('');
  return io.out();
}

const withoutAddon = () => vi.stubEnv('KVM_BRIDGE_ADDON', '/nonexistent/kvm_bridge.node');

/** The cells of one row of the table. */
function row(text: string, label: string): string[] {
  const line = text.split('\n').find((candidate) => candidate.startsWith(`  ${label}  `)) ?? '';
  return line.trim().slice(label.length).trim().split(/ {2,}/);
}

describe('the tour without a real kernel', () => {
  it('says why, what to do, and plays the guest on emulated ones', () => {
    withoutAddon();
    const text = tour();
    expect(text).toMatch(/The real kernel is not among them: addon: /);
    expect(text).toMatch(/→ .*KVM_BRIDGE_ADDON/);
    expect(
      text
        .split('\n')
        .find((line) => line.includes('ppc64'))
        ?.trim(),
    ).toMatch(/^x86_64 +s390x +ppc64 +riscv64$/);
    expect(row(text, 'dirty pages')).toEqual(['2 5 7 16-31', '2 5 16-31', '2 5 7 16-31', '2 5 7 16-31']);
    expect(row(text, 'device got')).toEqual(['0x5a at +0', '-', '0x5a at +0', '0x5a at +0']);
    expect(row(text, 'device gave')).toEqual(['0x5a5a at +4', '-', '0x5a5a at +4', '0x5a5a at +4']);
    expect(row(text, 'RAM[0x5010]')).toEqual(Array(4).fill('0x11223344'));
    expect(row(text, 'RAM[0x7000]')).toEqual(['0x5a5a', '0x0', '0x5a5a', '0x5a5a']);
    expect(row(text, 'last exit')).toEqual(['HLT', 'INTR', 'INTR', 'INTR']);
    expect(row(text, 'guest met')).toEqual(['-', 'exception 0x5', '-', '-']);
  });

  it('shows what only s390x and ppc64 have', () => {
    withoutAddon();
    const text = tour({ columns: 400 });
    expect(text).toMatch(
      /^ {2}- s390x, emulated \S+: MEM_OP at 0x5010: 0x11223344\. Once frame 5 .* key 5, fetch-protected: 0x11223344 with key 5, protection exception 0x4 with key 4\. At 0x100000: addressing exception 0x5\.$/m,
    );
    // 256 pages of RAM and one of the device; 19 pages were stored to.
    expect(text).toMatch(
      /^ {2}- ppc64, emulated \S+: .*Of 257 entries .*, 257 came back, 20 of them referenced and 19 changed/m,
    );
  });

  it.each([40, 60, 80, 100])('fits into %d columns', (columns) => {
    withoutAddon();
    for (const line of tour({ columns }).split('\n')) {
      // What is to be copied is never broken.
      if (!line.includes('→')) expect(line.length, line).toBeLessThanOrEqual(columns);
    }
  });

  it('says the same with and without colours', () => {
    withoutAddon();
    const timeless = (text: string) => text.replace(/^ *time .*$/m, '');
    const coloured = tour({ isTTY: true, env: { TERM: 'xterm' } });
    expect(coloured).not.toBe(plain(coloured));
    expect(timeless(plain(coloured))).toBe(timeless(tour()));
  });
});

const missing = whyNoKvm(loadNative());

describe.skipIf(missing !== undefined || process.arch !== 'x64')('the tour on the real kernel', () => {
  it('runs machine code there, and the emulated kernel agrees', () => {
    // Five kernels side by side.
    const text = tour({ columns: 120 });
    expect(row(text, 'kernel')[0]).toMatch(/^real \d+\.\d+/);
    expect(row(text, 'guest')[0]).toBe('74 bytes');
    expect(row(text, 'dirty pages').slice(0, 2)).toEqual(['2 5 7 16-31', '2 5 7 16-31']);
    expect(text).toContain('The real and the emulated x86_64 agree in all that the guest did.');
    expect(text).not.toContain('not among them');
  });

  it('lists the machine code where it lies', () => {
    expect(tour()).toMatch(/^ {2}0x1049 {2}f4 +hlt$/m);
  });

  it.each([60, 80])('fits into %d columns', (columns) => {
    for (const line of tour({ columns }).split('\n')) expect(line.length, line).toBeLessThanOrEqual(columns);
  });
});

it('the tour as JSON has the same rows', () => {
  withoutAddon();
  const io = fakeIo();
  expect(tourCommand(io, { json: true })).toBe(0);
  const { acts, notReal } = JSON.parse(io.out()) as {
    acts: { arch: string; backend: string; rows: Record<string, string> }[];
    notReal: { why: string; mend: string };
  };
  expect(acts.map(({ arch }) => arch)).toEqual(['x86_64', 's390x', 'ppc64', 'riscv64']);
  expect(acts[0]).toMatchObject({
    backend: 'emulated',
    rows: { 'dirty pages': '2 5 7 16-31', 'device got': '0x5a at +0' },
  });
  expect(notReal.why).toMatch(/^addon: /);
  expect(notReal.mend).toContain('KVM_BRIDGE_ADDON');
});
