import { type CapabilityValue, CommonArchitecture, commonCapabilities } from '../../../emulated/common.ts';
import type { Release } from '../../../emulated/release.ts';
import type { EmulatedVm } from '../../../emulated/vm.ts';
import { CAP } from '../../../uapi/capabilities.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { DIRTY_LOG } from '../../../uapi/flags.ts';

const PAGE = 4096;
const MAX_VCPUS = 512;
const MAX_DIRTY_RING_BYTES = 0x10_0000;

/** The generic memory side of aarch64: read-only slots, dirty logs with manual protect, rings with a bitmap. */
export class Aarch64Architecture extends CommonArchitecture {
  readonly arch = 'aarch64';
  readonly vcpuMmapSize = 2 * PAGE;
  override readonly coalescedMmioPage = 1;
  override readonly manualProtect = DIRTY_LOG.MANUAL_PROTECT_ENABLE | DIRTY_LOG.INITIALLY_SET;
  override readonly readonlyMem = true;
  readonly hvaLimit = 0x1_0000_0000_0000n;
  override readonly unknownVmRequest = -ERRNO.EINVAL;
  protected readonly capabilities: ReadonlyMap<number, CapabilityValue>;

  constructor(release: Release) {
    super(release, PAGE);
    const ring = release.since(6, 2);
    this.capabilities = new Map<number, CapabilityValue>([
      ...commonCapabilities(release),
      [CAP.NR_VCPUS, 1],
      [CAP.MAX_VCPUS, MAX_VCPUS],
      [CAP.MAX_VCPU_ID, MAX_VCPUS],
      [CAP.NR_MEMSLOTS, this.userSlots],
      [CAP.MP_STATE, 1],
      [CAP.COALESCED_MMIO, this.coalescedMmioPage],
      [CAP.COALESCED_PIO, 1],
      [CAP.IRQFD, 1],
      [CAP.IRQFD_RESAMPLE, 1],
      [CAP.READONLY_MEM, 1],
      [CAP.MANUAL_DIRTY_LOG_PROTECT2, this.manualProtect],
      [CAP.DIRTY_LOG_RING_ACQ_REL, ring ? MAX_DIRTY_RING_BYTES : 0],
      [CAP.DIRTY_LOG_RING_WITH_BITMAP, ring ? 1 : 0],
    ]);
  }

  override checkVcpuId(vm: EmulatedVm, id: bigint): number {
    if (id >= BigInt(MAX_VCPUS)) return -ERRNO.EINVAL;
    return super.checkVcpuId(vm, id);
  }
}
