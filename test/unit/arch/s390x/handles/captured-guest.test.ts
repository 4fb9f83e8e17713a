/** A captured Linux guest loaded into the emulated kernel: its memory read through its own page tables by MEM_OP. */

import { afterAll, describe, expect, it } from 'vitest';
import { addressSpaceRanges, Kvm, ProgramInterruption } from '../../../../../lib/index.ts';
import { KVM_RUN_S390X, KVM_SYNC } from '../../../../../lib/raw.ts';
import { CAPTURES, captureDirectories, loadCapture } from '../../../../captures/s390x.ts';

const HOME_64 = 0x0400_c001_8000_0000n;
const SECONDARY_64 = 0x0400_8001_8000_0000n;

/** Ranges without what divides them. */
function joined(ranges: readonly { va: bigint; length: bigint }[]): { va: bigint; length: bigint }[] {
  const all: { va: bigint; length: bigint }[] = [];
  for (const range of ranges) {
    const last = all.at(-1);
    if (last !== undefined && last.va + last.length === range.va) last.length += range.length;
    else all.push({ ...range });
  }
  return all;
}

describe.each(CAPTURES.flatMap(captureDirectories))('the guest of %s', (directory) => {
  const capture = loadCapture(directory);
  const { json } = capture;
  const kvm = Kvm.open({ backend: 'emulated', arch: 's390x' });
  const vm = kvm.createVm();
  const vcpu = vm.createVcpu();
  afterAll(() => {
    vm.close();
    kvm.close();
  });

  /** With no memory behind the prefix, KVM_RUN takes the registers and gives EFAULT. */
  const latch = (mask: bigint, asce?: bigint, prefix = json.cpus[0]!.prefix) => {
    const run = vcpu.kvmRun.view;
    run.setBigUint64(KVM_RUN_S390X.psw_mask, mask);
    run.setBigUint64(KVM_RUN_S390X.s, BigInt(prefix));
    for (const [n, value] of json.cpus[0]!.cr.entries()) run.setBigUint64(KVM_RUN_S390X.crs + 8 * n, BigInt(value));
    if (asce !== undefined) run.setBigUint64(KVM_RUN_S390X.crs + 8 * 7, asce);
    run.setBigUint64(KVM_RUN_S390X.kvm_dirty_regs, BigInt(KVM_SYNC.PREFIX | KVM_SYNC.CRS));
    kvm.calls.run(vcpu.fd, 0);
  };
  latch(HOME_64);
  vm.memory.addRam(0, kvm.mapAnonymous(Number(BigInt(json.memory))));
  for (const [pfn, bytes] of capture.frames) vm.memory.write(pfn * 4096, bytes);

  it('prints the banner of its kernel', () => {
    const { va, text } = json.linux_banner;
    const banner = Buffer.from(vcpu.memOp.read(BigInt(va), text.length, { key: 0 })).toString('latin1');
    expect(banner).toBe(text);
    expect(banner).toMatch(/^Linux version 6\.12/);
  });

  it('gives the bytes and the interruptions that an independent MMU gave', () => {
    let reads = 0;
    let interruptions = 0;
    // The emulated machine has EDAT-2; tables that were constructed for one without it mean something else there.
    const spaces = json.asces.filter(({ kind }) => kind === 'live' || json.edat2).map(({ asce }) => asce);
    for (const space of new Set(spaces)) {
      for (const cpu of json.cpus.keys()) {
        const entries = json.oracle.filter((e) => e.asce === space && e.cpu === cpu && e.access === 'read');
        if (entries.length === 0) continue;
        latch(SECONDARY_64, BigInt(space), json.cpus[cpu]!.prefix);
        for (const { va, result, bytes } of entries) {
          if (result.code === undefined && bytes !== undefined) {
            const found = Buffer.from(vcpu.memOp.read(BigInt(va), bytes.length / 2, { key: 0 })).toString('hex');
            expect(found, `${space} ${va}`).toBe(bytes);
            reads++;
          } else if (result.code !== undefined && interruptions++ < 200) {
            const check = vcpu.memOp.check(BigInt(va), 1, 'fetch', { key: 0 });
            if (check.permitted) throw new Error(`${space} ${va} is permitted`);
            expect(check.interruption).toBeInstanceOf(ProgramInterruption);
            expect(check.interruption.code, `${space} ${va}`).toBe(Number(result.code));
          }
        }
      }
    }
    expect(reads).toBeGreaterThan(100);
    expect(interruptions).toBeGreaterThan(100);
  });

  it('lists its kernel space as the capture has it', () => {
    latch(HOME_64);
    const kernel = json.asces.find((space) => BigInt(space.asce) === BigInt(json.cpus[0]!.cr[13]!));
    expect(kernel).toBeInstanceOf(Object);
    const facilities = capture.facilities;
    const ranges = [...addressSpaceRanges(vcpu, { facilities })].map(({ va, length }) => ({ va, length }));
    const captured = json.ranges[kernel!.space]!.map(({ va, len }) => ({ va: BigInt(va), length: BigInt(len) }));
    // The capture's addresses are without the prefix, which divides a range but maps no more.
    expect(joined(ranges)).toEqual(joined(captured));
  });
});
