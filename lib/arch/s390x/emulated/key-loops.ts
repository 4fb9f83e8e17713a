import { wordRange } from '../../../base/wide-bytes.ts';

/** Beside the key that was set last: the page was changed since the dirty log was last brought up to date. Keys don't use the bit. */
export const USER_CHANGED = 1;
export const KEY_BITS = 0xfe;

/** Loops over storage keys: here in TypeScript, and the addon has the same in C++ (native/keys.cc). */
export interface KeyLoops {
  /**
   * Notes the keys that a run of pages was given as those that were set last. A page whose key was another one is changed.
   * @param keys as many as `last` has; of the same place in a chunk: words of both begin at the same pages
   */
  note(last: Uint8Array, keys: Uint8Array): number;
}

/** {@link USER_CHANGED} in each byte of a word. */
const EACH_CHANGED = 0x0101_0101;

/** What was set last, after a key was set. */
export const noted = (before: number, key: number): number =>
  (before & KEY_BITS) === key ? before : key | USER_CHANGED;

export const plainKeyLoops: KeyLoops = {
  note(last, keys) {
    const { length } = keys;
    const { first, end, words: keyWords } = wordRange(keys, 0, length);
    const { words: lastWords } = wordRange(last, 0, length);
    for (let i = 0; i < keyWords.length; i++) {
      const key = keyWords[i]!;
      const before = lastWords[i]!;
      // Each byte's seven bits that keys use; one of them carries into the eighth.
      const others = ((key ^ before) >>> 1) & 0x7f7f_7f7f;
      lastWords[i] = key | (((others + 0x7f7f_7f7f) >>> 7) & EACH_CHANGED) | (before & EACH_CHANGED);
    }
    for (let i = 0; i < first; i++) last[i] = noted(last[i]!, keys[i]!);
    for (let i = end; i < length; i++) last[i] = noted(last[i]!, keys[i]!);
    return 0;
  },
};

let addonLoops: KeyLoops | undefined;

/** From now on the addon's loops are there. */
export function useKeyLoops(loops: KeyLoops | undefined): void {
  addonLoops = loops;
}

/** Keys for which a call of the addon is not worth it. */
const FEW = 512;

/** As {@link KeyLoops.note}, by the addon where it is there and there are many. */
export function noteKeys(last: Uint8Array, keys: Uint8Array): void {
  const loops = keys.length < FEW ? undefined : addonLoops;
  (loops ?? plainKeyLoops).note(last, keys);
}
