/** Device attributes of an s390x VM: memory limit, CMMA, migration mode. */

import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import { copyOut } from '../../../emulated/user-memory.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { MEM, S390_VM_ATTRIBUTE } from '../../../uapi/flags.ts';
import { SEGMENT_SIZE } from '../model/dat-entries.ts';
import type { CmmaDirty } from './cmma-dirty.ts';
import type { PageStates } from './page-states.ts';

const [MEM_CTRL] = S390_VM_ATTRIBUTE.MEM_ENABLE_CMMA;
const [MIGRATION] = S390_VM_ATTRIBUTE.MIGRATION_START;
const attributeOf = (name: keyof typeof S390_VM_ATTRIBUTE): bigint => BigInt(S390_VM_ATTRIBUTE[name][1]);
const ENABLE_CMMA = attributeOf('MEM_ENABLE_CMMA');
const CLR_CMMA = attributeOf('MEM_CLR_CMMA');
const LIMIT_SIZE = attributeOf('MEM_LIMIT_SIZE');
const MIGRATION_STOP = attributeOf('MIGRATION_STOP');
const MIGRATION_START = attributeOf('MIGRATION_START');
const MIGRATION_STATUS = attributeOf('MIGRATION_STATUS');

/** From 7.0 on a limit is rounded up to whole ones. */
const SEGMENT = BigInt(SEGMENT_SIZE);

/** What the attributes show and change of a VM. */
interface AttributedVm {
  readonly hasVcpus: boolean;
  readonly ownsPageTables: boolean;
  limitTables(limit: bigint): number;
  /** Highest guest address + 1. */
  readonly memoryLimit: bigint;
  readonly states: PageStates;
  readonly cmmaDirty: CmmaDirty;
  cmmaEnabled: boolean;
  migrating: boolean;
  slots(): readonly EmulatedMemslot[];
}

export function setAttribute(vm: AttributedVm, group: number, attr: bigint, value: Uint8Array | null): number {
  if (group === MEM_CTRL) return setMemoryControl(vm, attr, value);
  if (group === MIGRATION) return setMigration(vm, attr);
  return -ERRNO.ENXIO;
}

function setMemoryControl(vm: AttributedVm, attr: bigint, value: Uint8Array | null): number {
  switch (attr) {
    case ENABLE_CMMA:
      if (vm.hasVcpus) return -ERRNO.EBUSY;
      vm.cmmaEnabled = true;
      return 0;
    case CLR_CMMA:
      if (!vm.cmmaEnabled) return -ERRNO.EINVAL;
      for (const slot of vm.slots()) {
        for (let i = 0; i < slot.npages; i++) vm.states.setCmma(slot, slot.baseGfn + i, 0);
      }
      return 0;
    case LIMIT_SIZE: {
      if (value === null || value.length < 8) return -ERRNO.EFAULT;
      const asked = new DataView(value.buffer, value.byteOffset, 8).getBigUint64(0);
      const limit = vm.ownsPageTables ? BigInt.asUintN(64, (asked + SEGMENT - 1n) & ~(SEGMENT - 1n)) : asked;
      if (limit > vm.memoryLimit) return -ERRNO.E2BIG;
      if (limit === 0n) return -ERRNO.EINVAL;
      // The size of the guest's own page table changes, not the limit itself.
      return vm.hasVcpus ? -ERRNO.EBUSY : vm.limitTables(limit);
    }
    default:
      return -ERRNO.ENXIO;
  }
}

function setMigration(vm: AttributedVm, attr: bigint): number {
  switch (attr) {
    case MIGRATION_STOP:
      vm.migrating = false;
      return 0;
    case MIGRATION_START: {
      if (vm.migrating) return 0;
      const slots = vm.slots();
      if (slots.length === 0) return -ERRNO.EINVAL;
      if (vm.cmmaEnabled) {
        if (slots.some((slot) => (slot.flags & MEM.LOG_DIRTY_PAGES) === 0)) return -ERRNO.EINVAL;
        vm.cmmaDirty.fill(slots, (gfn) => vm.states.keepsCmma(gfn));
      }
      vm.migrating = true;
      return 0;
    }
    default:
      return -ERRNO.ENXIO;
  }
}

export function getAttribute(vm: AttributedVm, group: number, attr: bigint, value: Uint8Array | null): number {
  if (group === MEM_CTRL && attr === LIMIT_SIZE) return copyOut(u64(vm.memoryLimit), value);
  if (group === MIGRATION && attr === MIGRATION_STATUS) return copyOut(u64(vm.migrating ? 1n : 0n), value);
  return -ERRNO.ENXIO;
}

export function hasAttribute(group: number, attr: bigint): number {
  // Attributes of the migration group are not looked at.
  const known = group === MEM_CTRL ? attr <= LIMIT_SIZE : group === MIGRATION;
  return known ? 0 : -ERRNO.ENXIO;
}

/** User space's integers are big-endian on s390x. */
function u64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value);
  return bytes;
}
