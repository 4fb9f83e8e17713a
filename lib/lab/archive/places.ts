import type { Archive } from './mirror.ts';
import { SECURITY_POOL } from './suite-index.ts';

/** A dated copy in a snapshot archive: its address has the time in it. */
const DATED = /\/\d{8}T\d{6}Z$/;

/**
 * The addresses at which a file of the given paths may lie, the most likely first.
 *
 * @param resolved when the index with that file was read; a snapshot archive is asked for its state of then
 */
export function addressesOf(paths: readonly string[], archive: Archive, resolved: Date): string[] {
  const isSecurity = (path: string) => path.startsWith(SECURITY_POOL);
  const current = paths.flatMap((path) =>
    (isSecurity(path) ? archive.security : archive.main).map((base) => `${base}/${encodePath(path)}`),
  );
  const { snapshot } = archive;
  if (snapshot === undefined) return current;
  const main = DATED.test(snapshot) ? snapshot : `${snapshot}/archive/debian/${timestamp(resolved)}`;
  const security = main.replace(/\/debian\/(\w+)$/, '/debian-security/$1');
  const dated = paths.map((path) => `${isSecurity(path) ? security : main}/${encodePath(path)}`);
  return [...new Set([...current, ...dated])];
}

/** Such as `20261128T201900Z`. */
function timestamp(date: Date): string {
  return `${date.toISOString().slice(0, 19).replace(/[-:]/g, '')}Z`;
}

/** Some servers take a bare plus sign for a space. */
function encodePath(path: string): string {
  return path.split('/').map(encodeURIComponent).join('/');
}
