const BLOCK = 512;

/** Bytes of a block after which it can be told that a tar archive begins. */
export const TAR_START = 265;

/** Whether an archive of tar begins so. */
export const isTar = (start: Buffer): boolean => start.toString('latin1', 257, 262) === 'ustar';

/**
 * The regular files in an archive of tar (ustar, as GNU's and others write it), by the last part of their names; a long one's is cut off.
 * @throws RangeError for one that is damaged
 */
export function* filesInTar(archive: Buffer): Generator<readonly [name: string, bytes: Buffer], void, undefined> {
  for (let at = 0; at + BLOCK <= archive.length; ) {
    const head = archive.subarray(at, at + BLOCK);
    if (head.every((byte) => byte === 0)) return;
    const size = sizeIn(head, at);
    const end = at + BLOCK + size;
    const name = textIn(head, 0, 100);
    if (end > archive.length) throw new RangeError(`it ends at byte ${archive.length}, and ${name} at ${end}`);
    const kind = head[156];
    if (kind === 0 || kind === 0x30) yield [name.slice(name.lastIndexOf('/') + 1), archive.subarray(at + BLOCK, end)];
    at = Math.ceil(end / BLOCK) * BLOCK;
  }
}

function sizeIn(head: Buffer, at: number): number {
  let sum = 0;
  for (const [index, byte] of head.entries()) sum += index >= 148 && index < 156 ? 0x20 : byte;
  const size = Number.parseInt(textIn(head, 124, 12), 8);
  if (sum === Number.parseInt(textIn(head, 148, 8), 8) && size >= 0) return size;
  throw new RangeError(`at byte ${at} of it there is no file's head`);
}

function textIn(head: Buffer, at: number, length: number): string {
  const text = head.toString('latin1', at, at + length);
  const end = text.indexOf('\0');
  return end < 0 ? text : text.slice(0, end);
}
