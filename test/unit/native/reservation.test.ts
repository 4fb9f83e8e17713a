import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { KvmCalls } from '../../../lib/raw.ts';
import { ERRNO, MADV, MAP, PROT } from '../../../lib/raw.ts';
import { ANONYMOUS, addon, PAGE, RW, runChild } from './real.ts';

const HUGE = 0x20_0000;
const MFD_HUGETLB = 4;

const reserve = (calls: KvmCalls, length: number, align = 0): number =>
  calls.mmap(length, PROT.NONE, ANONYMOUS | MAP.NORESERVE, -1, 0, align, 0);
const put = (calls: KvmCalls, hva: number, length: number, prot: number = RW): number =>
  calls.mmapFixed(hva, length, prot, ANONYMOUS, -1, 0);
const first = (calls: KvmCalls, hva: number): number => {
  const byte = new Uint8Array(1);
  const read = calls.readMemory(hva, byte);
  return read === 1 ? byte[0]! : read;
};
const mapsOf = (): number => readFileSync('/proc/self/maps', 'utf8').split('\n').length;

describe('a reservation', () => {
  it('has no memory until some is put in, and again when that is taken out', (test) => {
    const calls = addon(test);
    const hva = reserve(calls, 4 * PAGE);
    expect(first(calls, hva)).toBe(-ERRNO.EFAULT);
    expect(calls.mprotect(hva, PAGE, RW)).toBe(-ERRNO.ENOMEM);
    expect(calls.madvise(hva, PAGE, MADV.DONTNEED)).toBe(-ERRNO.ENOMEM);
    expect(put(calls, hva + PAGE, 2 * PAGE)).toBe(0);
    expect(calls.writeMemory(hva + PAGE, new Uint8Array(4 * PAGE).fill(5))).toBe(2 * PAGE);
    expect(put(calls, hva + PAGE, PAGE, PROT.NONE)).toBe(0);
    expect([hva, hva + PAGE, hva + 2 * PAGE].map((at) => first(calls, at))).toEqual([-ERRNO.EFAULT, -ERRNO.EFAULT, 5]);
    expect(calls.mprotect(hva + 2 * PAGE, PAGE, PROT.READ)).toBe(0);
    expect(calls.writeMemory(hva + 2 * PAGE, Uint8Array.of(1))).toBe(-ERRNO.EFAULT);
    expect(calls.munmap(hva, 4 * PAGE)).toBe(0);
  });

  it('stays when all of it was taken out or unmapped in parts, and goes as a whole', (test) => {
    const calls = addon(test);
    const hva = reserve(calls, 2 * PAGE);
    put(calls, hva, 2 * PAGE);
    put(calls, hva, 2 * PAGE, PROT.NONE);
    for (const at of [hva, hva + PAGE]) expect(calls.munmap(at, PAGE)).toBe(0);
    expect(put(calls, hva, 2 * PAGE)).toBe(0);
    expect(calls.munmap(hva, 2 * PAGE)).toBe(0);
    expect(put(calls, hva, 2 * PAGE)).toBe(-ERRNO.EINVAL);
  });

  it('shows each kind of memory, and copies cross from one to the next', (test) => {
    const calls = addon(test);
    const hva = reserve(calls, 3 * PAGE);
    const memfd = calls.memfdCreate('piece', PAGE, 0);
    const direct = calls.mmap(PAGE, RW, MAP.SHARED, memfd, 0, 0, 0);
    expect(calls.mmapFixed(hva, PAGE, RW, MAP.SHARED, memfd, 0)).toBe(0);
    expect(put(calls, hva + PAGE, PAGE)).toBe(0);
    calls.close(memfd);
    expect(calls.writeMemory(hva + PAGE - 2, Uint8Array.of(1, 2, 3, 4))).toBe(4);
    expect(first(calls, direct + PAGE - 1)).toBe(2);
    const hvas = Float64Array.of(hva + PAGE - 1, hva + 2 * PAGE);
    const into = new Uint8Array(4);
    expect(calls.gather(hvas, Uint32Array.of(2, 1), into)).toBe(1);
    expect([...into.subarray(0, 2)]).toEqual([2, 3]);
    calls.munmap(direct, PAGE);
    calls.munmap(hva, 3 * PAGE);
  });

  it('is not made of memory that may be touched, nor can other mappings be written over', (test) => {
    const calls = addon(test);
    const hva = calls.mmap(PAGE, RW, ANONYMOUS, -1, 0, 0, 0);
    calls.mprotect(hva, PAGE, PROT.NONE);
    expect(put(calls, hva, PAGE)).toBe(-ERRNO.EINVAL);
    const readOnly = calls.mmap(PAGE, PROT.READ, ANONYMOUS, -1, 0, 0, 0);
    expect(put(calls, readOnly, PAGE)).toBe(-ERRNO.EINVAL);
    for (const mapping of [hva, readOnly]) calls.munmap(mapping, PAGE);
  });

  it('refuses flags that mmap refuses, and descriptors without memory', (test) => {
    const calls = addon(test);
    const hva = reserve(calls, PAGE);
    const event = calls.eventfd(0);
    const MAP_FIXED = 0x10;
    expect(calls.mmapFixed(hva, PAGE, RW, ANONYMOUS | MAP_FIXED, -1, 0)).toBe(-ERRNO.EINVAL);
    expect(calls.mmapFixed(hva, PAGE, 8, ANONYMOUS, -1, 0)).toBe(-ERRNO.EINVAL);
    expect(calls.mmapFixed(hva, PAGE, RW, MAP.SHARED | MAP.PRIVATE, event, 0)).toBe(-ERRNO.EINVAL);
    expect(calls.mmapFixed(hva, PAGE, RW, MAP.SHARED, event, 0)).toBe(-ERRNO.ENODEV);
    expect(calls.mmapFixed(hva, PAGE, RW, MAP.SHARED, 0xffff, 0)).toBe(-ERRNO.EBADF);
    calls.close(event);
    calls.munmap(hva, PAGE);
  });

  it('keeps what is there when a driver refuses to put something else in its place', (test) => {
    const calls = addon(test);
    const length = 64 * 2 ** 30;
    const hva = reserve(calls, length, HUGE);
    expect(put(calls, hva, PAGE)).toBe(0);
    calls.writeMemory(hva, Uint8Array.of(7));
    const memfd = calls.memfdCreate('huge', length, MFD_HUGETLB);
    test.skip(memfd < 0, 'this kernel has no huge pages');
    expect(calls.mmapFixed(hva, PAGE, RW, MAP.SHARED, memfd, 0)).toBe(-ERRNO.EINVAL);
    expect(calls.mmapFixed(hva, length, RW, MAP.SHARED, memfd, 0)).toBe(-ERRNO.ENOMEM);
    expect(first(calls, hva)).toBe(7);
    calls.close(memfd);
    calls.munmap(hva, length);
  });

  it('leaves no mappings behind', (test) => {
    const calls = addon(test);
    const before = mapsOf();
    for (let round = 0; round < 200; round++) {
      const hva = reserve(calls, 8 * PAGE);
      for (let page = 0; page < 8; page += 2) put(calls, hva + page * PAGE, PAGE);
      put(calls, hva, 3 * PAGE, PROT.NONE);
      calls.munmap(hva, 8 * PAGE);
    }
    expect(mapsOf()).toBeLessThan(before + 20);
  });

  it('reaches nothing else, and no memory in it that comes and goes is fatal', (test) => {
    addon(test);
    expect(runChild('reservation')).toMatchObject({ status: 0, signal: null, stderr: '' });
  });
});
