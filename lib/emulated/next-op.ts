import type { GuestFault, GuestProgram, GuestResult } from './guest.ts';

const ENDED_INSIDE =
  "the guest's program was ended inside of itself (by Ctrl-C, or a time limit of node:vm): a generator cannot go on from there, load the guest again";

/** What V8 says of a generator in which JavaScript was terminated: nobody else could be inside, for that run would be EBUSY. */
const isEndedInside = (error: unknown): boolean =>
  (error as { readonly message?: unknown } | null | undefined)?.message === 'Generator is already running';

/**
 * What a guest's program does next, after an operation that gave `result` or that ended in a fault.
 * @throws what the program throws; an Error that says so where JavaScript was terminated inside of it before
 */
export function nextOp(
  program: GuestProgram,
  result: GuestResult,
  fault: GuestFault | undefined,
): ReturnType<GuestProgram['next']> {
  try {
    return fault === undefined ? program.next(result) : program.throw(fault);
  } catch (error) {
    throw isEndedInside(error) ? new Error(ENDED_INSIDE, { cause: error }) : error;
  }
}
