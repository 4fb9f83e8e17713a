import { checkObject, toU64 } from './arguments.ts';
import { outOfRange } from './errors.ts';
import type { U64 } from './u64.ts';

/** Some of an architecture's registers, by name, as they are set. */
export type SomeRegisters<Name extends string> = Partial<Record<Name, U64>>;

const TWO_32 = 1n << 32n;

/**
 * The registers that are to be set, in the order of `names`, as bigints.
 * @param narrow which of them have 32 bits
 * @throws TypeError for what isn't an object; RangeError for a name that there isn't, and a value that doesn't fit, with its name
 */
export function checkRegisters<Name extends string>(
  regs: SomeRegisters<Name>,
  names: readonly Name[],
  narrow: (name: Name) => boolean = () => false,
): [Name, bigint][] {
  const unknown = Object.keys(checkObject(regs, 'regs')).find((key) => !(names as readonly string[]).includes(key));
  if (unknown !== undefined) {
    throw outOfRange('regs', `an object with registers by their names, ${names[0]} to ${names.at(-1)}`, unknown);
  }
  const checked: [Name, bigint][] = [];
  for (const name of names) {
    const given = regs[name];
    if (given === undefined) continue;
    const value = toU64(given, `regs.${name}`);
    if (narrow(name) && value >= TWO_32) throw outOfRange(`regs.${name}`, 'an integer in [0, 2^32)', given);
    checked.push([name, value]);
  }
  return checked;
}

/** Registers by name, each as `read` has it. */
export const registersOf = <Name extends string>(
  names: readonly Name[],
  read: (name: Name, index: number) => bigint,
): Record<Name, bigint> =>
  Object.fromEntries(names.map((name, index) => [name, read(name, index)])) as Record<Name, bigint>;
