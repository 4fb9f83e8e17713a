/** What only one architecture has, before and after the guest of the tour runs there. */

import { primaryGroup } from '../../arch/ppc64/model/hash.ts';
import { encodeHpte, HPTES_PER_GROUP } from '../../arch/ppc64/model/hpte.ts';
import { Htab } from '../../arch/ppc64/model/htab.ts';
import { htabStats } from '../../arch/ppc64/model/htab-report.ts';
import { VRMA_VSID, vrmaSegment } from '../../arch/ppc64/model/slb.ts';
import { hex, ProgramInterruption } from '../../base/errors.ts';
import type { Vcpu } from '../../handles/vcpu.ts';
import type { Vm } from '../../handles/vm.ts';
import { KVM_RUN_S390X } from '../../uapi/structs.ts';
import { DEVICE_GPA, RAM_SIZE, RESULTS } from './guest.ts';

/** Something done to the VM before the run, and what it shows after it. */
export interface ArchPart {
  report(): string;
}

/** What only the VM's architecture has, made ready. */
export function prepareArchPart(vm: Vm, vcpu: Vcpu): ArchPart | undefined {
  switch (vm.kvm.arch) {
    case 's390x':
      return useStorageKeys(vm, vcpu);
    case 'ppc64':
      return useHashPageTable(vm, vcpu);
    default:
      return undefined;
  }
}

const ORDER = 18;
const HPTE_PAGE = 0x1000;

/** Lets a ppc64 guest's real-mode accesses go through a hashed page table, with an entry for each page it names. */
function useHashPageTable(vm: Vm, vcpu: Vcpu): ArchPart {
  vcpu.ppc64.enablePapr();
  vm.hpt.allocate(ORDER);
  const table = new Htab(ORDER);
  const segment = vrmaSegment();
  const map = (ra: number): void => {
    let slot = primaryGroup(segment, ra, ORDER) * HPTES_PER_GROUP;
    while (table.isValid(slot)) slot++;
    table.set(slot, encodeHpte({ vsid: VRMA_VSID, segmentSize: '1T', offset: ra, ra, bolted: true }));
  };
  for (let ra = 0; ra < RAM_SIZE; ra += HPTE_PAGE) map(ra);
  map(DEVICE_GPA);
  vm.hpt.write(table);
  const entries = htabStats(table).valid;
  return {
    report() {
      const { valid, referenced, changed } = htabStats(vm.hpt.read());
      return `the guest ran on a hashed page table of order ${ORDER}. Of ${entries} entries written through its descriptor, ${valid} came back, ${referenced} of them referenced and ${changed} changed.`;
    },
  };
}

/** 64-bit addressing without translation: a fresh vCPU has 24-bit addresses, which wrap. */
const PSW_MASK = 0x1_8000_0000n;
const FRAME = 0x1000;

/** Access keys: the one that the result's frame is given to, and another. */
const OWNER = 5;
const STRANGER = 4;

/** Prepares an s390x vCPU; after the run, protects the frame of a result with a storage key. */
function useStorageKeys(vm: Vm, vcpu: Vcpu): ArchPart {
  vcpu.kvmRun.view.setBigUint64(KVM_RUN_S390X.psw_mask, PSW_MASK);
  const [, { gpa, size }] = RESULTS;
  const gfn = Math.floor(gpa / FRAME);
  const read = (at: number, key: number): string => {
    try {
      return `0x${Buffer.from(vm.memOp.readAbsolute(at, size, { key })).toString('hex')}`;
    } catch (error) {
      if (!(error instanceof ProgramInterruption)) throw error;
      return `${error.title} ${hex(error.code)}`;
    }
  };
  return {
    report() {
      // Up to kernel 6.19 a page that was never touched has no place for a key; the first access gives it one.
      const before = read(gpa, 0);
      vm.storageKeys.set(gfn, [{ acc: OWNER, fetchProtection: true, reference: false, change: false }]);
      const allowed = read(gpa, OWNER);
      const refused = read(gpa, STRANGER);
      const key = vm.storageKeys.get(gfn, 1)?.[0];
      const protection = key?.fetchProtection === true ? 'fetch-protected' : 'open to fetches';
      return `MEM_OP at ${hex(gpa)}: ${before}. Once frame ${gfn} has a storage key for access key ${key?.acc}, ${protection}: ${allowed} with key ${OWNER}, ${refused} with key ${STRANGER}. At ${hex(RAM_SIZE)}: ${read(RAM_SIZE, OWNER)}.`;
    },
  };
}
