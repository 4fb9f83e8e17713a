import { randomUUID } from 'node:crypto';
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';

/** Descriptors that have a path: whoever opened them writes on behind us, to the same file. */
const DESCRIPTORS = /^\/(dev\/(fd\/|std)|proc\/)/;

/** Why no other file may take the place of one that can be written: its folder, its owner, a mount of it alone. */
const IN_PLACE: ReadonlySet<unknown> = new Set(['EACCES', 'EPERM', 'EROFS', 'EBUSY', 'EXDEV', 'ERR_ACCESS_DENIED']);

/**
 * Writes a file. One that is there stays as it is until the new one is written as a whole, where another can take its place; pipes,
 * devices and what has several names are written to.
 * @throws Node's errors of the file system, with the path of this file
 */
export function replaceFile(path: string, text: string): void {
  try {
    if (!replaced(path, text)) writeFileSync(path, text);
  } catch (error) {
    // That of a write has none.
    throw error instanceof Error ? Object.assign(error, { path }) : error;
  }
}

/** Puts a new file in the place of an old one. @returns whether there is one, and it may */
function replaced(path: string, text: string): boolean {
  try {
    const old = statSync(path, { throwIfNoEntry: false });
    if (old === undefined || !isReplaceable(path, old)) return false;
    const target = realpathSync(path);
    // To rename asks the folder alone.
    accessSync(target, constants.W_OK);
    putInPlace(target, text, old);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && IN_PLACE.has(error.code)) return false;
    throw error;
  }
}

const isReplaceable = (path: string, old: Stats): boolean =>
  old.isFile() && old.nlink === 1 && !DESCRIPTORS.test(resolve(path));

function putInPlace(path: string, text: string, old: Stats): void {
  const beside = join(dirname(path), `.kvm-bridge-${randomUUID()}`);
  try {
    writeLike(old, beside, text);
    renameSync(beside, path);
  } catch (error) {
    if (existsSync(beside)) rmSync(beside);
    throw error;
  }
}

/** Makes a file of the owner and mode of another. */
function writeLike({ uid, gid, mode }: Stats, path: string, text: string): void {
  const fd = openSync(path, 'wx', 0o600);
  try {
    fchownSync(fd, uid, gid);
    fchmodSync(fd, mode & 0o7777);
    writeFileSync(fd, text);
  } finally {
    closeSync(fd);
  }
}
