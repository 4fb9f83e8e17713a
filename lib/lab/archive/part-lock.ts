import { isExact } from '../../base/arguments.ts';
import { LabError } from '../lab-error.ts';
import { isPoolPath, type PackageFile } from './suite-index.ts';

/** The packages of a part, as they were resolved on some day; kept in the repository, so that two machines boot the same lab. */
export interface PartLock {
  /** When the indexes were read. */
  readonly resolved: Date;
  readonly packages: readonly PackageFile[];
}

const LINE_WIDTH = 120;

/** The lock's text, formatted as the repository's linter wants it. */
export function formatLock({ resolved, packages }: PartLock): string {
  const value = {
    resolved: resolved.toISOString(),
    packages: packages.map(({ name, version, architecture, suite, bytes, sha256, paths }) => {
      return { name, version, architecture, suite, bytes, sha256, paths };
    }),
  };
  const text = JSON.stringify(value, undefined, 2);
  return `${text.replace(/^(.*)\[\n([^[\]{}]*)\n\s*\]/gm, (long: string, head: string, items: string) => {
    const line = `${head}[${items.trim().replace(/\n\s*/g, ' ')}]`;
    return line.length <= LINE_WIDTH ? line : long;
  })}\n`;
}

/**
 * Reads a lock, which somebody may have edited.
 *
 * @param name the lock's file, for the sentence
 * @throws LabError saying what in it is not as it should be
 */
export function parseLock(text: string, name: string): PartLock {
  const refuse = (what: string): never => {
    throw new LabError(`${name} is not a lock of packages: ${what}; --refresh makes a new one.`);
  };
  const value = parseJson(text) ?? refuse('it is not JSON');
  const { resolved, packages } = value as { readonly resolved?: unknown; readonly packages?: unknown };
  const date = new Date(typeof resolved === 'string' ? resolved : Number.NaN);
  if (Number.isNaN(date.getTime())) refuse(`"resolved" is ${JSON.stringify(resolved)}, not a date`);
  if (!Array.isArray(packages) || packages.length === 0) return refuse('"packages" is not a list of packages');
  const read = packages.map((each: unknown, index) => readPackage(each, (what) => refuse(`package ${index}: ${what}`)));
  const names = read.map((each) => each.name);
  const twice = names.find((each, index) => names.indexOf(each) !== index);
  if (twice !== undefined) refuse(`${twice} is there twice`);
  return { resolved: date, packages: read };
}

function parseJson(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

function readPackage(value: unknown, refuse: (what: string) => never): PackageFile {
  const fields: Readonly<Record<string, unknown>> = typeof value === 'object' && value !== null ? { ...value } : {};
  const string = (name: string, form: RegExp): string => {
    const text = fields[name];
    if (typeof text === 'string' && form.test(text)) return text;
    return refuse(`"${name}" is ${JSON.stringify(text)}`);
  };
  const { bytes, paths } = fields;
  const file = {
    name: string('name', /^[a-z0-9][a-z0-9+.-]*$/),
    version: string('version', /^[A-Za-z0-9.+~:-]+$/),
    architecture: string('architecture', /^[a-z0-9]+$/),
    suite: string('suite', /^[a-z][a-z-]*$/),
    sha256: string('sha256', /^[0-9a-f]{64}$/),
  };
  if (typeof bytes !== 'number' || !isExact(bytes) || bytes <= 0) {
    return refuse(`"bytes" of ${file.name} is ${JSON.stringify(bytes)}`);
  }
  if (
    !Array.isArray(paths) ||
    paths.length === 0 ||
    !paths.every((each) => typeof each === 'string' && isPoolPath(each))
  ) {
    return refuse(`"paths" of ${file.name} is ${JSON.stringify(paths)}`);
  }
  return { ...file, bytes, paths };
}
