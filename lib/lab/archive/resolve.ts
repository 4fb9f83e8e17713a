import { LabError, sentenceOf } from '../lab-error.ts';
import { resolveClosure } from './closure.ts';
import type { Part } from './parts.ts';
import { fileName } from './store.ts';
import type { ListedPackage, PackageFile, SuiteIndex } from './suite-index.ts';

/** How many missing files a sentence names. */
const NAMED = 6;

/** What resolving needs of the world. */
export interface Sources {
  readonly readIndex: (suite: string) => Promise<SuiteIndex>;
  /** The addresses that have a file; none for one that is nowhere. */
  readonly locate: (files: readonly PackageFile[]) => Promise<Located>;
  readonly onProgress: (line: string) => void;
}

export type Located = ReadonlyMap<PackageFile, readonly string[]>;

export interface Resolved {
  readonly packages: readonly ListedPackage[];
  readonly located: Located;
}

/**
 * Finds a set of packages for a part whose files are all in the archive. A file that is not there is looked for under its digest
 * elsewhere, then in another version, in the suites' order; a suite whose index cannot be read is left out.
 *
 * @throws LabError with what is missing and what was tried
 */
export async function resolvePart(part: Part, sources: Sources): Promise<Resolved> {
  const indexes: SuiteIndex[] = [];
  const unread: string[] = [];
  const located = new Map<PackageFile, readonly string[]>();
  const missing = new Set<string>();
  let story = '';
  for (const suite of part.suites) {
    sources.onProgress(`reading the index of Debian ${suite} for ${part.debianArch}`);
    try {
      indexes.push(await sources.readIndex(suite));
    } catch (error) {
      if (!(error instanceof LabError)) throw error;
      unread.push(`${suite} (${sentenceOf(error)})`);
      continue;
    }
    for (;;) {
      const found = resolveClosure(part.wish(indexes), indexes, ({ sha256 }) => missing.has(sha256));
      if (!('packages' in found)) {
        story = lackOf(found.missing, found.unlisted);
        break;
      }
      const unasked = found.packages.filter((each) => !located.has(each));
      for (const [file, addresses] of await sources.locate(unasked)) located.set(file, addresses);
      const lost = unasked.filter((each) => (located.get(each) ?? []).length === 0);
      if (lost.length === 0) return { packages: found.packages, located };
      for (const { sha256 } of lost) missing.add(sha256);
      sources.onProgress(`not in the archive, though ${suite} lists it: ${lost.map(fileName).join(', ')}`);
    }
  }
  const read = indexes.map(({ suite }) => suite).join(', ') || 'no suite';
  const failures = unread.length === 0 ? '' : `; the index could not be read of ${unread.join(', ')}`;
  throw new LabError(
    `No whole set of ${part.what} for ${part.debianArch} is in the archive: ${story || 'no index was read'} (tried: ${read}${failures}).`,
  );
}

function lackOf(missing: readonly PackageFile[], unlisted: readonly string[]): string {
  const files = missing.slice(0, NAMED).map((file) => `${fileName(file)} of ${file.suite}`);
  const more = missing.length > NAMED ? [`${missing.length - NAMED} more files`] : [];
  const lacking = files.length === 0 ? [] : [`not there are ${[...files, ...more].join(', ')}`];
  const names = unlisted.length === 0 ? [] : [`not listed is ${unlisted.slice(0, NAMED).join(', ')}`];
  return [...lacking, ...names].join('; ') || 'what is listed does not fit together';
}
