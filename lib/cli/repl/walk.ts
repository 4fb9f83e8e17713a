import { type Segment, slbOfSregs, vrmaSegment } from '../../arch/ppc64/model/index.ts';
import { explainTranslation } from '../../arch/s390x/model/index.ts';
import { hex } from '../../base/errors.ts';
import type { Vcpu } from '../../handles/vcpu.ts';
import { requestNumber, requestSize } from '../../uapi/requests.ts';
import { REGS_SIZE } from '../../uapi/structs.ts';
import { DotUsageError, type Prompt } from './dot-command.ts';

/** Where a virtual address leads, and how. */
export interface Walk {
  readonly physical: bigint | undefined;
  /** The steps, a line each. */
  readonly text: string;
}

/** The guest physical address of a virtual one, as the first vCPU has it. @throws DotUsageError with the walk */
export function virtualToPhysical(address: bigint, prompt: Prompt): bigint {
  const { physical, text } = walk(address, prompt);
  if (physical === undefined) throw new DotUsageError(text);
  return physical;
}

/** Follows the guest's tables. @throws DotUsageError where that can't be done */
export function walk(address: bigint, { session }: Prompt): Walk {
  const { vm, kvm } = session;
  switch (kvm.arch) {
    case 's390x': {
      const vcpu = firstVcpu(vm.vcpus);
      const found = explainTranslation(vcpu.s390x.cpuState(session.facilities), vm.s390x.absoluteMemory(), address);
      return { physical: found.absolute, text: found.text };
    }
    case 'ppc64': {
      const segments: readonly Segment[] = session.segments ?? segmentsOf(vm.vcpus[0]);
      const found = vm.hpt.translate(address, segments);
      return { physical: found.result.ok ? found.result.ra : undefined, text: String(found) };
    }
    case 'x86_64':
      return walkX86_64(address, firstVcpu(vm.vcpus));
    default:
      throw new DotUsageError(`virtual addresses of ${kvm.arch} are not walked here: .xp takes guest physical ones`);
  }
}

/** The vCPU's SLB, or where that is empty the segment of real-mode accesses. */
function segmentsOf(vcpu: Vcpu | undefined): readonly Segment[] {
  const slb = vcpu === undefined ? [] : slbOfSregs(vcpu.getSregsBytes(REGS_SIZE.ppc64.sregs ?? 0));
  return slb.length > 0 ? slb : [vrmaSegment()];
}

function firstVcpu(vcpus: readonly Vcpu[]): Vcpu {
  const [vcpu] = vcpus;
  if (vcpu === undefined)
    throw new DotUsageError('there is no vCPU whose tables could be walked: vm.createVcpu() makes one');
  return vcpu;
}

/** Paging is on (CR0). */
const PG = 0x8000_0000n;

function walkX86_64(address: bigint, vcpu: Vcpu): Walk {
  if ((vcpu.x86_64.getSregs().cr0 & PG) === 0n) {
    return {
      physical: address,
      text: `paging is off: linear address ${hex(address)} is guest physical ${hex(address)}`,
    };
  }
  // linear_address, physical_address, valid
  const translation = new DataView(new ArrayBuffer(requestSize('KVM_TRANSLATE')));
  translation.setBigUint64(0, address, true);
  vcpu.ioctl(requestNumber('KVM_TRANSLATE', 'x86_64'), new Uint8Array(translation.buffer));
  const physical = translation.getUint8(16) === 0 ? undefined : translation.getBigUint64(8, true);
  const to = physical === undefined ? 'is not mapped' : `is guest physical ${hex(physical)}`;
  return { physical, text: `linear address ${hex(address)} ${to} (KVM_TRANSLATE)` };
}
