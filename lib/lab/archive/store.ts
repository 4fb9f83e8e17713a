import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { rename, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { LabError } from '../lab-error.ts';
import { type Download, download } from './http.ts';
import type { PackageFile } from './suite-index.ts';

const PROGRESS_EVERY_MS = 5000;

interface Transfer extends Download {
  readonly file: PackageFile;
}

export interface TransferOptions {
  readonly onProgress: (line: string) => void;
  readonly signal?: AbortSignal | undefined;
}

/** The folder of the cache with packages of one architecture: whole ones, and parts of others in `partial`. */
export class PackageStore {
  private readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  /** Where the package is, once it was fetched. */
  path(file: PackageFile): string {
    return join(this.folder, fileName(file));
  }

  /** The packages that are not there, or not as they should be. */
  async lacking(files: readonly PackageFile[]): Promise<PackageFile[]> {
    const lacking: PackageFile[] = [];
    for (const each of files) if (!(await matches(this.path(each), each))) lacking.push(each);
    return lacking;
  }

  /**
   * Fetches packages from the first place that has them, and keeps those that have the digest.
   *
   * @param addresses where each of them may lie, those that are known to be there only
   * @throws LabError if one of them is not to be had as described
   */
  async fetch(
    files: readonly PackageFile[],
    addresses: ReadonlyMap<PackageFile, readonly string[]>,
    options: TransferOptions,
  ): Promise<void> {
    const reasons = new Map<PackageFile, string>();
    let left = [...files];
    for (let turn = 0; left.length > 0; turn++) {
      const round = left.flatMap((file) => {
        const address = addresses.get(file)?.[turn];
        return address === undefined ? [] : [{ file, address, path: this.partialPath(file) }];
      });
      if (round.length === 0) break;
      for (const { file, reason } of await this.fetchRound(round, options)) reasons.set(file, reason);
      left = await this.lacking(left);
    }
    const [first] = left;
    if (first === undefined) return;
    if (await this.isFull(left)) throw new LabError(`No space left on device for the packages in ${this.folder}.`);
    const others = left.length === 1 ? '' : ` (nor did ${left.length - 1} other packages)`;
    throw new LabError(
      `${fileName(first)} of ${first.suite} did not arrive${others}: ${reasons.get(first) ?? 'no place is known'}.`,
    );
  }

  /** Whether the disk has no room for the rest of these. */
  private async isFull(files: readonly PackageFile[]): Promise<boolean> {
    const parts = await Promise.all(files.map(async (file) => file.bytes - (await sizeOf(this.partialPath(file)))));
    const { bavail, bsize } = await statfs(this.folder);
    return bavail * bsize < parts.reduce((sum, bytes) => sum + bytes, 0);
  }

  private async fetchRound(round: readonly Transfer[], { onProgress, signal }: TransferOptions) {
    const resumed = new Set<PackageFile>();
    for (const { file, path } of round) {
      const size = await sizeOf(path);
      if (size >= file.bytes) await rm(path, { force: true });
      else if (size > 0) resumed.add(file);
    }
    const timer = this.watch(round, onProgress);
    const failed = await download(round, signal).finally(() => clearInterval(timer));
    const reasons = await this.keep(round, failed);
    // What a part was gone on with that belongs to something else, or to a server that cannot go on, is fetched anew.
    const again = round.filter(({ file }) => resumed.has(file) && reasons.has(file));
    for (const { path } of again) await rm(path, { force: true });
    if (again.length > 0) {
      const second = await this.keep(again, await download(again, signal));
      for (const { file } of again) reasons.delete(file);
      for (const [file, reason] of second) reasons.set(file, reason);
    }
    return [...reasons].map(([file, reason]) => ({ file, reason }));
  }

  /** Gives the files that came whole their names; for the others, says what is wrong. */
  private async keep(
    round: readonly Transfer[],
    failed: ReadonlyMap<string, string>,
  ): Promise<Map<PackageFile, string>> {
    const reasons = new Map<PackageFile, string>();
    for (const { file, address, path } of round) {
      const failure = failed.get(address);
      if (failure !== undefined) reasons.set(file, `${failure} (${address})`);
      else if (await matches(path, file)) await rename(path, this.path(file));
      else {
        const size = await sizeOf(path);
        const what = size === file.bytes ? 'its SHA-256 is another one' : `it has ${size} bytes, not ${file.bytes}`;
        reasons.set(file, `${what} (${address})`);
        await rm(path, { force: true });
      }
    }
    return reasons;
  }

  private watch(round: readonly Transfer[], onProgress: (line: string) => void) {
    const all = round.reduce((sum, { file }) => sum + file.bytes, 0);
    return setInterval(async () => {
      const sizes = await Promise.all(round.map(({ path }) => sizeOf(path)));
      const mib = (bytes: number) => Math.round(bytes / 1024 ** 2);
      onProgress(`${mib(sizes.reduce((sum, size) => sum + size, 0))} of ${mib(all)} MiB`);
    }, PROGRESS_EVERY_MS);
  }

  private partialPath(file: PackageFile): string {
    return join(this.folder, 'partial', fileName(file));
  }
}

/** The name that apt gives a package's file. */
export function fileName({ name, version, architecture }: PackageFile): string {
  return `${name}_${version.replaceAll(':', '%3a')}_${architecture}.deb`;
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch {
    return 0;
  }
}

async function matches(path: string, expected: PackageFile): Promise<boolean> {
  if ((await sizeOf(path)) !== expected.bytes) return false;
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex') === expected.sha256;
}
