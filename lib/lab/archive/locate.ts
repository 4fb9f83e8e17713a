import { LabError } from '../lab-error.ts';
import { type Answer, ask } from './http.ts';
import type { Archive } from './mirror.ts';
import { addressesOf } from './places.ts';
import type { Located } from './resolve.ts';
import type { PackageFile } from './suite-index.ts';

/**
 * Asks for files, without fetching any, at one place after the other until each was found.
 *
 * @param resolved when the files were listed
 * @throws LabError if nobody answers in the main archive's name and a file is nowhere else
 */
export async function locateFiles(
  files: readonly PackageFile[],
  archive: Archive,
  resolved: Date,
  signal?: AbortSignal,
): Promise<Located> {
  const places = new Map(files.map((file) => [file, addressesOf(file.paths, archive, resolved)]));
  const located = new Map<PackageFile, readonly string[]>();
  const silent = new Map<string, string>();
  for (let turn = 0; ; turn++) {
    const left = files.filter((file) => !located.has(file) && places.get(file)![turn] !== undefined);
    if (left.length === 0) break;
    const asked = left.filter((file) => !silent.has(hostOf(places.get(file)![turn]!)));
    for (const [file, answer] of await askFor(asked, (file) => places.get(file)![turn]!, signal)) {
      const address = places.get(file)![turn]!;
      if (answer.kind === 'silent') silent.set(hostOf(address), answer.reason);
      // Of another size it is another file, or not there whole yet.
      if (answer.kind === 'there' && (answer.bytes ?? file.bytes) === file.bytes) located.set(file, [address]);
    }
  }
  const lost = files.find((file) => !located.has(file));
  const reason = lost === undefined ? undefined : silent.get(hostOf(places.get(lost)![0]!));
  if (reason !== undefined) throw unreachable(archive, reason);
  return located;
}

/** Throws a LabError unless somebody answers in the main archive's name, whatever that is. Of apt, it would take a minute for each suite. */
export async function checkReachable(archive: Archive, path: string, signal?: AbortSignal): Promise<void> {
  const answers = [
    ...(
      await ask(
        archive.main.map((base) => `${base}/${path}`),
        signal,
      )
    ).values(),
  ];
  const [first] = answers;
  if (first?.kind === 'silent' && answers.every(({ kind }) => kind === 'silent'))
    throw unreachable(archive, first.reason);
}

function unreachable(archive: Archive, reason: string): LabError {
  return new LabError(`The Debian archive at ${archive.apt} cannot be reached: ${reason}.`);
}

/** One file is asked for first: where nobody answers, it shall not take as long as all of them. */
async function askFor(
  files: readonly PackageFile[],
  addressOf: (file: PackageFile) => string,
  signal: AbortSignal | undefined,
): Promise<[PackageFile, Answer][]> {
  const [first, ...others] = files;
  if (first === undefined) return [];
  const answers = await ask([addressOf(first)], signal);
  const answer = answers.get(addressOf(first))!;
  if (answer.kind === 'silent') return [[first, answer]];
  const rest = others.length === 0 ? new Map<string, Answer>() : await ask(others.map(addressOf), signal);
  return [[first, answer], ...others.map((file): [PackageFile, Answer] => [file, rest.get(addressOf(file))!])];
}

function hostOf(address: string): string {
  return new URL(address).origin;
}
