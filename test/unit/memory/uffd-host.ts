import type { TestContext } from 'vitest';
import { KvmError, Mapping, TrackedWrites } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { addon } from '../native/real.ts';

/** The addon where this process may have a userfaultfd that tracks writes; else the test is skipped with the reason. */
export function trackingKernel(test: TestContext): KvmCalls {
  const calls = addon(test);
  using probe = Mapping.anonymous(calls, calls.pageSize);
  try {
    new TrackedWrites(probe).close();
  } catch (error) {
    if (error instanceof KvmError && ['EPERM', 'ENOSYS', 'EINVAL'].includes(error.code)) test.skip(error.message);
    throw error;
  }
  return calls;
}
