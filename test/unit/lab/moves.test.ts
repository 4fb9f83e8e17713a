import { describe, expect, it } from 'vitest';
import type { Migration } from '../../lab/guest/migrate-hpt.ts';
import type { ReplayedTable } from '../../lab/guest/replay-table.ts';
import { captureEntries, movesTable } from '../../lab/moves.ts';

const table: ReplayedTable = {
  memory: 'all',
  chunks: 3,
  refused: 0,
  bytes: [136, 24, 0],
  differences: [0, 0],
  emulated: undefined,
};

const migration: Migration = {
  from: 'native',
  to: 'emulated',
  order: 18,
  valid: 257,
  changed: 256,
  slotsOfPasses: [16384, 3],
  differences: 0,
  findings: 0,
  pages: 0,
  stores: 1000,
  ranOn: true,
};

const failures = (tables: readonly ReplayedTable[], migrations: readonly Migration[]): number =>
  movesTable({ tables, migrations }).filter(({ failed }) => failed).length;

describe('what became of tables that were moved', () => {
  it('is a line each', () => {
    const lines = movesTable({ tables: [table], migrations: [migration] });
    expect(lines.map(({ text }) => text)).toEqual([
      expect.stringContaining('captured table, all: 3 chunks written'),
      expect.stringContaining('guest moved, native to emulated: 257 entries'),
    ]);
    expect(failures([table], [migration])).toBe(0);
  });

  it.each<Partial<ReplayedTable>>([
    { refused: 1 },
    { differences: [1, 0] },
    { differences: [0, 1] },
    { emulated: 'pass 0, byte 8' },
  ])('a captured table that lost something fails: %j', (lost) => {
    expect(failures([{ ...table, ...lost }], [migration])).toBe(1);
  });

  it.each<Partial<Migration>>([
    { differences: 1 },
    { findings: 1 },
    { pages: 1 },
    { ranOn: false },
    // A guest that changed nothing while it was moved shows nothing.
    { changed: 0 },
  ])('a guest that lost something fails: %j', (lost) => {
    expect(failures([table], [{ ...migration, ...lost }])).toBe(1);
  });

  it('takes the streams of the capture along', async () => {
    expect((await captureEntries()).map(({ path }) => path).sort()).toEqual([
      'test/captures/ppc64-hpt-linux-6.12/htab.stream.gz',
      'test/captures/ppc64-hpt-linux-6.12/htab2.delta.stream.gz',
    ]);
  });
});
