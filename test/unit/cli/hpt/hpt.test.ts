import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import {
  encodeHpte,
  encodeHtabStream,
  encodeSegment,
  Htab,
  primaryGroup,
} from '../../../../lib/arch/ppc64/model/index.ts';
import { cli } from '../../../../lib/cli/cli.ts';
import { fakeIo } from '../fake-io.ts';
import { run, scratch } from './run.ts';

const real = fileURLToPath(new URL('../../../captures/ppc64-hpt-linux-6.12/htab.stream.gz', import.meta.url));
const delta = fileURLToPath(new URL('../../../captures/ppc64-hpt-linux-6.12/htab2.delta.stream.gz', import.meta.url));
const { folder, file } = scratch();

const page = { vsid: 9, segmentSize: '1T', offset: 0x5000, ra: 0x1000 } as const;
const slot = primaryGroup(encodeSegment({ ea: 0, vsid: 9, segmentSize: '1T' }), 0x5000, 18) * 8;
function small(...slots: number[]): Uint8Array {
  const table = new Htab(18);
  for (const at of slots) table.set(at, encodeHpte(page));
  return encodeHtabStream(table);
}

describe('stats', () => {
  it('counts a real table and draws it', async () => {
    const { status, out } = await run('stats', real);
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

  it('draws an empty table blank, one with an entry not', async () => {
    expect((await run('stats', file('empty', small()))).out).not.toMatch(/[▁▂▃▄▅▆▇]/);
    expect((await run('stats', file('one', small(slot)))).out.match(/▁/g)).toHaveLength(1);
  });
});

describe('dump', () => {
  it('prints valid entries with their virtual pages', async () => {
    const { status, out } = await run('dump', file('one', small(slot)));
    expect(status).toBe(0);
    expect(out).toMatch(new RegExp(`^${slot}: vsid 0x9 offset 0x5000, HPTE 0x4000000009000001 .*4K at 0x1000.*\n$`));
    expect((await run('dump', '--slots', `${slot + 1}-16384`, join(folder, 'one'))).out).toBe('');
  });

  it('takes a later pass as well', async () => {
    // The capture says: 488880 bytes in 33382 chunks.
    expect((await run('dump', delta)).out.match(/^\d+: vsid/gm)).toHaveLength((488880 - 33382 * 8) / 16);
  });
});

describe('diff', () => {
  it('prints what is gone and what is new', async () => {
    const [a, b] = [file('a', small(slot)), file('b', small(slot + 1))];
    const { status, out } = await run('diff', a, b);
    expect(status).toBe(1);
    expect(out.split('\n').map((line) => line.split(':')[0])).toEqual([`-${slot}`, `+${slot + 1}`, '']);
    expect(await run('diff', a, a)).toEqual({ status: 0, out: '', err: '' });
  });
});

describe('verify', () => {
  it('finds nothing wrong with a real table', async () => {
    const { status, out } = await run('verify', real);
    expect(status).toBe(0);
    expect(out).toContain('28344 chunks, 201953 valid entries, 60191 empty slots: a whole first pass of order 22');
    expect((await run('verify', '--order', '22', delta)).out).toContain('as of a later pass');
  });

  it('finds entries that are there twice', async () => {
    const { status, out } = await run('verify', file('twice', small(slot, slot + 3)));
    expect(status).toBe(1);
    expect(out).toContain(`${slot + 3}: slot ${slot} maps the same virtual page`);
  });

  it('stops after so many findings', async () => {
    const file3 = file('thrice', small(slot, slot + 3, slot + 4));
    expect((await run('verify', file3)).out).toMatch(/\n2 findings\n$/);
    expect((await run('verify', '--findings', '2', file3)).out).toMatch(/\n2 findings\n$/);
    const { status, out } = await run('verify', '--findings', '1', file3);
    expect(status).toBe(1);
    expect(out).toMatch(/order 18\n\d+: .*\n1 finding, and it was looked no further \(--findings N\)\n$/);
  });

  it('tells where a stream breaks', async () => {
    const broken = await run('verify', file('broken', small(slot).subarray(0, 20)));
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
    [['stats', '--order', 'x', real], /--order is a number from 18 to 46, not x\n/],
    [['stats', '--order', '17', real], /--order is a number from 18 to 46, not 17\n/],
    [['stats', '--order', '47', real], /not 47\n/],
    [['stats', '--order=', real], /--order wants a value/],
    [['stats', '--order', '0x18', real], /not 0x18\n/],
    [['stats', '--order', '18.5', real], /not 18.5\n/],
    [['stats', '--order', '46', real], /a table of order 46 has 64 TiB, and this machine/],
    [['stats', '--order', '18', real], /htab\.stream\.gz: slot \d+ .* in a table of 16384 \(at byte \d+ /],
    [['stats', '--headers', 'middle', real], /little or big/],
    [['dump', '--slots', '5', real], /FROM-TO, two numbers, not 5\n/],
    [['dump', '--slots', '9-5', real], /FROM below TO, .* not 9-5\n/],
    [['diff', '--slots', '5-5', real, real], /not 5-5\n/],
    [['dump', '--slots', '0-99999999999999999999', real], /TO at most 4398046511104/],
    [['dump', '--slots', '262144-262145', real], /slot 262144 is not in a table of order 22, 262144 slots/],
    [['verify', '--slots', '0-9', real], /--slots is of no use to verify/],
    [['diff', real, file('small', small())], /small: a table of order 18, and that of .*stream.gz is of order 22/],
    [['stats', folder], /EISDIR/],
    [['verify', '--findings', '0', real], /--findings is a number above 0, not 0\n/],
    [['dump', '--findings', '9', real], /--findings is of no use to dump/],
    [['stats', '--colour', real], /--colour/],
    [['stats', join(folder, 'nothing')], /ENOENT/],
  ])('%j', async (argv, message) => {
    const { status, out, err } = await run(...argv);
    expect([status, out]).toEqual([2, '']);
    expect(err).toMatch(message);
  });

  it('has help', async () => {
    expect(await run('--help')).toMatchObject({ status: 0, out: expect.stringContaining('usage: kvm-bridge hpt') });
  });
});

describe('standard input', () => {
  const piped = async (bytes: Uint8Array, ...argv: string[]) => {
    const io = fakeIo({ input: undefined });
    io.stdin.end(bytes);
    const status = await cli(['hpt', ...argv], io);
    return { status, out: io.out(), err: io.err() };
  };

  it('is a file like others, gzipped or not', async () => {
    const { status, out } = await piped(readFileSync(real), 'stats', '-');
    expect(status).toBe(0);
    expect(out).toMatch(/^standard input: order 22 /);
    expect(await piped(small(slot), 'diff', file('none', small()), '-')).toMatchObject({ status: 1, err: '' });
  });

  it('is only one of them', async () => {
    const { status, err } = await piped(small(), 'diff', '-', '-');
    expect(status).toBe(2);
    expect(err).toContain('standard input can be only one of the files');
  });

  it('is named where it is no stream', async () => {
    expect((await piped(new Uint8Array(0), 'verify', '-')).err).toMatch(/^kvm-bridge hpt: standard input: it is empty/);
  });
});

describe('--json', () => {
  const parsed = async (...argv: string[]) => {
    const { status, out, err } = await run(...argv, '--json');
    expect(err).toBe('');
    return { status, json: JSON.parse(out) as Record<string, unknown> };
  };
  const entry = {
    ...{ v: '0x4000000009000001', vsid: '0x9', offset: '0x5000', segmentSize: '1T', baseShift: 12, shift: 12 },
    ...{ ra: '0x1000', pp: 2, key: 0, wimg: 2 },
    ...{ noExecute: false, referenced: false, changed: false, bolted: false, secondary: false },
  };

  it('stats: what the text counts', async () => {
    const { status, json } = await parsed('stats', real);
    expect(status).toBe(0);
    expect(json).toMatchObject({ order: 22, slots: 262144, groups: 32768, valid: 201953, bolted: 133120 });
    expect(json).toMatchObject({ secondary: 420, pageSizes: { '16M': 2 }, keys: { 3: 133137 } });
    expect((json.occupancy as number[])[8]).toBe(5842);
  });

  it('dump: each entry with its fields, of the slots that were asked for', async () => {
    const one = file('one', small(slot));
    expect((await parsed('dump', one)).json).toMatchObject({ order: 18, entries: [{ slot, ...entry }] });
    expect((await parsed('dump', '--slots', `${slot + 1}-16384`, one)).json.entries).toEqual([]);
  });

  it('diff: both entries, null for none', async () => {
    const [none, one] = [file('none', small()), file('one', small(slot))];
    const { status, json } = await parsed('diff', none, one);
    expect(status).toBe(1);
    expect(json.differences).toMatchObject([{ slot, before: null, after: entry }]);
    expect((await parsed('diff', one, one)).status).toBe(0);
  });

  it('verify: findings, as many as were asked for', async () => {
    const twice = file('twice', small(slot, slot + 1, slot + 2));
    const { status, json } = await parsed('verify', twice);
    expect(status).toBe(1);
    expect(json).toMatchObject({ isFirstPass: true, valid: 3 });
    const duplicate = { problem: 'duplicate', message: `slot ${slot} maps the same virtual page`, entry };
    expect(json.findings).toMatchObject([
      { slot: slot + 1, ...duplicate },
      { slot: slot + 2, ...duplicate },
    ]);
    expect((await parsed('verify', '--findings', '1', twice)).json.findings).toHaveLength(1);
    expect((await parsed('verify', file('one', small(slot)))).status).toBe(0);
  });
});
