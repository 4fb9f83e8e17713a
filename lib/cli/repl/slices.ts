import type { KvmCalls } from '../../calls/kvm-calls.ts';
import type { Kvm } from '../../handles/kvm.ts';
import { ERRNO } from '../../uapi/errno.ts';

const SLICE_MS = 200;

/**
 * Makes runs without an end come back to JavaScript now and then, where V8 sees that Ctrl-C was pressed: inside KVM_RUN it
 * would not. For calls that belong to one prompt.
 */
export function sliceRuns({ calls }: Pick<Kvm, 'calls'>): void {
  const run = calls.run.bind(calls);
  (calls as { run: KvmCalls['run'] }).run = (vcpu, timeoutMs) => {
    if (timeoutMs > 0) return run(vcpu, timeoutMs);
    for (;;) {
      const began = performance.now();
      const result = run(vcpu, SLICE_MS);
      // A kick comes earlier than the slice's end.
      if (result !== -ERRNO.EINTR || performance.now() - began < SLICE_MS) return result;
    }
  };
}
