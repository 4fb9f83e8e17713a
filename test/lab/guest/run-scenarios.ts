import { EmulatedKernel } from '../../../lib/backends/emulated.ts';
import { emulationOf } from '../../../lib/backends/emulation.ts';
import { loadNative } from '../../../lib/backends/native.ts';
import { differingRows, perform } from '../../../lib/cli/tour/act.ts';
import { Kvm } from '../../../lib/index.ts';
import type { Json } from '../../../lib/lab/frames.ts';
import { whyNoKvm } from '../../scenarios/real-host.ts';
import { type TakenSet, takeRecordings } from '../../scenarios/take.ts';
import { type Copied, copies } from './copies.ts';
import { type Migration, migrateHpt } from './migrate-hpt.ts';
import { type ReplayedTable, replayTable } from './replay-table.ts';

/** What a run of the lab brings back. */
export interface ScenarioRun {
  readonly set: TakenSet;
  /** What the real kernel makes of the tour's guest, and the emulated one does not; absent where it has no machine code. */
  readonly tour?: readonly string[] | undefined;
  /** What became of what frames and tables have when it was copied from VM to VM; absent where a part of the scenarios was run, empty where it was not asked for. */
  readonly copied?: readonly Copied[];
  /** What became of tables and guests that were moved; absent where that was not asked for. */
  readonly moved?: { readonly tables: readonly ReplayedTable[]; readonly migrations: readonly Migration[] };
}

/** Runs every scenario on the guest's own KVM, and moves page tables if that is asked for; the result is a `ScenarioRun`. */
export default async function runScenarios(args: Json, progress: (text: string) => void): Promise<Json> {
  const asked = args as { readonly migrate: boolean; readonly copies: boolean; readonly only: readonly string[] };
  const { migrate, only } = asked;
  const loaded = loadNative();
  const missing = whyNoKvm(loaded);
  if (missing !== undefined || !('calls' in loaded)) throw new Error(missing);
  const { calls } = loaded;
  const set = await takeRecordings(calls, progress, only);
  if (only.length > 0) return JSON.parse(JSON.stringify({ set })) as Json;
  progress('the tour');
  const { arch, pageSize } = calls;
  const tour = differingRows(
    perform({ backend: 'native', arch }),
    perform({ backend: 'emulated', arch, ...(arch === 'ppc64' ? { pageSize } : {}) }),
  );
  using kvm = Kvm.open({ backend: 'native' });
  const copied = asked.copies ? await copies(kvm, progress) : [];
  const run: ScenarioRun = migrate
    ? {
        set,
        tour,
        copied,
        moved: {
          tables: replayTable(calls, new EmulatedKernel(emulationOf(calls)), progress),
          migrations: await migrateHpt(emulationOf(calls), progress),
        },
      }
    : { set, tour, copied };
  return JSON.parse(JSON.stringify(run)) as Json;
}
