import { isIntegerIn } from '../base/arguments.ts';

/** Loops over addresses: here in TypeScript, and the addon has the same in C++ (native/addresses.cc). */
export interface AddressLoops {
  /**
   * Stores `gpa − low + hva` for each of `count` addresses from index `from` on, from index `at` of `into` on, up to the first that is not an
   * integer in [low, high].
   * @returns how many were stored
   */
  place(
    gpas: Float64Array,
    from: number,
    into: Float64Array,
    at: number,
    count: number,
    low: number,
    high: number,
    hva: number,
  ): number;
}

/** Added and taken away again it makes an integer of a double, in half the time that `Math.floor` takes; from 2^51 on an even one. */
const TO_INTEGER = 1.5 * 2 ** 52;
/** The square of the least double is 0, that of its product with this is not. */
const HUGE = 2 ** 1000;

export const plainAddressLoops: AddressLoops = {
  place(gpas, from, into, at, count, low, high, hva) {
    const delta = hva - low;
    let placed = 0;
    // Of all together, for a branch less.
    let fractions = 0;
    for (; placed < count; placed++) {
      const gpa = gpas[from + placed]!;
      if (!(gpa >= low && gpa <= high)) break;
      const fraction = (gpa - (gpa + TO_INTEGER - TO_INTEGER)) * HUGE;
      fractions += fraction * fraction;
      into[at + placed] = gpa + delta;
    }
    if (fractions === 0) return placed;
    const end = placed;
    for (placed = 0; placed < end; placed++) if (!isIntegerIn(gpas[from + placed]!, low, high)) break;
    return placed;
  },
};

let addonLoops: AddressLoops | undefined;

/** From now on the addon's loops are there. */
export function useAddressLoops(loops: AddressLoops | undefined): void {
  addonLoops = loops;
}

/** So many in a row show that there are more, and are too few for a call of the addon. */
const FEW = 64;

/** As {@link AddressLoops.place}, by the addon where it is there and many follow each other in the range. */
export const placeAddresses: AddressLoops['place'] = (gpas, from, into, at, count, low, high, hva) => {
  const loops = count < 2 * FEW ? undefined : addonLoops;
  const few = loops === undefined ? count : FEW;
  const placed = plainAddressLoops.place(gpas, from, into, at, few, low, high, hva);
  if (loops === undefined || placed < few) return placed;
  return few + loops.place(gpas, from + few, into, at + few, count - few, low, high, hva);
};
