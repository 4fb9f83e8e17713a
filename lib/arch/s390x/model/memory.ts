/**
 * What the model reads: absolute storage, a doubleword at a time. The emulated kernel implements it over memslots, a
 * capture over its saved frames, a user over whatever bytes there are.
 */

import { checkBytes, checkFunction, checkHalf, checkMethods, isIntegerIn } from '../../../base/arguments.ts';
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
  if (memory instanceof FrameMemory) return memory;
  return new ForeignMemory(checkMethods(memory, 'memory', ['readDoubleword', 'hasFrame']));
}

/** Absolute storage over bytes, a frame at a time. */
class FrameMemory implements AbsoluteMemory {
  hi = 0;
  lo = 0;
  readonly #frame: (pfn: number) => Uint8Array | undefined | null;

  constructor(frame: (pfn: number) => Uint8Array | undefined | null) {
    this.#frame = frame;
  }

  readDoubleword(pfn: number, offset: number): number {
    const bytes = this.#frame(pfn);
    if (bytes === undefined) return PGM_ADDRESSING;
    if (bytes === null) return -ERRNO.EFAULT;
    if (!(bytes instanceof Uint8Array)) throw invalidReturnValue('a Uint8Array, undefined or null', 'frame', bytes);
    this.hi = word(bytes, offset);
    this.lo = word(bytes, offset + 4);
    return 0;
  }

  hasFrame(pfn: number): boolean {
    return this.#frame(pfn) !== undefined;
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
export function memoryOfBytes(bytes: Uint8Array): AbsoluteMemory {
  const frames = Math.floor(checkBytes(bytes, 'bytes').length / 4096);
  return new FrameMemory((pfn) => (pfn < frames ? bytes.subarray(pfn * 4096, pfn * 4096 + 4096) : undefined));
}

function word(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}
