import { checkU32 } from '../base/arguments.ts';
import { invalidArgType, outOfRange } from '../base/errors.ts';
import { CAP, type CapName } from '../uapi/capabilities.ts';

/** A capability by its name, with or without `KVM_CAP_`, or by its number. */
export type Capability = CapName | `KVM_CAP_${CapName}` | number;

/** Arguments that KVM_ENABLE_CAP takes at most. */
export const ENABLE_CAP_ARGS = 4;

const NUMBERS: ReadonlyMap<string, number> = new Map(
  Object.entries(CAP).flatMap(([name, number]) => [[name, number] as const, [`KVM_CAP_${name}`, number] as const]),
);

/** The number of a capability. @throws RangeError for a name that isn't known */
export function capNumber(cap: Capability): number {
  if (typeof cap === 'number') return checkU32(cap, 'cap');
  if (typeof cap !== 'string') throw invalidArgType('cap', 'a number or a string', cap);
  const known = NUMBERS.get(cap);
  if (known === undefined) throw outOfRange('cap', "a capability's name, or its number", cap);
  return known;
}
