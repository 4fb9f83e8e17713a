import { IdTable } from '../base/id-table.ts';
import { ERRNO } from '../uapi/errno.ts';
import { EmulatedEventfd, type OpenFile } from './open-file.ts';

/** Numbers of emulated descriptors start far above real ones, so that neither is ever taken for the other. */
const FIRST_FD = 0x10_0000;

/** What a process has open, by its descriptors. */
export class FileTable {
  /** By what they are above {@link FIRST_FD}. */
  readonly #files = new IdTable<OpenFile>();
  readonly #maxFds: number;
  /** None below it is free. */
  #lowestFree = 0;

  /** @param maxFds descriptors that may be open at once (RLIMIT_NOFILE) */
  constructor(maxFds: number) {
    this.#maxFds = maxFds;
  }

  get size(): number {
    return this.#files.size;
  }

  get(fd: number): OpenFile | undefined {
    return this.#files.get(fd - FIRST_FD);
  }

  /** The eventfd that an ioctl's structure names: EBADF when nothing is open there, EINVAL when it is something else. */
  eventfd(fd: number): EmulatedEventfd | number {
    const file = this.get(fd);
    if (file === undefined) return -ERRNO.EBADF;
    return file instanceof EmulatedEventfd ? file : -ERRNO.EINVAL;
  }

  /** A descriptor for a file; EMFILE, and the file is released, where there are too many. */
  open(file: OpenFile): number {
    if (this.#files.size >= this.#maxFds) {
      file.released?.();
      return -ERRNO.EMFILE;
    }
    // The lowest free number, as POSIX has it.
    let free = this.#lowestFree;
    while (this.#files.has(free)) free++;
    this.#files.set(free, file);
    this.#lowestFree = free + 1;
    return FIRST_FD + free;
  }

  close(fd: number): number {
    const file = this.get(fd);
    if (file === undefined) return -ERRNO.EBADF;
    this.#files.delete(fd - FIRST_FD);
    this.#lowestFree = Math.min(this.#lowestFree, fd - FIRST_FD);
    file.polled?.settle(-ERRNO.EBADF);
    file.released?.();
    return 0;
  }
}
