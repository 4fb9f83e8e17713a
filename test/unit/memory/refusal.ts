import type { KvmError } from '../../../lib/index.ts';

/** What a call is refused with. */
export function refusalOf(call: () => unknown): KvmError {
  try {
    call();
  } catch (error) {
    return error as KvmError;
  }
  throw new Error('it is not refused');
}
