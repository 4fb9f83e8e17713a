import type { KvmCalls } from '../../calls/kvm-calls.ts';
import type { Kvm } from '../../handles/kvm.ts';
import { ERRNO } from '../../uapi/errno.ts';

const SLICE_MS = 200;
/** A signal that ended a run may be Ctrl-C, of which Node hears in a thread of its own. A line that ended before would leave it to one that follows. */
const HEARD_MS = 50;
const nobody = new Int32Array(new SharedArrayBuffer(4));

/**
 * Makes runs without an end come back to JavaScript now and then, where V8 sees that Ctrl-C was pressed: inside KVM_RUN it
 * would not. For calls that belong to one prompt.
 */
export function sliceRuns({ calls }: Pick<Kvm, 'calls'>): void {
  const run = calls.run.bind(calls);
  (calls as { run: KvmCalls['run'] }).run = (vcpu, timeoutMs) => {
    const limit = timeoutMs > 0 ? timeoutMs : SLICE_MS;
    for (;;) {
      const began = performance.now();
      const result = run(vcpu, limit);
      if (result !== -ERRNO.EINTR) return result;
      // A kick, or a signal, comes earlier than the slice's end.
      const isEarly = performance.now() - began < limit;
      if (isEarly) Atomics.wait(nobody, 0, 0, HEARD_MS);
      if (isEarly || timeoutMs > 0) return result;
    }
  };
}
