import type { Vcpu } from '../../handles/vcpu.ts';
import type { Vm } from '../../handles/vm.ts';
import { DotUsageError } from '../repl/dot-command.ts';
import type { Register } from './cli-arch.ts';

/** `r0` and so on. */
export const numbered = (prefix: string, count: number, read: (n: number) => bigint): Register[] =>
  Array.from({ length: count }, (_, n): Register => [`${prefix}${n}`, read(n)]);

/** @throws DotUsageError where a VM has none */
export function firstVcpu({ vcpus }: Vm): Vcpu {
  const [vcpu] = vcpus;
  if (vcpu === undefined)
    throw new DotUsageError('there is no vCPU whose tables could be walked: vm.createVcpu() makes one');
  return vcpu;
}
