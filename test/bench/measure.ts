/** One way of doing the same thing. */
export interface Contender {
  readonly name: string;
  /** Does `n` operations; with the meter `result` what it returns is the cost. */
  run(n: number): void | number | Promise<number | undefined> | Promise<void>;
}

/** A ratio to report: the cost of one contender divided by that of another. */
export interface Comparison {
  readonly of: string;
  readonly to: string;
  /** The ratio to reach, or to stay below. */
  readonly goal?: number;
  /** So many times as many things are there: the ratio is told as its power as well. */
  readonly times?: number;
}

/**
 * How cost is measured: processor time of this thread; time on the clock, where threads sleep or others work for them
 * (both in nanoseconds); or what the contenders return.
 */
export type Meter = 'cpu' | 'clock' | 'result';

/** One thing done in several ways. */
export interface Case {
  readonly title: string;
  readonly meter: Meter;
  /** Of the cost; nanoseconds unless given. */
  readonly unit?: 'bytes';
  /** What one operation is, for the absolute numbers: `call`, `page`. */
  readonly per: string;
  /** How many of `per` one operation is; 1 unless given. */
  readonly times?: number;
  readonly contenders: readonly Contender[];
  readonly comparisons: readonly Comparison[];
}

/** How much to measure; times in nanoseconds. */
export interface Effort {
  /** What a contender is given to get warm: code is compiled meanwhile. */
  readonly warmUp: number;
  /** What a contender is given in each round; 0: one operation. */
  readonly batch: number;
  readonly rounds: number;
  /** Fewer rounds where they take longer than this, but some in any case. */
  readonly budget: number;
  readonly fewestRounds: number;
}

export interface Spread {
  readonly median: number;
  readonly lowerQuartile: number;
  readonly upperQuartile: number;
}

export interface Outcome {
  readonly rounds: number;
  readonly ratios: readonly (Comparison & Spread)[];
  readonly costs: readonly { readonly name: string; readonly median: number }[];
}

/** A clock in nanoseconds. */
export type Clock = () => number;

export const wallClock: Clock = () => performance.now() * 1e6;

/**
 * Measures all contenders of a case in turn, round after round, so that whatever else the machine does meets all of
 * them. A ratio is that of two costs of the same round; reported are the median of the rounds and the quartiles.
 */
export async function measure(
  { contenders, comparisons, meter, times = 1 }: Case,
  effort: Effort,
  threadTime: Clock,
): Promise<Outcome> {
  const clock = meter === 'cpu' ? threadTime : wallClock;
  const cost = async ({ run }: Contender, n: number): Promise<number> => {
    const start = clock();
    const running = run(n);
    // Without a need to wait there must be no wait: other things would be done meanwhile.
    const result = running instanceof Promise ? await running : running;
    return typeof result === 'number' && meter === 'result' ? result : clock() - start;
  };
  const batches = new Map<Contender, number>();
  for (const contender of contenders) {
    batches.set(contender, meter === 'result' ? 1 : await batchSize((n) => cost(contender, n), effort));
  }
  const costs = new Map<string, number[]>(contenders.map(({ name }) => [name, []]));
  const start = clock();
  let rounds = 0;
  for (; rounds < effort.rounds; rounds++) {
    if (rounds >= effort.fewestRounds && clock() - start > effort.budget) break;
    for (let turn = 0; turn < contenders.length; turn++) {
      const contender = contenders[(rounds + turn) % contenders.length]!;
      const n = batches.get(contender)!;
      costs.get(contender.name)!.push((await cost(contender, n)) / (n * times));
    }
  }
  const costsOf = (name: string): readonly number[] => {
    const found = costs.get(name);
    if (found === undefined) throw new Error(`There is no contender ${name}`);
    return found;
  };
  return {
    rounds,
    ratios: comparisons.map((comparison) => {
      const to = costsOf(comparison.to);
      return { ...comparison, ...spread(costsOf(comparison.of).map((each, round) => each / to[round]!)) };
    }),
    costs: contenders.map(({ name }) => ({ name, median: spread(costsOf(name)).median })),
  };
}

/** Operations that take about a batch's time, once the contender is warm. */
async function batchSize(cost: (n: number) => Promise<number>, { warmUp, batch }: Effort): Promise<number> {
  let n = 1;
  let spent = 0;
  for (;;) {
    const taken = await cost(n);
    spent += taken;
    // Never more than ten times as many at once: the first operations are the slowest.
    const fitting = Math.max(1, Math.min(n * 10, Math.round((n * batch) / Math.max(taken, 1))));
    if (spent >= warmUp && fitting < n * 2) return fitting;
    n = fitting;
  }
}

export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part: number): number => {
    const place = (sorted.length - 1) * part;
    const below = sorted[Math.floor(place)]!;
    return below + (sorted[Math.ceil(place)]! - below) * (place % 1);
  };
  return { median: at(0.5), lowerQuartile: at(0.25), upperQuartile: at(0.75) };
}

/**
 * A contender that goes through a list over and over, and each time goes on where it stopped. Who began at the start each time would find there what
 * others have just brought into the caches, and the more so the fewer fit its batch.
 */
export function goingOn(length: number, run: (from: number, n: number) => unknown): (n: number) => void {
  let from = 0;
  return (n) => {
    run(from, n);
    from = (from + n) % length;
  };
}

/** Does an operation `n` times. */
export function repeat(n: number, operation: () => unknown): void {
  for (let i = 0; i < n; i++) operation();
}
