/** The bytes of a value, of which there may be more, in a host's byte order. */
export function bytesOf(value: bigint, size: number, littleEndian: boolean): Uint8Array {
  const all = new DataView(new ArrayBuffer(8));
  all.setBigUint64(0, BigInt.asUintN(64, value), littleEndian);
  return new Uint8Array(all.buffer, littleEndian ? 0 : 8 - size, size);
}

/** The value that up to eight bytes are. */
export function integerOf(bytes: Uint8Array, littleEndian: boolean): bigint {
  const all = new Uint8Array(8);
  all.set(bytes, littleEndian ? 0 : 8 - bytes.length);
  return new DataView(all.buffer).getBigUint64(0, littleEndian);
}
