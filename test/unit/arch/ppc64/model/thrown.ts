import { HtabStreamError } from '../../../../../lib/arch/ppc64/model/index.ts';

/** What is wrong with a stream by the error that a call throws, and where. */
export function thrown(call: () => unknown): { problem: string; offset: number } {
  try {
    call();
  } catch (error) {
    if (error instanceof HtabStreamError) return { problem: error.problem, offset: error.offset };
    throw error;
  }
  throw new Error('nothing was thrown');
}
