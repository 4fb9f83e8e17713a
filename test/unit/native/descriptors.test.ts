import { closeSync, fstatSync, openSync, readFileSync, readlinkSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { CAP, ERRNO, requestNumber } from '../../../lib/raw.ts';
import { anonymous, PAGE, RW, realKvm, runChild } from './real.ts';

const O_CLOEXEC = 0o2000000;

function isCloseOnExec(fd: number): boolean {
  const flags = /^flags:\s+(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
  return (Number.parseInt(flags ?? '0', 8) & O_CLOEXEC) !== 0;
}

describe('descriptors', () => {
  it('of somebody else are refused, and stay open', (test) => {
    const calls = realKvm(test);
    const foreign = openSync('/dev/kvm', 'r+');
    for (const fd of [foreign, 0, 1, 2, -1, 2 ** 31 - 1]) {
      expect(calls.getApiVersion(fd, 0)).toBe(-ERRNO.EBADF);
      expect(calls.close(fd)).toBe(-ERRNO.EBADF);
      expect(calls.write(fd, new Uint8Array(8))).toBe(-ERRNO.EBADF);
      expect(calls.kick(fd)).toBe(-ERRNO.EBADF);
    }
    expect(fstatSync(foreign).isCharacterDevice()).toBe(true);
    closeSync(foreign);
  });

  it('of the wrong kind get the answer of the kernel', (test) => {
    const calls = realKvm(test);
    const kvm = calls.openKvm();
    const vm = calls.createVm(kvm, 0);
    const event = calls.eventfd(0);
    expect(calls.createVcpu(kvm, 0)).toBe(-ERRNO.EINVAL);
    expect(calls.createVm(vm, 0)).toBe(-ERRNO.ENOTTY);
    expect(calls.run(vm, 0)).toBe(-ERRNO.ENOTTY);
    expect(calls.kick(vm)).toBe(-ERRNO.ENOTTY);
    expect(calls.setUserMemoryRegion(event, 0, 0, 0, 0, 0)).toBe(-ERRNO.ENOTTY);
    for (const fd of [event, vm, kvm]) expect(calls.close(fd)).toBe(0);
  });

  it('are closed on exec', (test) => {
    const calls = realKvm(test);
    const kvm = calls.openKvm();
    const vm = calls.createVm(kvm, 0);
    const fds = [kvm, vm, calls.createVcpu(vm, 0), calls.eventfd(1), calls.memfdCreate('x', PAGE, 0)];
    expect(fds.map(isCloseOnExec)).toEqual(fds.map(() => true));
    for (const fd of fds) calls.close(fd);
  });

  it('that ioctlUnchecked returns are ours', (test) => {
    const calls = realKvm(test);
    const kvm = calls.openKvm();
    const vm = calls.ioctlUnchecked(kvm, requestNumber('KVM_CREATE_VM', calls.arch), 0);
    expect(readlinkSync(`/proc/self/fd/${vm}`)).toBe('anon_inode:kvm-vm');
    const vcpu = calls.ioctlUnchecked(vm, requestNumber('KVM_CREATE_VCPU', calls.arch), 0);
    expect(calls.kick(vcpu)).toBe(0);
    expect(calls.ioctlUnchecked(vcpu, requestNumber('KVM_RUN', calls.arch), 0)).toBe(-ERRNO.EINTR);
    for (const fd of [vcpu, vm, kvm]) expect(calls.close(fd)).toBe(0);
    expect(calls.close(vm)).toBe(-ERRNO.EBADF);
  });

  it('do not accumulate over open and close, nor does memory', (test) => {
    if (realKvm(test).arch !== 'x86_64') test.skip('the guest is machine code for x86_64');
    // 10,000 cycles take minutes where creating a VM is slow; each one's smallest mapping is 64 KiB.
    const child = runChild('cycles', ['240'], ['--expose-gc']);
    expect(child).toMatchObject({ status: 0, signal: null, stderr: '' });
    const { before, after } = JSON.parse(child.stdout) as Record<'before' | 'after', Record<string, number>>;
    expect(after.descriptors).toBe(before.descriptors);
    expect(after.mappings).toBeLessThan(before.mappings! + 20);
    expect(after.rss).toBeLessThan(before.rss! + 8 * 2 ** 20);
  });

  it('at the limit of RLIMIT_NOFILE give EMFILE, and nothing is lost', (test) => {
    realKvm(test);
    const child = runChild('descriptor-limit');
    expect(child).toMatchObject({ status: 0, signal: null, stderr: '' });
  });
});

describe('eventfd', () => {
  it('counts, and never blocks', (test) => {
    const calls = realKvm(test);
    const fd = calls.eventfd(3);
    const counter = new BigUint64Array(1);
    const bytes = new Uint8Array(counter.buffer);
    expect(calls.read(fd, bytes)).toBe(8);
    expect(counter[0]).toBe(3n);
    expect(calls.read(fd, bytes)).toBe(-ERRNO.EAGAIN);
    expect(calls.write(fd, bytes)).toBe(8);
    expect(calls.read(fd, new Uint8Array(4))).toBe(-ERRNO.EINVAL);
    calls.close(fd);
  });
});

describe('memory that the kernel finds too short', () => {
  it('is EFAULT in its own order of checks, and what lies behind stays as it was', (test) => {
    const calls = realKvm(test);
    const kvm = calls.openKvm();
    const vm = calls.createVm(kvm, 0);
    const pages = 256;
    const hva = anonymous(calls, pages * PAGE);
    expect(calls.setUserMemoryRegion(vm, 0, 1, 0, pages * PAGE, hva)).toBe(0);
    const buffer = new Uint8Array(64).fill(0xa5);
    expect(calls.getDirtyLog(vm, 0, buffer.subarray(0, 31))).toBe(-ERRNO.EFAULT);
    expect(buffer.subarray(31).every((byte) => byte === 0xa5)).toBe(true);
    expect(calls.getDirtyLog(vm, 0, buffer.subarray(0, 32))).toBe(0);
    expect(buffer.subarray(0, 32).every((byte) => byte === 0)).toBe(true);
    expect(buffer.subarray(32).every((byte) => byte === 0xa5)).toBe(true);
    expect(calls.getDirtyLog(vm, 0, null)).toBe(-ERRNO.EFAULT);
    expect(calls.getDirtyLog(vm, 1, null)).toBe(-ERRNO.ENOENT);
    // Memory of our own is no different, unless it ends where the mapping ends.
    const own = anonymous(calls, PAGE);
    const bytes = new Uint8Array(calls.view(own, PAGE) as ArrayBuffer).fill(0xa5);
    expect(calls.getDirtyLog(vm, 0, bytes.subarray(0, 8))).toBe(-ERRNO.EFAULT);
    expect(bytes.subarray(8, 64).every((byte) => byte === 0xa5)).toBe(true);
    expect(calls.getDirtyLog(vm, 0, bytes.subarray(PAGE - 8))).toBe(-ERRNO.EFAULT);
    expect(calls.getDirtyLog(vm, 0, bytes.subarray(PAGE - 32))).toBe(0);
    expect(bytes[PAGE - 33]).toBe(0xa5);
    expect(bytes.subarray(PAGE - 32).every((byte) => byte === 0)).toBe(true);
    if (calls.checkExtension(vm, CAP.MANUAL_DIRTY_LOG_PROTECT2) !== 0) {
      expect(calls.clearDirtyLog(vm, 0, 0, pages, new Uint8Array(31))).toBe(-ERRNO.EFAULT);
      expect(calls.clearDirtyLog(vm, 0, 1, pages, new Uint8Array(31))).toBe(-ERRNO.EINVAL);
      expect(calls.clearDirtyLog(vm, 0, 0, pages, new Uint8Array(32))).toBe(0);
    }
    for (const fd of [vm, kvm]) calls.close(fd);
    calls.munmap(own, PAGE);
    calls.munmap(hva, pages * PAGE);
  });

  it('of a register structure or an escape-hatch ioctl too', (test) => {
    const calls = realKvm(test);
    const kvm = calls.openKvm();
    const vm = calls.createVm(kvm, 0);
    const region = requestNumber('KVM_SET_USER_MEMORY_REGION', calls.arch);
    expect(calls.ioctlUnchecked(vm, region, new Uint8Array(31))).toBe(-ERRNO.EFAULT);
    expect(calls.ioctlUnchecked(vm, region, new Uint8Array(32))).toBe(-ERRNO.EINVAL);
    const vcpu = calls.createVcpu(vm, 0);
    if (calls.arch === 'x86_64') {
      expect(calls.getRegs(vcpu, new Uint8Array(143))).toBe(-ERRNO.EFAULT);
      expect(calls.getRegs(vcpu, null)).toBe(-ERRNO.EFAULT);
      expect(calls.getRegs(vcpu, new Uint8Array(144))).toBe(0);
      expect(calls.setSregs(vcpu, new Uint8Array(311))).toBe(-ERRNO.EFAULT);
    }
    for (const fd of [vcpu, vm, kvm]) calls.close(fd);
  });

  it('is the same on a large scale', (test) => {
    const calls = realKvm(test);
    const kvm = calls.openKvm();
    const vm = calls.createVm(kvm, 0);
    const length = 2 ** 36;
    const hva = calls.mmap(length, RW, 0x4022, -1, 0, 0, 0);
    expect(calls.setUserMemoryRegion(vm, 0, 1, 0, length, hva)).toBe(0);
    const bitmapBytes = length / PAGE / 8;
    expect(calls.getDirtyLog(vm, 0, new Uint8Array(bitmapBytes - 1))).toBe(-ERRNO.EFAULT);
    expect(calls.getDirtyLog(vm, 0, new Uint8Array(bitmapBytes))).toBe(0);
    for (const fd of [vm, kvm]) calls.close(fd);
    calls.munmap(hva, length);
  });
});
