import type { KvmCalls } from './kvm-calls.ts';
import { originOf } from './wrapped.ts';

/** Kernels that are objects of JavaScript's, and how each is told to leave views alone. */
const inHeap = new WeakMap<KvmCalls, (hva: number) => void>();

/**
 * A kernel that is made of objects. It goes when nobody has it, with all that was made by it; and nobody can find out whether somebody
 * looks at a view of its memory, which it holds itself.
 * @param leaveViews the mapping at that address will be unmapped, and views of it stay as they are
 */
export function livesInHeap(kernel: KvmCalls, leaveViews: (hva: number) => void): void {
  inHeap.set(kernel, leaveViews);
}

/** Whether a view of what is dropped stays without a mapping that is kept for it. */
export function viewsOutlive(calls: KvmCalls): boolean {
  return inHeap.has(originOf(calls));
}

/** By whom something that is dropped will be given back; `undefined` when there is nobody any more to give it to. */
export type Reach = () => KvmCalls | undefined;

const reaches = new WeakMap<KvmCalls, Reach>();

/**
 * What a finalizer holds in the place of calls: by those it would hold a kernel of the heap, and by that a guest's program and whatever
 * the program refers to, which may be what is to be finalized.
 */
export function reachOf(calls: KvmCalls): Reach {
  let reach = reaches.get(calls);
  if (reach === undefined) {
    reach = viewsOutlive(calls) ? weakly(calls, originOf(calls)) : () => calls;
    reaches.set(calls, reach);
  }
  return reach;
}

/** The kernel can outlive what it was wrapped in. */
function weakly(calls: KvmCalls, kernel: KvmCalls): Reach {
  const [first, second] = [new WeakRef(calls), new WeakRef(kernel)];
  return () => first.deref() ?? second.deref();
}

/** munmap(2) of memory whose handle the collector took. */
export function unmapDropped(calls: KvmCalls, hva: number, length: number): void {
  inHeap.get(originOf(calls))?.(hva);
  calls.munmap(hva, length);
}
