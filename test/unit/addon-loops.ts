import { loadNative, type NativeLoad } from '../../lib/raw.ts';

const native = loadNative();

type Addon = Extract<NativeLoad, { readonly calls: unknown }>;

/** Something of the addon's; undefined where there is no addon. */
export const ofAddon = <T>(pick: (addon: Addon) => T): T | undefined => ('calls' in native ? pick(native) : undefined);

/** The loops in TypeScript, and those of the addon where it is there: what is true of the ones is true of the others. */
export function loopsOfBoth<T>(plain: T, pick: (addon: Addon) => T): readonly (readonly [name: string, loops: T])[] {
  const other = ofAddon(pick);
  return [['in TypeScript', plain], ...(other === undefined ? [] : [['of the addon', other] as const])];
}
