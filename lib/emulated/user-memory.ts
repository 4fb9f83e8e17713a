/** How the kernel gets at its caller's memory. */

import { copyBytes } from '../base/copy-bytes.ts';
import { partOf } from '../base/part-of.ts';
import { ERRNO } from '../uapi/errno.ts';

/** copy_to_user: what fits is filled, and a buffer that is too short is EFAULT. */
export function copyOut(from: Uint8Array, to: Uint8Array | null): number {
  if (to === null) return -ERRNO.EFAULT;
  // Not `length`, as in checkThere.
  const room = to.byteLength;
  copyBytes(from, 0, to, 0, Math.min(from.length, room));
  return room < from.length ? -ERRNO.EFAULT : 0;
}

/** copy_from_user: the bytes, or undefined where the buffer is too short (EFAULT). */
export function copyIn(from: Uint8Array | null, size: number): Uint8Array | undefined {
  return from === null || from.byteLength < size ? undefined : from.slice(0, size);
}

/** Moves pieces of memory to or from one array, back to back: how many were moved whole before one could not be. */
export function movePieces(
  hvas: Float64Array,
  lengths: Uint32Array,
  bytes: Uint8Array,
  move: (hva: number, bytes: Uint8Array) => number,
): number {
  const count = Math.min(hvas.length, lengths.length);
  const room = bytes.byteLength;
  let at = 0;
  for (let i = 0; i < count; i++) {
    const length = lengths[i]!;
    if (length === 0) continue;
    if (at + length > room || move(hvas[i]!, partOf(bytes, at, at + length)) !== length) return i;
    at += length;
  }
  return count;
}
