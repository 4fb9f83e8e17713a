import { checkU32 } from './arguments.ts';
import { invalidArgType, outOfRange } from './errors.ts';
import { CAP, type CapName } from './uapi/capabilities.ts';

/** A capability by its name, with or without `KVM_CAP_`, or by its number. */
export type Capability = CapName | `KVM_CAP_${CapName}` | number;

const PREFIX = 'KVM_CAP_';

/** The number of a capability. @throws RangeError for a name that isn't known */
export function capNumber(cap: Capability): number {
  if (typeof cap === 'number') return checkU32(cap, 'cap');
  if (typeof cap !== 'string') throw invalidArgType('cap', 'a number or a string', cap);
  const name = cap.startsWith(PREFIX) ? cap.slice(PREFIX.length) : cap;
  const known = Object.hasOwn(CAP, name) ? CAP[name as CapName] : undefined;
  if (known === undefined) throw outOfRange('cap', "a capability's name, or its number", cap);
  return known;
}
