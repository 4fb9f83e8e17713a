import type { Walk } from '../arch/cli-arch.ts';
import { cliArch } from '../arch/index.ts';
import { DotUsageError, type Prompt } from './dot-command.ts';

/** The guest physical address of a virtual one, as the first vCPU has it. @throws DotUsageError with the walk */
export function virtualToPhysical(address: bigint, prompt: Prompt): bigint {
  const { physical, text } = walk(address, prompt);
  if (physical === undefined) throw new DotUsageError(text);
  return physical;
}

/** Follows the guest's tables. @throws DotUsageError where that can't be done */
export function walk(address: bigint, { session }: Prompt): Walk {
  const { arch } = session.kvm;
  const follow = cliArch(arch).walk;
  if (follow === undefined) {
    throw new DotUsageError(`virtual addresses of ${arch} are not walked here: .xp takes guest physical ones`);
  }
  return follow(address, session);
}
