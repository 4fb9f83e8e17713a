import { checkInteger, checkMethods, checkOneOf, checkText, isPowerOfTwo } from '../base/arguments.ts';
import { outOfRange } from '../base/errors.ts';
import { ARCHES } from '../uapi/arch.ts';
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
  behind.set(wrapped, originOf(calls));
  return wrapped;
}

/** Checks that all methods of a group are there. */
function checkGroup<T extends object>(target: T, group: CallGroup | undefined, calls = 'calls'): T {
  const name = group === undefined ? calls : `${calls}.${group}`;
  checkMethods(target as Record<string, unknown>, name, Object.keys(signaturesOf(group)));
  return target;
}

const whole = new WeakSet<KvmCalls>();

/**
 * Checks calls that somebody gives us. Whatever is missed of them is missed now, and not when the collector gives something back,
 * where a TypeError would end the process.
 */
export function checkCalls(calls: KvmCalls, name = 'calls'): KvmCalls {
  if (whole.has(calls)) return calls;
  const { backend, arch, release, pageSize } = checkGroup(calls, undefined, name);
  checkOneOf(backend, `${name}.backend`, ['native', 'emulated']);
  checkOneOf(arch, `${name}.arch`, ARCHES);
  checkText(release, `${name}.release`);
  if (!isPowerOfTwo(checkInteger(pageSize, `${name}.pageSize`, 1, Number.MAX_SAFE_INTEGER)))
    throw outOfRange(`${name}.pageSize`, 'a power of two', pageSize);
  for (const group of CALL_GROUPS) if (calls[group] !== undefined) checkGroup(calls[group], group, name);
  whole.add(calls);
  return calls;
}

/** The kernel's own calls, whatever they were wrapped in. */
export const originOf = (calls: KvmCalls): KvmCalls => behind.get(calls) ?? calls;

/** Whether an address is the same memory for both: that of the process, or of one emulated kernel. */
export function shareMemory(one: KvmCalls, other: KvmCalls): boolean {
  return one.backend === other.backend && (one.backend === 'native' || originOf(one) === originOf(other));
}
