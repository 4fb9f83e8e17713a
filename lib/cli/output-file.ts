import { closeSync, openSync, writeSync } from 'node:fs';
import { fileProblem, isFileError } from './file-problem.ts';

/**
 * A file that lines are written to, each at once: what a process that dies wrote is there. Whoever writes a line may be in the middle of
 * a call to the kernel, and hears of no failure: that is told once, and nothing more is written.
 */
export class LineFile {
  readonly #path: string;
  readonly #failed: (sentence: string) => void;
  #fd: number | undefined;

  /**
   * @param failed gets which file it is, and what the system had against a line
   * @throws Node's errors of the file
   */
  constructor(path: string, failed: (sentence: string) => void) {
    this.#path = path;
    this.#failed = failed;
    this.#fd = openSync(path, 'w');
  }

  readonly write = (line: string): void => {
    if (this.#fd === undefined) return;
    try {
      writeWhole(this.#fd, Buffer.from(`${line}\n`));
    } catch (error) {
      if (!isFileError(error)) throw error;
      this.close();
      this.#failed(`${this.#path}: ${fileProblem(error)}`);
    }
  };

  close(): void {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd !== undefined) closeSync(fd);
  }
}

/** A file system that is nearly full takes the beginning, and refuses what is left only when that is asked for. */
function writeWhole(fd: number, bytes: Buffer): void {
  for (let written = 0; written < bytes.length; ) written += writeSync(fd, bytes, written);
}
