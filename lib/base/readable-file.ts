import { accessSync, constants, openSync, statSync } from 'node:fs';

/**
 * Looks whether a file can be read, before anything else is done that it is for.
 * @throws Node's errors of the file system, which name it: ENOENT, EACCES, EISDIR
 */
export function checkReadable(path: string): void {
  accessSync(path, constants.R_OK);
  // A folder can be opened to read, and is only refused then, without its name; to write it cannot.
  if (statSync(path).isDirectory()) openSync(path, 'r+');
}
