import { callError } from '../calls/failure.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import type { CallGroup } from '../calls/signatures.ts';
import { ERRNO } from '../uapi/errno.ts';

/** The calls that only one architecture has. @throws KvmError ENOTTY on another */
export function archCalls<G extends CallGroup>(calls: KvmCalls, group: G): NonNullable<KvmCalls[G]> {
  const found: KvmCalls[G] = calls[group];
  if (found !== undefined) return found;
  const explanation = `there is ${group} on ${group} only, and this is ${calls.arch}`;
  throw callError('ioctlUnchecked', ERRNO.ENOTTY, { explanation });
}
