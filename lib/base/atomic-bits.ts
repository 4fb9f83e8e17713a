/**
 * Bits that others set at the same time, in other threads and processes, in the layout of vhost-user's dirty log: bit i of byte
 * n is number 8 * n + i.
 */

/** Sets a range of bits, each byte by one atomic OR. */
export function setBits(bytes: Uint8Array, first: number, end: number): void {
  for (let bit = first; bit < end; ) {
    const byte = Math.floor(bit / 8);
    const next = Math.min(end, (byte + 1) * 8);
    Atomics.or(bytes, byte, ((1 << (next - byte * 8)) - 1) & ~((1 << (bit - byte * 8)) - 1));
    bit = next;
  }
}

/** Clears all bits, each byte by one atomic exchange, and calls back with each that was set. Zeros are passed over by eight bytes at once. */
export function takeBits(bytes: Uint8Array, each: (bit: number) => void): void {
  const lead = Math.min(bytes.length, (8 - (bytes.byteOffset % 8)) % 8);
  const words = new Float64Array(bytes.buffer, bytes.byteOffset + lead, Math.floor((bytes.length - lead) / 8));
  const takeBytes = (from: number, to: number): void => {
    for (let byte = from; byte < to; byte++) {
      if (bytes[byte] === 0) continue;
      for (let bits = Atomics.exchange(bytes, byte, 0); bits !== 0; bits &= bits - 1) {
        each(8 * byte + 31 - Math.clz32(bits & -bits));
      }
    }
  };
  takeBytes(0, lead);
  for (let word = 0; word < words.length; word++) {
    // As a double only 0 and −0 are 0, and the latter is a single bit.
    if (!Object.is(words[word], 0)) takeBytes(lead + 8 * word, lead + 8 * word + 8);
  }
  takeBytes(lead + 8 * words.length, bytes.length);
}
