import { readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { getSystemErrorMap } from 'node:util';
import { suggestion } from './nearest.ts';

/** What the system says of a file, or Node with `--permission`, as an error of Node's file system tells it. */
export interface FileError extends Error {
  readonly code: string;
  readonly syscall?: string;
  readonly errno?: number;
  readonly path?: string;
  /** Of Node's refusals: the file, */
  readonly resource?: string;
  /** and what is not permitted. */
  readonly permission?: string;
}

export const isFileError = (error: unknown): error is FileError =>
  error instanceof Error && 'code' in error && ('syscall' in error || error.code === 'ERR_ACCESS_DENIED');

/** `no such file or directory (ENOENT); did you mean a.mjs?` */
export function fileProblem(error: FileError, path = error.path): string {
  const { code, errno, message } = error;
  const [, says = message.replace(/\.$/, '')] = getSystemErrorMap().get(errno ?? 0) ?? [];
  return `${says} (${code})${code === 'ENOENT' && path !== undefined ? neighbour(path) : ''}`;
}

/** The same behind the file, of an error that names one. */
export function namedProblem(error: unknown): string | undefined {
  if (!isFileError(error)) return undefined;
  const path = error.path || error.resource;
  return path ? `${path}: ${fileProblem(error, path)}` : undefined;
}

/** What the system or zlib had against something that was read; undefined for other errors. */
export function inputProblem(error: unknown, path: string): string | undefined {
  if (isFileError(error)) return fileProblem(error, path);
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  if (code === 'Z_BUF_ERROR') return 'the gzipped data ends too early: the file is cut off';
  return code.startsWith('Z_') ? `the gzipped data is damaged (${(error as Error).message})` : undefined;
}

/** The file that was probably meant. */
function neighbour(path: string): string {
  const folder = dirname(path);
  try {
    const meant = suggestion(basename(path), readdirSync(folder));
    return meant.replace(/mean (.*)\?$/s, (_, name: string) => `mean ${folder === '.' ? name : join(folder, name)}?`);
  } catch {
    return '';
  }
}
