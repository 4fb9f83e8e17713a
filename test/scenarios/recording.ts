import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import type { EmulatedKernelOptions } from '../../lib/emulated/kernel.ts';

/** Where a set of recordings comes from; `host.json` beside them. */
export interface RecordedHost {
  /** `uname -r` of the kernel that answered. */
  readonly kernel: string;
  /** What it ran on. */
  readonly machine: string;
  /** The command that makes the recordings again, on such a host. */
  readonly how: string;
  /** The emulated kernel that must answer the same. */
  readonly emulate: EmulatedKernelOptions;
}

export interface RecordedSet {
  /** Folder name under test/recordings: `x86_64-6.12-svm`. */
  readonly id: string;
  readonly host: RecordedHost;
  /** Lines by scenario name. */
  readonly scenarios: ReadonlyMap<string, readonly string[]>;
}

const HOST_FILE = 'host.json';

/** Every set of recordings below a folder. */
export function readRecordings(root: string): RecordedSet[] {
  return readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name: id }) => {
      const folder = join(root, id);
      const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.txt'));
      return {
        id,
        host: JSON.parse(readFileSync(join(folder, HOST_FILE), 'utf8')) as RecordedHost,
        scenarios: new Map(
          files
            .sort()
            .map((file) => [
              relative('.', file).replace(/\.txt$/, ''),
              readFileSync(join(folder, file), 'utf8').trimEnd().split('\n'),
            ]),
        ),
      };
    });
}

/** Replaces a set of recordings. */
export function writeRecordings(root: string, { id, host, scenarios }: RecordedSet): void {
  const folder = join(root, id);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, HOST_FILE), `${JSON.stringify(host, null, 2)}\n`);
  for (const [name, lines] of scenarios) {
    const file = join(folder, `${name}.txt`);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, `${lines.join('\n')}\n`);
  }
}

/** The first line in which two recordings differ, as a sentence; undefined when they are the same. */
export function firstDifference(recorded: readonly string[], answered: readonly string[]): string | undefined {
  for (let i = 0; i < Math.max(recorded.length, answered.length); i++) {
    if (recorded[i] !== answered[i]) {
      return `call ${i + 1}: real ${recorded[i] ?? '(no more calls)'}; emulated ${answered[i] ?? '(no more calls)'}`;
    }
  }
  return undefined;
}
