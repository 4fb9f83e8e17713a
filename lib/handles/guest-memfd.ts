import { Handle } from '../calls/handle.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';

/** A guest_memfd: pages of a VM, which this process cannot read, unless it was made to be mapped (6.18+). */
export class GuestMemfd extends Handle {
  override readonly noun = 'the guest_memfd';
  readonly size: number;

  constructor(calls: KvmCalls, fd: number, size: number) {
    super(calls, fd);
    this.size = size;
  }
}
