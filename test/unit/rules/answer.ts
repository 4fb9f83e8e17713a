import { firstBroken, type Rule } from '../../../lib/rules/rule.ts';

/** The errno and the sentence of the first rule that is broken; nothing where none is. */
export function answer<Context>(rules: readonly Rule<Context>[], context: Context): string | undefined {
  const rule = firstBroken(rules, context);
  return rule && `${rule.errno}: ${rule.why(context)}`;
}
