import { createHash } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { replaceFile } from '../../base/replace-file.ts';
import { LabError } from '../lab-error.ts';
import { withLock } from '../lock.ts';
import { readSuiteIndex } from './apt.ts';
import { checkReachable, locateFiles } from './locate.ts';
import { findArchive } from './mirror.ts';
import { formatLock, type PartLock, parseLock } from './part-lock.ts';
import type { Part } from './parts.ts';
import { type Located, resolvePart } from './resolve.ts';
import { fileName, PackageStore } from './store.ts';
import type { PackageFile } from './suite-index.ts';

export interface ObtainOptions {
  readonly cache: string;
  /** The folder of the locks. */
  readonly locks: string;
  /** Resolve anew, and write the lock, even if there is one that is whole. */
  readonly refresh: boolean;
  readonly onProgress: (line: string) => void;
  readonly signal?: AbortSignal | undefined;
}

/** A package that was fetched and checked. */
export interface ObtainedPackage extends PackageFile {
  readonly path: string;
}

/** The digest of a part's lock: what was made of its packages is out of date when this changes. */
export async function lockDigest(part: Part, locks: string): Promise<string> {
  const text = await readIfThere(lockPath(part, locks));
  return text === undefined ? 'none' : createHash('sha256').update(text).digest('hex');
}

/**
 * The packages of a part: those of its lock as long as the cache or the archive has them all, else a set that is resolved
 * anew. Each is checked against the digest in the lock or in a signed index.
 *
 * @throws LabError if there is no whole set
 */
export async function obtainPart(part: Part, options: ObtainOptions): Promise<readonly ObtainedPackage[]> {
  const { cache, signal, onProgress } = options;
  const onWait = () => onProgress('waiting for another lab that is fetching packages');
  return withLock(join(cache, `packages-${part.debianArch}.lock`), { signal, onWait }, () => obtain(part, options));
}

async function obtain(part: Part, options: ObtainOptions): Promise<readonly ObtainedPackage[]> {
  const store = new PackageStore(join(options.cache, 'packages', part.debianArch));
  const locked = options.refresh ? undefined : await readLock(part, options);
  const set = (locked && (await fromLock(part, locked, store, options))) ?? (await anew(part, options));
  options.onProgress(describeSet(part, set));
  const lacking = await store.lacking(set.packages);
  if (lacking.length > 0) await store.fetch(lacking, set.located, options);
  return set.packages.map((each) => ({ ...each, path: store.path(each) }));
}

interface ResolvedSet extends PartLock {
  readonly located: Located;
}

/** The locked set, unless some file of it is neither in the cache nor in the archive. */
async function fromLock(
  part: Part,
  locked: PartLock,
  store: PackageStore,
  { onProgress, signal }: ObtainOptions,
): Promise<ResolvedSet | undefined> {
  const lacking = await store.lacking(locked.packages);
  if (lacking.length === 0) return { ...locked, located: new Map() };
  onProgress(`asking the archive for ${lacking.length} packages of ${part.id}`);
  const located = await locateFiles(lacking, findArchive(), locked.resolved, signal);
  const lost = lacking.filter((file) => !located.has(file));
  if (lost.length === 0) return { ...locked, located };
  onProgress(`the archive no longer has ${lost.map(fileName).join(', ')}; another set than the lock's is looked for`);
  return undefined;
}

async function anew(part: Part, options: ObtainOptions): Promise<ResolvedSet> {
  const archive = findArchive();
  const { cache, onProgress, signal } = options;
  await checkReachable(archive, `dists/${part.suites[0]}/InRelease`, signal);
  const resolved = new Date();
  const { packages, located } = await resolvePart(part, {
    readIndex: (suite) => {
      const folder = join(cache, 'apt', `${part.debianArch}-${suite}`);
      return readSuiteIndex({ folder, debianArch: part.debianArch, suite, mirror: archive.apt, signal });
    },
    locate: (files) => locateFiles(files, archive, resolved, signal),
    onProgress,
  });
  const set = { resolved, packages, located };
  await keepLock(part, set, options);
  return set;
}

/** Writes the lock if there is none or a new one was asked for; one of the same packages stays as it is. */
async function keepLock(part: Part, set: PartLock, { locks, refresh, onProgress }: ObtainOptions): Promise<void> {
  const path = lockPath(part, locks);
  const text = await readIfThere(path);
  if (text !== undefined && !refresh) return;
  const resolved = text === undefined ? undefined : resolvedIn(text);
  if (resolved !== undefined && formatLock({ ...set, resolved }) === text) return;
  await mkdir(dirname(path), { recursive: true });
  replaceFile(path, formatLock(set));
  onProgress(`wrote ${path}`);
}

function resolvedIn(text: string): Date | undefined {
  try {
    return parseLock(text, '').resolved;
  } catch (error) {
    if (error instanceof LabError) return undefined; // Unreadable: to be replaced.
    throw error;
  }
}

async function readLock(part: Part, { locks }: ObtainOptions): Promise<PartLock | undefined> {
  const path = lockPath(part, locks);
  const text = await readIfThere(path);
  return text === undefined ? undefined : parseLock(text, path);
}

function describeSet(part: Part, { packages, resolved }: PartLock): string {
  const mib = Math.round(packages.reduce((sum, { bytes }) => sum + bytes, 0) / 1024 ** 2);
  const suites = [...new Set(part.suites.filter((suite) => packages.some((each) => each.suite === suite)))];
  const main = packages.find(({ name }) => part.what.startsWith(name)) ?? packages[0]!;
  const day = resolved.toISOString().slice(0, 10);
  return `${main.name} ${main.version}: ${packages.length} packages of ${suites.join(', ')} (${mib} MiB), resolved ${day}`;
}

function lockPath(part: Part, locks: string): string {
  return join(locks, `${part.id}.json`);
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
