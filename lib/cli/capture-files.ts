import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { humanSize } from '../base/text.ts';
import { fileProblem, inputProblem, isFileError } from './file-problem.ts';
import { nameOf, readInput, unpacked } from './input.ts';
import { type Io, UsageError } from './io.ts';
import { filesInTar } from './tar.ts';

const NAMES = ['capture.json', 'pages.bin', 'skeys.bin', 'htab.stream'] as const;
export type CaptureFileName = (typeof NAMES)[number];

/** The files of a captured guest that are there, unpacked. */
export type CaptureFiles = ReadonlyMap<CaptureFileName, Buffer>;

/** Bytes that a file of a capture, or an archive of them, may have or become: a few gzipped ones could become any number. */
const MOST = 2 ** 30;

/**
 * Reads the files of a capture: a folder, or an archive of tar with them, gzipped or not, which may be standard input (`-`).
 * @throws UsageError for what cannot be read, or isn't whole
 */
export async function captureFiles(path: string, io: Pick<Io, 'stdin' | 'stderr'>): Promise<CaptureFiles> {
  if (path === '-' || !isFolder(path)) return filesInArchive(nameOf(path), readInput(path, io));
  const files = new Map<CaptureFileName, Buffer>();
  for (const name of NAMES) {
    const file = [join(path, name), join(path, `${name}.gz`)].find((each) => existsSync(each));
    if (file !== undefined) files.set(name, await all(file, file.endsWith('.gz'), readInput(file, io)));
  }
  return files;
}

/** The files in an archive. @throws UsageError */
export async function filesInArchive(archive: string, source: AsyncIterable<Uint8Array>): Promise<CaptureFiles> {
  const bytes = await all(archive, true, source);
  const files = new Map<CaptureFileName, Buffer>();
  try {
    for (const [member, content] of filesInTar(bytes)) {
      const name = NAMES.find((each) => each === member.replace(/\.gz$/, ''));
      if (name === undefined) continue;
      if (files.has(name)) throw new RangeError(`there are two of ${name} in it`);
      files.set(name, await all(`${member} in ${archive}`, member.endsWith('.gz'), oneOf(content)));
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new UsageError(`${archive} is no archive of a capture: ${error.message}`);
  }
  return files;
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch (error) {
    throw isFileError(error) ? new UsageError(`${path}: ${fileProblem(error)}`) : error;
  }
}

async function* oneOf(bytes: Buffer): AsyncGenerator<Buffer, void, undefined> {
  yield bytes;
}

/** All of a file. @throws UsageError that names it, where it cannot be read, is damaged or too much */
async function all(file: string, mayBePacked: boolean, source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const piece of mayBePacked ? unpacked(source) : source) {
      pieces.push(piece);
      length += piece.length;
      if (length > MOST) throw new UsageError(`${file} is damaged: it is larger than ${humanSize(MOST)}`);
    }
  } catch (error) {
    const problem = inputProblem(error, file);
    throw problem === undefined ? error : new UsageError(`${file}: ${problem}`);
  }
  return Buffer.concat(pieces);
}
