/** What only one architecture has, before and after the guest of the tour runs there. */

import type { Ppc64Calls, S390xCalls } from '../../calls/kvm-calls.ts';
import { hex, KvmError } from '../../errors.ts';
import { primaryGroup } from '../../ppc64/hash.ts';
import { encodeHpte, HPTES_PER_GROUP } from '../../ppc64/hpte.ts';
import { Htab } from '../../ppc64/htab.ts';
import { htabStats } from '../../ppc64/htab-report.ts';
import { decodeHtabStream, encodeHtabStream } from '../../ppc64/htab-stream.ts';
import { VRMA_VSID, vrmaSegment } from '../../ppc64/slb.ts';
import { programInterruptionName } from '../../s390x/program-interruption.ts';
import { decodeStorageKey, encodeStorageKey } from '../../s390x/storage-key.ts';
import { CAP } from '../../uapi/capabilities.ts';
import { HTAB, MEMOP, MEMOP_FLAG } from '../../uapi/flags.ts';
import { KVM_RUN_S390X, REGS_SIZE } from '../../uapi/structs.ts';
import type { Vcpu } from '../../vcpu.ts';
import type { Vm } from '../../vm.ts';
import { RAM_SIZE, RESULTS } from './guest.ts';

/** Something done to the VM before the run, and what it shows after it. */
export interface Own {
  report(): string;
}

const ORDER = 18;
const HPTE_PAGE = 0x1000;
const STREAM_BYTES = 0x1_0000;

/** Lets a ppc64 guest's real-mode accesses go through a hashed page table, with an entry for each page it names. */
export function useHashPageTable(vm: Vm, vcpu: Vcpu, calls: Ppc64Calls, deviceGpa: number): Own {
  vcpu.enableCap(CAP.PPC_PAPR);
  succeed(calls.allocateHtab(vm.fd, ORDER), 'KVM_PPC_ALLOCATE_HTAB');
  const table = new Htab(ORDER);
  const segment = vrmaSegment();
  const map = (ra: number): void => {
    const first = primaryGroup(segment, ra, ORDER) * HPTES_PER_GROUP;
    let slot = first;
    while (table.isValid(slot)) slot++;
    table.set(slot, encodeHpte({ vsid: VRMA_VSID, segmentSize: '1T', offset: ra, ra, bolted: true }));
  };
  for (let ra = 0; ra < RAM_SIZE; ra += HPTE_PAGE) map(ra);
  map(deviceGpa);
  const writer = succeed(calls.getHtabFd(vm.fd, HTAB.WRITE, 0), 'KVM_PPC_GET_HTAB_FD');
  let entries = 0;
  for (let slot = 0; slot < table.entryCount; slot++) {
    if (!table.isValid(slot)) continue;
    // One chunk for each write is what kernels take correctly.
    succeed(vm.calls.write(writer, encodeHtabStream(table, { from: slot, to: slot + 1 })), 'write');
    entries++;
  }
  vm.calls.close(writer);
  return {
    report() {
      const reader = succeed(calls.getHtabFd(vm.fd, 0, 0), 'KVM_PPC_GET_HTAB_FD');
      const stream = new Uint8Array(STREAM_BYTES);
      const length = succeed(vm.calls.read(reader, stream), 'read');
      vm.calls.close(reader);
      const { valid, referenced, changed } = htabStats(decodeHtabStream(stream.subarray(0, length), { order: ORDER }));
      return `the guest ran on a hashed page table of order ${ORDER}. Of ${entries} entries written through its descriptor, ${valid} came back, ${referenced} of them referenced and ${changed} changed.`;
    },
  };
}

/** `struct kvm_regs`: pc and msr. */
const REGS_PC = 0;
const REGS_MSR = 40;
/** 64-bit, little-endian, real mode. */
const MSR_SF_LE = 0x8000_0000_0000_0001n;

/** Makes a ppc64 vCPU start at an address in real mode. */
export function startPpc64(vcpu: Vcpu, pc: number): void {
  const regs = vcpu.getRegsBytes(REGS_SIZE.ppc64.regs ?? 0);
  const view = new DataView(regs.buffer);
  view.setBigUint64(REGS_PC, BigInt(pc), true);
  view.setBigUint64(REGS_MSR, MSR_SF_LE, true);
  vcpu.setRegsBytes(regs);
}

/** 64-bit addressing without translation: a fresh vCPU has 24-bit addresses, which wrap. */
const PSW_MASK = 0x1_8000_0000n;
const FRAME = 0x1000;

/** Access keys: the one that the result's frame is given to, and another. */
const OWNER = 5;
const STRANGER = 4;

/** Prepares an s390x vCPU; after the run, protects the frame of a result with a storage key. */
export function useStorageKeys(vm: Vm, vcpu: Vcpu, calls: S390xCalls): Own {
  vcpu.kvmRun.view.setBigUint64(KVM_RUN_S390X.psw_mask, PSW_MASK);
  const [, { gpa, size }] = RESULTS;
  const gfn = Math.floor(gpa / FRAME);
  const read = (at: number, accessKey: number): string => memOp(vm, calls, at, size, accessKey);
  return {
    report() {
      // Up to kernel 6.19 a page that was never touched has no place for a key; the first access gives it one.
      const before = read(gpa, 0);
      const key = { acc: OWNER, fetchProtection: true, reference: false, change: false };
      const keys = Uint8Array.of(encodeStorageKey(key));
      succeed(calls.setSkeys(vm.fd, gfn, 1, 0, keys), 'KVM_S390_SET_SKEYS');
      const allowed = read(gpa, OWNER);
      const refused = read(gpa, STRANGER);
      succeed(calls.getSkeys(vm.fd, gfn, 1, 0, keys.fill(0)), 'KVM_S390_GET_SKEYS');
      const { acc, fetchProtection } = decodeStorageKey(keys[0]!);
      const protection = fetchProtection ? 'fetch-protected' : 'open to fetches';
      return `MEM_OP at ${hex(gpa)}: ${before}. Once frame ${gfn} has a storage key for access key ${acc}, ${protection}: ${allowed} with key ${OWNER}, ${refused} with key ${STRANGER}. At ${hex(RAM_SIZE)}: ${read(RAM_SIZE, OWNER)}.`;
    },
  };
}

/** What an absolute KVM_S390_MEM_OP reads, or the program interruption that it would be. */
function memOp(vm: Vm, calls: S390xCalls, gpa: number, size: number, accessKey: number): string {
  const bytes = Buffer.alloc(size);
  const code = calls.memOp(vm.fd, MEMOP.ABSOLUTE_READ, gpa, size, MEMOP_FLAG.SKEY, bytes, 0, accessKey, null, 0);
  succeed(code, 'KVM_S390_MEM_OP');
  return code === 0 ? `0x${bytes.toString('hex')}` : `${programInterruptionName(code)} exception ${hex(code)}`;
}

function succeed(result: number, request: string): number {
  if (result < 0) throw new KvmError(result, { syscall: request.startsWith('KVM_') ? `ioctl(${request})` : request });
  return result;
}
