import { Handle } from '../calls/handle.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';

/** What is kept of a closed vCPU besides its descriptor. */
export interface ParkedState {
  readonly id: number;
  /** The entry of its dirty ring that is filled next. */
  readonly ringNext: number;
  /** A run that its closing interrupted has not come back yet. */
  isBusy(): boolean;
}

/** A vCPU that was closed: KVM keeps it until the VM goes, so that its descriptor waits here to be handed out anew. */
export class ParkedVcpu extends Handle {
  override readonly noun: string;
  readonly state: ParkedState;

  constructor(calls: KvmCalls, fd: number, state: ParkedState) {
    super(calls, fd);
    this.noun = `vCPU ${state.id}`;
    this.state = state;
  }

  override giveUp(): number {
    return super.giveUp();
  }
}
