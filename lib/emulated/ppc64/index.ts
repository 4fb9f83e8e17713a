import { CAP } from '../../uapi/capabilities.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { type CapabilityValue, CommonArchitecture, commonCapabilities } from '../common.ts';
import type { Release } from '../release.ts';
import type { EmulatedVm } from '../vm.ts';

const MAX_VCPUS = 2048;
const HV = 1n;

export class Ppc64Architecture extends CommonArchitecture {
  readonly arch = 'ppc64';
  readonly vcpuMmapSize: number;
  override readonly coalescedMmioPage = 1;
  readonly hvaLimit = 0x10_0000_0000_0000n;
  override readonly irqfdWithoutIrqchip = -ERRNO.EAGAIN;
  protected readonly capabilities: ReadonlyMap<number, CapabilityValue>;

  constructor(release: Release, pageSize: number) {
    super(release, pageSize);
    this.vcpuMmapSize = pageSize;
    this.capabilities = new Map<number, CapabilityValue>([
      ...commonCapabilities(release),
      [CAP.NR_VCPUS, 1],
      [CAP.MAX_VCPUS, MAX_VCPUS],
      [CAP.MAX_VCPU_ID, MAX_VCPUS * 8],
      [CAP.NR_MEMSLOTS, this.userSlots],
      [CAP.MP_STATE, 0],
      [CAP.ENABLE_CAP, 1],
      [CAP.COALESCED_MMIO, this.coalescedMmioPage],
      [CAP.COALESCED_PIO, 1],
      [CAP.PPC_PAPR, 1],
      [CAP.PPC_GET_SMMU_INFO, 1],
      [CAP.PPC_ALLOC_HTAB, 1],
      [CAP.PPC_HTAB_FD, 1],
      [CAP.SPAPR_RESIZE_HPT, 1],
    ]);
  }

  override checkVmType(type: bigint): number {
    return type === 0n || type === HV ? 0 : -ERRNO.EINVAL;
  }

  override checkVcpuId(vm: EmulatedVm, id: bigint): number {
    if (id >= BigInt(MAX_VCPUS)) return -ERRNO.EINVAL;
    return super.checkVcpuId(vm, id);
  }
}
