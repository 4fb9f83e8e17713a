/**
 * A part of a caller's bytes, as `subarray` gives it of a plain Uint8Array: of a class of the caller's that calls the class's constructor,
 * which may make anything.
 */
export function partOf(bytes: Uint8Array, start: number, end = bytes.length): Uint8Array {
  const length = Math.max(0, Math.min(end, bytes.length) - start);
  return new Uint8Array(bytes.buffer, bytes.byteOffset + start, length);
}
