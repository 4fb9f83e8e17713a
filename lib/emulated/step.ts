/** Who gets at memory: the guest itself, or KVM for it, which uses user space's addresses. */
export type Accessor = 'guest' | 'kvm';

/** One access, or the rest of one, that does not cross a page; a negative `gpa` is −errno instead. */
export interface Fragment {
  readonly gpa: number;
  readonly bytes: Uint8Array;
}

/** What a step of the guest led to: on with the program, out to user space, out before the guest was entered, or −errno. */
export type Outcome = 'continue' | 'exit' | 'spin' | 'immediate' | 'wait' | number;

/** Whether what the step did is to be done again. */
export const isFailure = (outcome: Outcome): boolean => typeof outcome === 'number' || outcome === 'wait';
