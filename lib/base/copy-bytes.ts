import { partOf } from './part-of.ts';

/** Up to this many bytes a loop is cheaper than a call. */
const FEW_BYTES = 16;

/** Copies `from[fromAt .. fromAt + length)` to `to[toAt .. toAt + length)`, all of which are there. */
type Copy = (from: Uint8Array, fromAt: number, to: Uint8Array, toAt: number, length: number) => void;

const { copy } = Buffer.prototype;

/** From Node 22 on `Buffer`'s copy makes no object. Where little else is made, that is most of what a copy of a page costs. */
export const copyByCopy: Copy = (from, fromAt, to, toAt, length) => {
  // It copies what there is; `set` throws.
  if (copy.call(from, to, toAt, fromAt, fromAt + length) !== length) {
    throw new TypeError('the memory of an array that is copied has gone');
  }
};

/** `set` takes whole arrays: a part needs an object of its own. */
export const copyBySet: Copy = (from, fromAt, to, toAt, length) => {
  to.set(length === from.length ? from : partOf(from, fromAt, fromAt + length), toAt);
};

/** The same of an array of no class of a caller's, whose part is had in less time. */
export const copyBySubarray: Copy = (from, fromAt, to, toAt, length) => {
  to.set(length === from.length ? from : from.subarray(fromAt, fromAt + length), toAt);
};

const makesNoObject = Number.parseInt(process.versions.node, 10) >= 22;
const copyMany = makesNoObject ? copyByCopy : copyBySet;
const copyManyOfMemory = makesNoObject ? copyByCopy : copyBySubarray;

const copyFew: Copy = (from, fromAt, to, toAt, length) => {
  // Of one buffer, what is overwritten last must be read last; of two, either order will do.
  if (from.byteOffset + fromAt < to.byteOffset + toAt) {
    for (let i = length - 1; i >= 0; i--) to[toAt + i] = from[fromAt + i]!;
  } else {
    for (let i = 0; i < length; i++) to[toAt + i] = from[fromAt + i]!;
  }
};

/** Copies bytes as memmove does: they may overlap. */
export const copyBytes: Copy = (from, fromAt, to, toAt, length) => {
  if (length <= FEW_BYTES) copyFew(from, fromAt, to, toAt, length);
  else copyMany(from, fromAt, to, toAt, length);
};

/** As {@link copyBytes}, from an array of ours: memory, and no caller's. */
export const copyMemory: Copy = (from, fromAt, to, toAt, length) => {
  if (length <= FEW_BYTES) copyFew(from, fromAt, to, toAt, length);
  else copyManyOfMemory(from, fromAt, to, toAt, length);
};
