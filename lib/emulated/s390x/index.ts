import type { MemslotContext } from '../../rules/memslot.ts';
import { s390xMemslotRules } from '../../rules/memslot.ts';
import type { Rule } from '../../rules/rule.ts';
import { CAP } from '../../uapi/capabilities.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { type CapabilityValue, CommonArchitecture, commonCapabilities } from '../common.ts';
import type { Release } from '../release.ts';
import type { EmulatedVm } from '../vm.ts';

const PAGE = 4096;
const MAX_VCPUS = 248;
/** Largest MEM_OP transfer. */
const MEM_OP_MAX = 65536;

export class S390xArchitecture extends CommonArchitecture {
  readonly arch = 's390x';
  override readonly littleEndian = false;
  readonly vcpuMmapSize = PAGE;
  override readonly unknownVcpuRequest = -ERRNO.ENOTTY;
  override readonly userSlots: number;
  readonly hvaLimit = 0xffff_ffff_ffff_f000n;
  protected readonly capabilities: ReadonlyMap<number, CapabilityValue>;

  constructor(release: Release) {
    super(release, PAGE);
    this.userSlots = release.since(6, 14) ? 32766 : 32767;
    this.capabilities = new Map<number, CapabilityValue>([
      ...commonCapabilities(release),
      [CAP.NR_VCPUS, 1],
      [CAP.MAX_VCPUS, MAX_VCPUS],
      [CAP.MAX_VCPU_ID, MAX_VCPUS],
      [CAP.NR_MEMSLOTS, this.userSlots],
      [CAP.MP_STATE, 1],
      [CAP.ENABLE_CAP, 1],
      [CAP.SYNC_REGS, 1],
      [CAP.IRQFD, 1],
      [CAP.S390_GMAP, 1],
      [CAP.S390_IRQCHIP, 1],
      [CAP.S390_MEM_OP, MEM_OP_MAX],
      [CAP.S390_SKEYS, 1],
      [CAP.S390_CMMA_MIGRATION, 1],
      [CAP.S390_MEM_OP_EXTENSION, release.since(6, 3) ? 3 : release.since(5, 18) ? 1 : 0],
      [CAP.S390_KEYOP, release.since(7, 0) ? 1 : 0],
    ]);
  }

  override memslotRules(_vm: EmulatedVm): readonly Rule<MemslotContext>[] {
    return s390xMemslotRules(() => 1n << 63n);
  }

  override checkVcpuId(vm: EmulatedVm, id: bigint): number {
    if (id >= BigInt(MAX_VCPUS)) return -ERRNO.EINVAL;
    return super.checkVcpuId(vm, id);
  }
}
