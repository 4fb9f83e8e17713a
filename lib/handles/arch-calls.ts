import type { KvmError } from '../base/errors.ts';
import { callError } from '../calls/failure.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import type { CallGroup } from '../calls/signatures.ts';
import type { Arch } from '../uapi/arch.ts';
import { ERRNO } from '../uapi/errno.ts';

/** The calls that only one architecture has. @throws KvmError ENOTTY on another */
export function archCalls<G extends CallGroup>(calls: KvmCalls, group: G): NonNullable<KvmCalls[G]> {
  const found: KvmCalls[G] = calls[group];
  if (found !== undefined) return found;
  throw onlyOn(group, calls.arch);
}

/** @throws KvmError ENOTTY on another architecture */
export function assertArch(calls: KvmCalls, arch: Arch): void {
  if (calls.arch !== arch) throw onlyOn(arch, calls.arch);
}

function onlyOn(name: string, arch: Arch): KvmError {
  const explanation = `there is ${name} on ${name} only, and this is ${arch}`;
  return callError('ioctlUnchecked', ERRNO.ENOTTY, { explanation });
}
