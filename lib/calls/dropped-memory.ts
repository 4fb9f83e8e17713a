import type { KvmCalls } from './kvm-calls.ts';
import { originOf } from './wrapped.ts';

/** How kernels are told to leave views alone, of those whose views are the memory itself. */
const keepers = new WeakMap<KvmCalls, (hva: number) => void>();

/**
 * A kernel holds what it shows, so that nobody can find out whether somebody else looks at a view of it.
 * @param leaveViews the mapping at that address will be unmapped, and views of it stay as they are
 */
export function holdsViews(kernel: KvmCalls, leaveViews: (hva: number) => void): void {
  keepers.set(kernel, leaveViews);
}

/** Whether views of what is dropped stay, with no mapping that is kept for them. */
export function viewsOutlive(calls: KvmCalls): boolean {
  return keepers.has(originOf(calls));
}

/** munmap(2) of memory whose handle the collector took. */
export function unmapDropped(calls: KvmCalls, hva: number, length: number): void {
  keepers.get(originOf(calls))?.(hva);
  calls.munmap(hva, length);
}
