import { checkMethods } from '../base/arguments.ts';
import { hostOf, type KvmCalls } from './kvm-calls.ts';
import { CALL_GROUPS, type CallGroup, signaturesOf } from './signatures.ts';

/** What stands behind calls that were made of others. */
const behind = new WeakMap<KvmCalls, KvmCalls>();

/**
 * Calls of the same kernel that do something more than it does.
 * @param wrap makes the methods of one group (or those without one) from those of the target
 */
export function wrapCalls(calls: KvmCalls, wrap: (target: object, group: CallGroup | undefined) => object): KvmCalls {
  const made: Record<string, unknown> = { ...hostOf(calls), ...wrap(checkGroup(calls, undefined), undefined) };
  for (const group of CALL_GROUPS) {
    const target = calls[group];
    if (target !== undefined) made[group] = wrap(checkGroup(target, group), group);
  }
  const wrapped = made as unknown as KvmCalls;
  behind.set(wrapped, origin(calls));
  return wrapped;
}

/** Checks that all methods of a group are there. */
function checkGroup(target: object, group: CallGroup | undefined): object {
  const name = group === undefined ? 'calls' : `calls.${group}`;
  return checkMethods(target as Record<string, unknown>, name, Object.keys(signaturesOf(group)));
}

const origin = (calls: KvmCalls): KvmCalls => behind.get(calls) ?? calls;

/** Whether an address is the same memory for both: that of the process, or of one emulated kernel. */
export function shareMemory(one: KvmCalls, other: KvmCalls): boolean {
  return one.backend === other.backend && (one.backend === 'native' || origin(one) === origin(other));
}
