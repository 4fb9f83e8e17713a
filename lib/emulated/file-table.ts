import { ERRNO } from '../uapi/errno.ts';
import { EmulatedEventfd, type OpenFile } from './open-file.ts';

/** Numbers of emulated descriptors start far above real ones, so that neither is ever taken for the other. */
const FIRST_FD = 0x10_0000;

/** What a process has open, by its descriptors. */
export class FileTable {
  readonly #files = new Map<number, OpenFile>();
  readonly #maxFds: number;
  /** None below it is free. */
  #lowestFree = FIRST_FD;

  /** @param maxFds descriptors that may be open at once (RLIMIT_NOFILE) */
  constructor(maxFds: number) {
    this.#maxFds = maxFds;
  }

  get size(): number {
    return this.#files.size;
  }

  get(fd: number): OpenFile | undefined {
    return this.#files.get(fd);
  }

  /** The eventfd that an ioctl's structure names: EBADF when nothing is open there, EINVAL when it is something else. */
  eventfd(fd: number): EmulatedEventfd | number {
    const file = this.#files.get(fd);
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
    let fd = this.#lowestFree;
    while (this.#files.has(fd)) fd++;
    this.#files.set(fd, file);
    this.#lowestFree = fd + 1;
    return fd;
  }

  close(fd: number): number {
    const file = this.#files.get(fd);
    if (file === undefined) return -ERRNO.EBADF;
    this.#files.delete(fd);
    this.#lowestFree = Math.min(this.#lowestFree, fd);
    file.polled?.settle(-ERRNO.EBADF);
    file.released?.();
    return 0;
  }
}
