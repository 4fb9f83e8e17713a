/**
 * What the model reads: absolute storage, a doubleword at a time. The emulated kernel implements it over memslots, a
 * capture over its saved frames, a user over whatever bytes there are.
 */

import { checkBytes, checkFunction } from '../../../base/arguments.ts';
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

/**
 * Absolute storage over bytes.
 * @param frame the 4096 bytes of a frame; `undefined` where there is no storage (an access gives 5, addressing); `null`
 * where there is storage whose content is not known (an access gives −EFAULT).
 */
export function memoryOfFrames(frame: (pfn: number) => Uint8Array | undefined | null): AbsoluteMemory {
  checkFunction(frame, 'frame');
  return {
    hi: 0,
    lo: 0,
    readDoubleword(pfn, offset) {
      const bytes = frame(pfn);
      if (bytes === undefined) return PGM_ADDRESSING;
      if (bytes === null) return -ERRNO.EFAULT;
      this.hi = word(bytes, offset);
      this.lo = word(bytes, offset + 4);
      return 0;
    },
    hasFrame: (pfn) => frame(pfn) !== undefined,
  };
}

/** Absolute storage that is one array of bytes from absolute address 0 on. A partial last frame is not storage. */
export function memoryOfBytes(bytes: Uint8Array): AbsoluteMemory {
  const frames = Math.floor(checkBytes(bytes, 'bytes').length / 4096);
  return {
    hi: 0,
    lo: 0,
    readDoubleword(pfn, offset) {
      if (pfn >= frames) return PGM_ADDRESSING;
      const at = pfn * 4096 + offset;
      this.hi = word(bytes, at);
      this.lo = word(bytes, at + 4);
      return 0;
    },
    hasFrame: (pfn) => pfn < frames,
  };
}

function word(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}
