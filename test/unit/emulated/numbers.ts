/** The same numbers every time (a linear congruential generator). */
export function numbers(seed: number) {
  let state = seed;
  const below = (end: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * end);
  };
  return { below, pick: <T>(from: readonly T[]): T => from[below(from.length)]! };
}
