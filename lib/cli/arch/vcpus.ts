import type { Vcpu } from '../../handles/vcpu.ts';
import type { Vm } from '../../handles/vm.ts';
import { DotUsageError } from '../repl/dot-command.ts';

/** @throws DotUsageError where a VM has none */
export function firstVcpu({ vcpus }: Vm): Vcpu {
  const [vcpu] = vcpus;
  if (vcpu === undefined)
    throw new DotUsageError(
      'there is no vCPU whose tables could be walked: vm.createVcpu() makes one; .xp takes guest physical addresses',
    );
  return vcpu;
}
