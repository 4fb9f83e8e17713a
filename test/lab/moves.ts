import { join } from 'node:path';
import { type Entry, readTree } from '../../lib/lab/cpio.ts';
import { PROJECT_ROOT } from '../../lib/lab/project.ts';
import type { Copied } from './guest/copies.ts';
import { CAPTURE } from './guest/replay-table.ts';
import type { ScenarioRun } from './guest/run-scenarios.ts';

interface Line {
  readonly text: string;
  readonly failed: boolean;
}

/** The files of the captured table, for the guest. */
export async function captureEntries(): Promise<Entry[]> {
  const files = await readTree(join(PROJECT_ROOT, CAPTURE), (path) => path.endsWith('.stream.gz'));
  return files.map((entry) => ({ ...entry, path: `${CAPTURE}/${entry.path}` }));
}

/** What became of what was copied from VM to VM, likewise. */
export function copiesTable(copied: readonly Copied[]): Line[] {
  return copied.map(({ what, wrong }) => ({
    text: `copied, ${what}: ${wrong.length === 0 ? 'all of it' : wrong.join('; ')}`,
    failed: wrong.length > 0,
  }));
}

/** What became of tables and guests that were moved, a line each, and whether anything was lost on the way. */
export function movesTable({ tables, migrations }: NonNullable<ScenarioRun['moved']>): Line[] {
  const replays = tables.map(({ memory, chunks, refused, bytes, differences, emulated }) => ({
    text: `captured table, ${memory}: ${chunks} chunks written, ${refused} refused; ${bytes.join(' + ')} bytes read, ${differences.join(' and ')} slots differ; emulated kernel: ${emulated ?? 'identical'}`,
    failed: emulated !== undefined || refused + differences[0]! + differences[1]! > 0,
  }));
  const moves = migrations.map(
    ({ from, to, valid, slotsOfPasses, differences, findings, pages, stores, ranOn, changed }) => ({
      text: `guest moved, ${from} to ${to}: ${valid} entries in passes of ${slotsOfPasses.join(', ')} slots, ${changed} of them changed, after ${stores} stores; ${differences} slots and ${pages} pages differ, ${findings} entries misplaced, ${ranOn ? 'ran on' : 'did not run on'}`,
      failed: differences + findings + pages > 0 || !ranOn || changed === 0,
    }),
  );
  return [...replays, ...moves];
}
