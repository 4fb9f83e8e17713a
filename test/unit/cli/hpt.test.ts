import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import {
  encodeHpte,
  encodeHtabStream,
  encodeSegment,
  Htab,
  primaryGroup,
} from '../../../lib/arch/ppc64/model/index.ts';
import { hptCommand } from '../../../lib/cli/hpt.ts';

const real = fileURLToPath(new URL('../../captures/ppc64-hpt-linux-6.12/htab.stream.gz', import.meta.url));
const delta = fileURLToPath(new URL('../../captures/ppc64-hpt-linux-6.12/htab2.delta.stream.gz', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'hpt-'));
afterAll(() => rmSync(folder, { recursive: true }));

function run(...argv: string[]): { status: number; out: string; err: string } {
  const [out, err]: [string[], string[]] = [[], []];
  const status = hptCommand(argv, { write: (text) => out.push(text) }, { write: (text) => err.push(text) });
  return { status, out: out.join(''), err: err.join('') };
}

function file(name: string, bytes: Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

const page = { vsid: 9, segmentSize: '1T', offset: 0x5000, ra: 0x1000 } as const;
const slot = primaryGroup(encodeSegment({ ea: 0, vsid: 9, segmentSize: '1T' }), 0x5000, 18) * 8;
function small(...slots: number[]): Uint8Array {
  const table = new Htab(18);
  for (const at of slots) table.set(at, encodeHpte(page));
  return encodeHtabStream(table);
}

describe('stats', () => {
  it('counts a real table and draws it', () => {
    const { status, out } = run('stats', real);
    expect(status).toBe(0);
    expect(out).toMatch(/order 22 \(4 MiB\), 262144 slots in 32768 groups/);
    for (const line of [
      /valid +201953 +100\.0%/,
      /bolted +133120/,
      /secondary +420/,
      /page size 16M +2 /,
      /key 3 +133137/,
    ]) {
      expect(out).toMatch(line);
    }
    expect(out).toMatch(/8 +5842\n/);
    expect(out.match(/^ {2}.{64}\|$/gm)).toHaveLength(16);
  });

  it('draws an empty table blank, one with an entry not', () => {
    expect(run('stats', file('empty', small())).out).not.toMatch(/[▁▂▃▄▅▆▇]/);
    expect(run('stats', file('one', small(slot))).out.match(/▁/g)).toHaveLength(1);
  });
});

describe('dump', () => {
  it('prints valid entries with their virtual pages', () => {
    const { status, out } = run('dump', file('one', small(slot)));
    expect(status).toBe(0);
    expect(out).toMatch(new RegExp(`^${slot}: vsid 0x9 offset 0x5000, HPTE 0x4000000009000001 .*4K at 0x1000.*\n$`));
    expect(run('dump', '--slots', `${slot + 1}-16384`, join(folder, 'one')).out).toBe('');
  });

  it('takes a later pass as well', () => {
    // The capture says: 488880 bytes in 33382 chunks.
    expect(run('dump', delta).out.match(/^\d+: vsid/gm)).toHaveLength((488880 - 33382 * 8) / 16);
  });
});

describe('diff', () => {
  it('prints what is gone and what is new', () => {
    const [a, b] = [file('a', small(slot)), file('b', small(slot + 1))];
    const { status, out } = run('diff', a, b);
    expect(status).toBe(1);
    expect(out.split('\n').map((line) => line.split(':')[0])).toEqual([`-${slot}`, `+${slot + 1}`, '']);
    expect(run('diff', a, a)).toEqual({ status: 0, out: '', err: '' });
  });
});

describe('verify', () => {
  it('finds nothing wrong with a real table', () => {
    const { status, out } = run('verify', real);
    expect(status).toBe(0);
    expect(out).toContain('28344 chunks, 201953 valid entries, 60191 empty slots: a whole first pass of order 22');
    expect(run('verify', '--order', '22', delta).out).toContain('as of a later pass');
  });

  it('finds entries that are there twice', () => {
    const { status, out } = run('verify', file('twice', small(slot, slot + 3)));
    expect(status).toBe(1);
    expect(out).toContain(`${slot + 3}: slot ${slot} maps the same virtual page`);
  });

  it('tells where a stream breaks', () => {
    const broken = run('verify', file('broken', small(slot).subarray(0, 20)));
    expect(broken.status).toBe(2);
    expect(broken.err).toMatch(/broken: .*at byte 8 of the HTAB stream/);
  });
});

describe('trouble', () => {
  it.each([
    [[], /which command/],
    [['burn', real], /no command burn/],
    [['stats'], /takes 1 file/],
    [['diff', real], /takes 2 file/],
    [['stats', '--order', 'x', real], /--order is a number/],
    [['stats', '--order', '17', real], /order must be 18 to 46/],
    [['stats', '--headers', 'middle', real], /little or big/],
    [['dump', '--slots', '5', real], /FROM-TO/],
    [['stats', '--colour', real], /--colour/],
    [['stats', join(folder, 'nothing')], /ENOENT/],
  ])('%j', (argv, message) => {
    const { status, out, err } = run(...argv);
    expect([status, out]).toEqual([2, '']);
    expect(err).toMatch(message);
  });

  it('has help', () => {
    expect(run('--help')).toMatchObject({ status: 0, out: expect.stringContaining('usage: kvm-bridge hpt') });
  });
});
