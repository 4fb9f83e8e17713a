import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TakenSet } from './take.ts';

/*
 * test/recordings/ID/ holds what one real kernel answered: host.json, and one text file per scenario with a line per call.
 */

/** The repository's folder, from the sources and from the compiled tree alike. */
const ROOT = fileURLToPath(new URL(import.meta.url.includes('/out/test/') ? '../../../' : '../../', import.meta.url));

export const RECORDINGS = join(ROOT, 'test/recordings');

const HOST_FILE = 'host.json';

/** The head of a set of recordings: where it comes from and how to make it again. */
interface HostFile extends Omit<TakenSet, 'taken'> {
  /** The command that makes these recordings again, on such a host. */
  readonly how: string;
}

/** Every set of recordings below a folder. */
export function readRecordings(root: string): { readonly id: string; readonly set: TakenSet }[] {
  return readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name: id }) => {
      const folder = join(root, id);
      const { kernel, machine, emulate } = JSON.parse(readFileSync(join(folder, HOST_FILE), 'utf8')) as HostFile;
      const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.txt'));
      const taken = files.sort().map((file) => ({
        name: file.replace(/\.txt$/, ''),
        lines: readFileSync(join(folder, file), 'utf8').trimEnd().split('\n'),
        ms: 0,
      }));
      return { id, set: { kernel, machine, emulate, taken } };
    });
}

/** Replaces a set of recordings, or only those of the scenarios in it where others are to be kept. */
export function writeRecordings(
  root: string,
  id: string,
  { taken, ...host }: TakenSet,
  how: string,
  others: 'removed' | 'kept' = 'removed',
): void {
  const folder = join(root, id);
  if (others === 'removed') rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const head: HostFile = { ...host, how };
  writeFileSync(join(folder, HOST_FILE), `${JSON.stringify(head, null, 2)}\n`);
  for (const { name, lines } of taken) {
    const file = join(folder, `${name}.txt`);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, `${lines.join('\n')}\n`);
  }
}

/** The first line in which two recordings differ, as a sentence; undefined when they are the same. */
export function firstDifference(real: readonly string[], emulated: readonly string[]): string | undefined {
  for (let i = 0; i < Math.max(real.length, emulated.length); i++) {
    if (real[i] !== emulated[i]) {
      return `call ${i + 1}: real ${real[i] ?? '(no more calls)'}; emulated ${emulated[i] ?? '(no more calls)'}`;
    }
  }
  return undefined;
}
