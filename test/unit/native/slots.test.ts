import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ERRNO, requestNumber } from '../../../lib/raw.ts';
import { anonymous, PAGE, realKvm } from './real.ts';

const SIZE = 16 * PAGE;
const FIGETBSZ = 2;

/** What the process has at an address: `rw-p`; undefined where there is nothing. */
function protectionAt(hva: number): string | undefined {
  for (const line of readFileSync('/proc/self/maps', 'utf8').split('\n')) {
    const [, start, end, protection] = /^([0-9a-f]+)-([0-9a-f]+) (\S+)/.exec(line) ?? [];
    if (start && end && hva >= Number.parseInt(start, 16) && hva < Number.parseInt(end, 16)) return protection;
  }
  return undefined;
}

/** Memory of the process that is none of ours: its stack, which is there under sanitizers too. */
function stack(): number {
  const [, start = '0'] =
    /^([0-9a-f]+)-[0-9a-f]+ rw-p .*\[stack\]$/m.exec(readFileSync('/proc/self/maps', 'utf8')) ?? [];
  return Number.parseInt(start, 16);
}

describe('the addresses under a memslot', () => {
  it('stay taken when the memory is unmapped, without any access, until the slot or the VM goes', (test) => {
    const calls = realKvm(test);
    const kvm = calls.openKvm();
    for (const end of ['delete', 'close', 'close, then the vCPU'] as const) {
      const vm = calls.createVm(kvm, 0);
      const vcpu = calls.createVcpu(vm, 0);
      const hva = anonymous(calls, SIZE);
      expect(calls.setUserMemoryRegion(vm, 7, 0, 0, SIZE, hva)).toBe(0);
      expect(calls.munmap(hva, SIZE)).toBe(0);
      expect(calls.readMemory(hva, new Uint8Array(1))).toBe(-ERRNO.EFAULT);
      expect(protectionAt(hva)).toBe('---p');
      const others = Array.from({ length: 20 }, () => anonymous(calls, SIZE));
      expect(others.every((other) => other >= hva + SIZE || other + SIZE <= hva)).toBe(true);
      // The slot is still the kernel's, and may be moved.
      expect(calls.setUserMemoryRegion(vm, 7, 0, 0x100_0000, SIZE, hva)).toBe(0);
      expect(protectionAt(hva)).toBe('---p');
      if (end === 'delete') expect(calls.setUserMemoryRegion(vm, 7, 0, 0, 0, 0)).toBe(0);
      calls.close(vm);
      if (end === 'close, then the vCPU') expect(protectionAt(hva)).toBe('---p');
      calls.close(vcpu);
      for (const other of others) calls.munmap(other, SIZE);
      expect(protectionAt(hva)).toBe(undefined);
    }
    calls.close(kvm);
  });

  it("are not those of the process's own memory, whichever call says so", (test) => {
    const calls = realKvm(test);
    const kvm = calls.openKvm();
    const vm = calls.createVm(kvm, 0);
    const own = anonymous(calls, SIZE);
    for (const hva of [stack(), own + SIZE - PAGE]) {
      expect(hva).toBeGreaterThan(0);
      expect(calls.setUserMemoryRegion(vm, 0, 0, 0, 2 * PAGE, hva)).toBe(-ERRNO.EPERM);
      const region = new DataView(new ArrayBuffer(32));
      region.setBigUint64(16, BigInt(2 * PAGE), true);
      region.setBigUint64(24, BigInt(hva), true);
      const request = requestNumber('KVM_SET_USER_MEMORY_REGION', calls.arch);
      const structure = new Uint8Array(region.buffer);
      const asGiven = structure.slice();
      expect(calls.ioctlUnchecked(vm, request, structure)).toBe(-ERRNO.EPERM);
      expect(structure).toEqual(asGiven);
    }
    // What else is wrong is for the kernel to say, and nothing is left behind.
    expect(calls.setUserMemoryRegion(vm, 0, 0x8000_0000, 0, PAGE, stack())).toBe(-ERRNO.EINVAL);
    expect(calls.setUserMemoryRegion(vm, 0, 0, 0, 0, 0)).toBe(-ERRNO.EINVAL);
    expect(calls.setUserMemoryRegion(vm, 0, 0, 0, SIZE, own)).toBe(0);
    for (const fd of [vm, kvm]) calls.close(fd);
    calls.munmap(own, SIZE);
  });
});

describe('ioctlUnchecked', () => {
  it('takes no number for an address', (test) => {
    const calls = realKvm(test);
    const hva = anonymous(calls, PAGE);
    const memfd = calls.memfdCreate('x', PAGE, 0);
    expect(calls.ioctlUnchecked(memfd, FIGETBSZ, hva)).toBe(-ERRNO.EFAULT);
    const bytes = new Uint8Array(4);
    calls.readMemory(hva, bytes);
    expect([...bytes]).toEqual([0, 0, 0, 0]);
    expect(calls.ioctlUnchecked(memfd, FIGETBSZ, bytes)).toBe(0);
    expect(new DataView(bytes.buffer).getUint32(0, true)).toBeGreaterThanOrEqual(512);
    calls.close(memfd);
    calls.munmap(hva, PAGE);
  });
});
