import { ERRNO, type ErrnoName } from '../uapi/errno.ts';

/**
 * One check of the kernel's, written once and used twice: the emulated kernel refuses by it, and the typed layer
 * explains by it what a real kernel refused. A call's rules stand in a list in the kernel's order.
 */
export interface Rule<Context> {
  readonly errno: ErrnoName;
  /** Whether the call breaks this rule, given that it broke none before it. */
  readonly broken: (context: Context) => boolean;
  /** Why, in a sentence with the numbers in it, and what would be right. */
  readonly why: (context: Context) => string;
}

/** The first rule that is broken: the one the kernel answers by. */
export function firstBroken<Context>(rules: Iterable<Rule<Context>>, context: Context): Rule<Context> | undefined {
  for (const rule of rules) {
    if (rule.broken(context)) return rule;
  }
  return undefined;
}

/** −errno of the first broken rule, or 0. */
export function refusal<Context>(rules: Iterable<Rule<Context>>, context: Context): number {
  const rule = firstBroken(rules, context);
  return rule === undefined ? 0 : -ERRNO[rule.errno];
}

/**
 * The sentence that explains why a kernel answered `errno`, or undefined when the first broken rule names another
 * error: then our picture of the kernel's state is not the kernel's, and a guess would mislead.
 */
export function explain<Context>(rules: Iterable<Rule<Context>>, context: Context, errno: number): string | undefined {
  const rule = firstBroken(rules, context);
  return rule !== undefined && ERRNO[rule.errno] === Math.abs(errno) ? rule.why(context) : undefined;
}
