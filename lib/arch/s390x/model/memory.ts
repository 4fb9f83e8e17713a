/**
 * What the model reads: absolute storage, a doubleword at a time. The emulated kernel implements it over memslots, a
 * capture over its saved frames, a user over whatever bytes there are.
 */

import { checkBytes, checkFunction, checkHalf, checkMethods, isBytes, isIntegerIn } from '../../../base/arguments.ts';
import { invalidReturnValue } from '../../../base/errors.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { PGM_ADDRESSING } from './program-interruption.ts';

/** Absolute storage as the translation walks see it. */
export interface AbsoluteMemory {
  /** Upper half (unsigned) of the doubleword that the last successful `readDoubleword` found. */
  hi: number;
  /** Lower half (unsigned) of it. */
  lo: number;
  /**
   * Reads the big-endian doubleword at byte `offset` (a multiple of 8, below 4096) of the frame into `hi` and `lo`.
   * @returns 0; 5 (addressing) where there is no storage; a negative errno where the host cannot read it.
   */
  readDoubleword(pfn: number, offset: number): number;
  /** Whether there is storage at the frame (for KVM: whether it lies in a usable memslot). */
  hasFrame(pfn: number): boolean;
}

const FRAME = 4096;

/** Storage of a user's: what it answers and leaves is checked before a walk believes it. */
class ForeignMemory implements AbsoluteMemory {
  hi = 0;
  lo = 0;
  readonly #memory: AbsoluteMemory;

  constructor(memory: AbsoluteMemory) {
    this.#memory = memory;
  }

  readDoubleword(pfn: number, offset: number): number {
    const code = this.#memory.readDoubleword(pfn, offset);
    if (!isIntegerIn(code, -MAX_ERRNO, MAX_PGM)) {
      throw invalidReturnValue('0, a program-interruption code or a negative errno', 'memory.readDoubleword', code);
    }
    if (code !== 0) return code;
    this.hi = checkHalf(this.#memory.hi, 'memory.hi') >>> 0;
    this.lo = checkHalf(this.#memory.lo, 'memory.lo') >>> 0;
    return 0;
  }

  hasFrame(pfn: number): boolean {
    return this.#memory.hasFrame(pfn);
  }
}

const MAX_ERRNO = 4095;
/** A program-interruption code has 16 bits. */
const MAX_PGM = 0xffff;

/** Checks storage that was given by a user, and gives what a walk can use. */
export function checkMemory(memory: AbsoluteMemory): AbsoluteMemory {
  if (memory instanceof OwnMemory) return memory;
  return new ForeignMemory(checkMethods(memory, 'memory', ['readDoubleword', 'hasFrame']));
}

/** Storage that is ours, and whose answers are right. */
abstract class OwnMemory implements AbsoluteMemory {
  hi = 0;
  lo = 0;
  abstract readDoubleword(pfn: number, offset: number): number;
  abstract hasFrame(pfn: number): boolean;

  protected take(bytes: Uint8Array, at: number): number {
    this.hi = word(bytes, at);
    this.lo = word(bytes, at + 4);
    return 0;
  }
}

/** Absolute storage over bytes, a frame at a time. */
class FrameMemory extends OwnMemory {
  readonly #frame: (pfn: number) => Uint8Array | undefined | null;

  constructor(frame: (pfn: number) => Uint8Array | undefined | null) {
    super();
    this.#frame = frame;
  }

  readDoubleword(pfn: number, offset: number): number {
    const bytes = this.#frame(pfn);
    if (bytes === undefined) return PGM_ADDRESSING;
    if (bytes === null) return -ERRNO.EFAULT;
    if (!isBytes(bytes)) throw invalidReturnValue('a Uint8Array, undefined or null', 'frame', bytes);
    return this.take(bytes, offset);
  }

  hasFrame(pfn: number): boolean {
    return this.#frame(pfn) !== undefined;
  }
}

/** Absolute storage over one array: no array is made for a frame. */
class ArrayMemory extends OwnMemory {
  readonly #bytes: Uint8Array;
  readonly #frames: number;

  constructor(bytes: Uint8Array) {
    super();
    this.#bytes = bytes;
    this.#frames = Math.floor(bytes.length / FRAME);
  }

  readDoubleword(pfn: number, offset: number): number {
    return this.hasFrame(pfn) ? this.take(this.#bytes, pfn * FRAME + offset) : PGM_ADDRESSING;
  }

  hasFrame(pfn: number): boolean {
    return pfn < this.#frames;
  }
}

/**
 * Absolute storage over bytes.
 * @param frame the 4096 bytes of a frame; `undefined` where there is no storage (an access gives 5, addressing); `null`
 * where there is storage whose content is not known (an access gives −EFAULT).
 */
export const memoryOfFrames = (frame: (pfn: number) => Uint8Array | undefined | null): AbsoluteMemory =>
  new FrameMemory(checkFunction(frame, 'frame'));

/** Absolute storage that is one array of bytes from absolute address 0 on. A partial last frame is not storage. */
export const memoryOfBytes = (bytes: Uint8Array): AbsoluteMemory => new ArrayMemory(checkBytes(bytes, 'bytes'));

function word(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}
