import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { ERRNO, MADV, MAP, PROT, VIEW_WINDOW } from '../../../lib/raw.ts';
import { ANONYMOUS, addon, anonymous, PAGE, RW, runChild, viewOf } from './real.ts';

const MIB = 2 ** 20;
const TIB = 2 ** 40;

function temporaryFile(bytes: number): number {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
  const path = join(folder, 'file');
  writeFileSync(path, new Uint8Array(bytes).fill(7));
  const fd = openSync(path, 'r+');
  onTestFinished(() => {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });
  return fd;
}

function protectionAt(hva: number): string | undefined {
  for (const line of readFileSync('/proc/self/maps', 'utf8').split('\n')) {
    const [, start, end, protection] = /^([0-9a-f]+)-([0-9a-f]+) (\S+)/.exec(line) ?? [];
    if (start && end && hva >= Number.parseInt(start, 16) && hva < Number.parseInt(end, 16)) return protection;
  }
  return undefined;
}

describe('mmap', () => {
  it('places a mapping at a multiple of the alignment plus an offset', (test) => {
    const calls = addon(test);
    for (const [align, offset] of [
      [MIB, 0],
      [2 * MIB, 3 * PAGE],
      [2n ** 30n, BigInt(PAGE)],
    ] as const) {
      const hva = calls.mmap(PAGE, RW, ANONYMOUS, -1, 0, align, offset);
      expect(BigInt(hva) % BigInt(align)).toBe(BigInt(offset));
      expect(calls.munmap(hva, PAGE)).toBe(0);
    }
    expect(calls.mmap(PAGE, RW, ANONYMOUS, -1, 0, 3 * PAGE, 0)).toBe(-ERRNO.EINVAL);
    expect(calls.mmap(PAGE, RW, ANONYMOUS, -1, 0, MIB, 1)).toBe(-ERRNO.EINVAL);
  });

  it('leaves inaccessible memory behind it, and nothing after munmap', (test) => {
    const calls = addon(test);
    const hva = anonymous(calls, 3 * PAGE);
    expect(protectionAt(hva + 2 * PAGE)).toBe('rw-p');
    expect(protectionAt(hva + 3 * PAGE)).toBe('---p');
    expect(calls.readMemory(hva + 3 * PAGE - 4, new Uint8Array(8))).toBe(4);
    expect(calls.munmap(hva, 3 * PAGE)).toBe(0);
    expect(calls.readMemory(hva, new Uint8Array(8))).toBe(-ERRNO.EFAULT);
  });

  it('refuses flags and protections that would reach beyond its own memory', (test) => {
    const calls = addon(test);
    const MAP_FIXED = 0x10;
    expect(calls.mmap(PAGE, RW, ANONYMOUS | MAP_FIXED, -1, 0, 0, 0)).toBe(-ERRNO.EINVAL);
    expect(calls.mmap(PAGE, 0x100_0000, ANONYMOUS, -1, 0, 0, 0)).toBe(-ERRNO.EINVAL);
    expect(calls.mmap(0, RW, ANONYMOUS, -1, 0, 0, 0)).toBe(-ERRNO.EINVAL);
    expect(calls.mmap(2n ** 63n, RW, ANONYMOUS, -1, 0, 0, 0)).toBe(-ERRNO.ENOMEM);
    expect(calls.mmap(2n ** 64n - 1n, RW, ANONYMOUS, -1, 0, 0, 0)).toBe(-ERRNO.ENOMEM);
    expect(calls.mmap(PAGE, RW, MAP.SHARED, 0xffff, 0, 0, 0)).toBe(-ERRNO.EBADF);
  });

  it('gives a sparse terabyte for nothing', (test) => {
    const calls = addon(test);
    const before = process.memoryUsage.rss();
    const hva = calls.mmap(TIB, RW, ANONYMOUS | MAP.NORESERVE, -1, 0, 0, 0);
    expect(hva).toBeGreaterThan(0);
    const last = new Uint32Array(viewOf(calls, hva + TIB - VIEW_WINDOW, VIEW_WINDOW));
    last[last.length - 1] = 0xcafe;
    const read = new Uint8Array(4);
    expect(calls.readMemory(hva + TIB - 4, read)).toBe(4);
    expect(new DataView(read.buffer).getUint32(0, true)).toBe(0xcafe);
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * MIB);
    expect(calls.munmap(hva, TIB)).toBe(0);
  });
});

describe('views', () => {
  it('are whole windows, and the same object while somebody has it', (test) => {
    const calls = addon(test);
    const hva = anonymous(calls, 2 * PAGE);
    const view = viewOf(calls, hva, 2 * PAGE);
    expect(calls.view(hva, 2 * PAGE)).toBe(view);
    expect(calls.view(hva, PAGE)).toBe(-ERRNO.EINVAL);
    expect(calls.view(hva + PAGE, PAGE)).toBe(-ERRNO.EINVAL);
    expect(calls.view(hva - PAGE, PAGE)).toBe(-ERRNO.EINVAL);
    calls.munmap(hva, 2 * PAGE);
  });

  it('are detached when the memory goes, and windows when it changes its protection', (test) => {
    const calls = addon(test);
    const change: readonly (readonly ['view' | 'window', (hva: number) => number])[] = [
      ['view', (hva) => calls.munmap(hva, 2 * PAGE)],
      ['view', (hva) => calls.munmap(hva + PAGE, PAGE)],
      ['window', (hva) => calls.munmap(hva + PAGE, PAGE)],
      ['window', (hva) => calls.mprotect(hva, PAGE, PROT.READ)],
    ];
    for (const [how, apply] of change) {
      const hva = anonymous(calls, 2 * PAGE);
      const bytes = new Uint8Array(calls[how](hva, 2 * PAGE) as ArrayBuffer);
      bytes[0] = 1;
      expect(apply(hva)).toBe(0);
      expect(bytes.length).toBe(0);
      expect(bytes[0]).toBe(undefined);
      calls.munmap(hva, 2 * PAGE);
    }
  });

  it('of memory that could fault are refused', (test) => {
    const calls = addon(test);
    const file = calls.mmap(PAGE, RW, MAP.SHARED, temporaryFile(PAGE), 0, 0, 0);
    const readOnly = calls.mmap(PAGE, PROT.READ, ANONYMOUS, -1, 0, 0, 0);
    const memfd = calls.memfdCreate('short', PAGE, 0);
    const beyondEnd = calls.mmap(2 * PAGE, RW, MAP.SHARED, memfd, 0, 0, 0);
    expect(calls.view(file, PAGE)).toBe(-ERRNO.EACCES);
    expect(calls.view(readOnly, PAGE)).toBe(-ERRNO.EACCES);
    expect(calls.view(beyondEnd, 2 * PAGE)).toBe(-ERRNO.EACCES);
    for (const hva of [file, readOnly, beyondEnd]) calls.munmap(hva, 2 * PAGE);
    calls.munmap(file, PAGE);
    calls.munmap(readOnly, PAGE);
    calls.close(memfd);
  });

  it('that were handed on by transfer do not dangle', (test) => {
    addon(test);
    const isOptIn = typeof Reflect.get(ArrayBuffer.prototype, 'transfer') !== 'function';
    const flags = ['--expose-gc', ...(isOptIn ? ['--harmony-rab-gsab-transfer'] : [])];
    const child = runChild('transferred-view', [], flags);
    expect(child).toMatchObject({ status: 0, signal: null, stderr: '' });
  });

  it.for(['munmap', 'part', 'mprotect', 'fifo', 'end'])(
    "are written to by the threads of Node's pool while the memory goes (%s)",
    (how, test) => {
      addon(test);
      expect(runChild('pool', [how], ['--expose-gc'])).toMatchObject({ status: 0, signal: null, stderr: '' });
    },
  );

  it('leave no record behind when JavaScript drops them', (test) => {
    addon(test);
    const child = runChild('dropped-views', [], ['--expose-gc']);
    expect(child).toMatchObject({ status: 0, signal: null, stderr: '' });
  });
});

describe('munmap', () => {
  it('of a part keeps the addresses, which fault', (test) => {
    const calls = addon(test);
    const hva = anonymous(calls, 4 * PAGE);
    calls.writeMemory(hva, new Uint8Array(4 * PAGE).fill(5));
    expect(calls.munmap(hva + PAGE, PAGE)).toBe(0);
    expect(protectionAt(hva + PAGE)).toBe('---p');
    const into = new Uint8Array(4 * PAGE);
    expect(calls.readMemory(hva, into)).toBe(PAGE);
    expect(calls.readMemory(hva + PAGE, into)).toBe(-ERRNO.EFAULT);
    expect(calls.readMemory(hva + 2 * PAGE, into)).toBe(2 * PAGE);
    expect(calls.mprotect(hva + PAGE, PAGE, RW)).toBe(-ERRNO.ENOMEM);
    expect(calls.madvise(hva, 2 * PAGE, MADV.DONTNEED)).toBe(-ERRNO.ENOMEM);
    expect(calls.munmap(hva, 4 * PAGE)).toBe(0);
    expect(calls.munmap(hva, 4 * PAGE)).toBe(-ERRNO.EINVAL);
  });

  it('part by part gives everything back', (test) => {
    const calls = addon(test);
    const hva = anonymous(calls, 3 * PAGE);
    for (const page of [2, 0, 1]) expect(calls.munmap(hva + page * PAGE, PAGE)).toBe(0);
    expect(calls.munmap(hva, PAGE)).toBe(-ERRNO.EINVAL);
  });

  it('refuses what is not inside one mapping', (test) => {
    const calls = addon(test);
    const hva = anonymous(calls, PAGE);
    expect(calls.munmap(hva, 2 * PAGE)).toBe(-ERRNO.EINVAL);
    expect(calls.munmap(hva + 1, PAGE)).toBe(-ERRNO.EINVAL);
    expect(calls.munmap(0, PAGE)).toBe(-ERRNO.EINVAL);
    expect(calls.munmap(2n ** 64n - BigInt(PAGE), PAGE)).toBe(-ERRNO.EINVAL);
    expect(calls.munmap(hva, 2n ** 64n - 1n)).toBe(-ERRNO.EINVAL);
    expect(calls.munmap(hva, PAGE)).toBe(0);
  });
});

describe('copies never fault', () => {
  it('when a file is truncated under its mapping', (test) => {
    const calls = addon(test);
    const fd = temporaryFile(3 * PAGE);
    const hva = calls.mmap(3 * PAGE, RW, MAP.SHARED, fd, 0, 0, 0);
    const into = new Uint8Array(3 * PAGE);
    expect(calls.readMemory(hva, into)).toBe(3 * PAGE);
    expect(into.every((byte) => byte === 7)).toBe(true);
    ftruncateSync(fd, PAGE);
    expect(calls.readMemory(hva, into)).toBe(PAGE);
    expect(calls.readMemory(hva + PAGE, into)).toBe(-ERRNO.EFAULT);
    expect(calls.writeMemory(hva + 2 * PAGE, into)).toBe(-ERRNO.EFAULT);
    expect(calls.writeMemory(hva + PAGE - 8, into)).toBe(8);
    const hvas = Float64Array.of(hva, hva + PAGE, hva);
    expect(calls.gather(hvas, Uint32Array.of(4, 4, 4), into)).toBe(1);
    calls.munmap(hva, 3 * PAGE);
  });

  it('on read-only and inaccessible memory', (test) => {
    const calls = addon(test);
    const hva = anonymous(calls, 2 * PAGE);
    calls.writeMemory(hva, Uint8Array.of(1, 2, 3, 4));
    expect(calls.mprotect(hva, PAGE, PROT.READ)).toBe(0);
    const into = new Uint8Array(4);
    expect(calls.readMemory(hva, into)).toBe(4);
    expect([...into]).toEqual([1, 2, 3, 4]);
    expect(calls.writeMemory(hva, into)).toBe(-ERRNO.EFAULT);
    expect(calls.mprotect(hva, PAGE, PROT.NONE)).toBe(0);
    expect(calls.readMemory(hva, into)).toBe(-ERRNO.EFAULT);
    expect(calls.readMemory(hva + PAGE, into)).toBe(4);
    calls.munmap(hva, 2 * PAGE);
  });

  it('only inside mappings of ours', (test) => {
    const calls = addon(test);
    const into = new Uint8Array(8);
    for (const hva of [0, 1, 4096, 2n ** 47n - 8n, 2n ** 63n, 2n ** 64n - 1n]) {
      expect(calls.readMemory(hva, into)).toBe(-ERRNO.EFAULT);
      expect(calls.writeMemory(hva, into)).toBe(-ERRNO.EFAULT);
      expect(calls.readMemory(hva, new Uint8Array(0))).toBe(0);
    }
  });
});

describe('gather and scatter', () => {
  it('move pieces back to back, of several mappings and lengths', (test) => {
    const calls = addon(test);
    const [a, b] = [anonymous(calls, PAGE), anonymous(calls, PAGE)];
    const hvas = Float64Array.of(a, b + 3, a + 100, b + PAGE - 16);
    const lengths = Uint32Array.of(4, 1, 8, 16);
    const from = Uint8Array.from({ length: 29 }, (_, i) => i + 1);
    expect(calls.scatter(hvas, lengths, from)).toBe(4);
    const into = new Uint8Array(29);
    expect(calls.gather(hvas, lengths, into)).toBe(4);
    expect(into).toEqual(from);
    expect(new Uint8Array(viewOf(calls, b, PAGE)).subarray(PAGE - 16)).toEqual(from.subarray(13));
    for (const hva of [a, b]) calls.munmap(hva, PAGE);
  });

  it('stop before the first piece that is not wholly there, or has no room', (test) => {
    const calls = addon(test);
    const hva = anonymous(calls, PAGE);
    const gather = (second: number, length: number, room = 64): number =>
      calls.gather(Float64Array.of(hva, second, hva), Uint32Array.of(4, length, 4), new Uint8Array(room));
    expect(gather(hva + PAGE - 4, 4)).toBe(3);
    expect(gather(hva + PAGE - 4, 5)).toBe(1);
    expect(gather(hva - 4, 4)).toBe(1);
    expect(gather(Number.NaN, 4)).toBe(1);
    expect(gather(-1, 4)).toBe(1);
    expect(gather(hva + 0.5, 4)).toBe(hva + 0.5 === hva ? 3 : 1);
    expect(gather(hva, 4, 7)).toBe(1);
    expect(gather(hva, 0xffff_ffff)).toBe(1);
    calls.munmap(hva, PAGE);
  });
});

describe('memfd', () => {
  it('is sized, sealed against shrinking, and shared by its mappings', (test) => {
    const calls = addon(test);
    const fd = calls.memfdCreate('guest', 2 * PAGE, 0);
    expect(() => ftruncateSync(fd, PAGE)).toThrow(/EPERM/);
    const [a, b] = [0, PAGE].map((offset) => calls.mmap(PAGE, RW, MAP.SHARED, fd, offset, 0, 0)) as [number, number];
    const whole = calls.mmap(2 * PAGE, RW, MAP.SHARED, fd, 0, 0, 0);
    new Uint8Array(viewOf(calls, b, PAGE))[5] = 9;
    expect(new Uint8Array(viewOf(calls, whole, 2 * PAGE))[PAGE + 5]).toBe(9);
    expect(calls.close(fd)).toBe(0);
    expect(new Uint8Array(viewOf(calls, whole, 2 * PAGE))[PAGE + 5]).toBe(9);
    calls.munmap(a, PAGE);
    calls.munmap(b, PAGE);
    calls.munmap(whole, 2 * PAGE);
    expect(calls.memfdCreate('too large', 2n ** 63n, 0)).toBe(-ERRNO.EINVAL);
    expect(calls.memfdCreate('x'.repeat(300), PAGE, 0)).toBe(-ERRNO.EINVAL);
  });

  it('reads as zero where a hole was punched', (test) => {
    const calls = addon(test);
    const fd = calls.memfdCreate('guest', 2 * PAGE, 0);
    const hva = calls.mmap(2 * PAGE, RW, MAP.SHARED, fd, 0, 0, 0);
    const bytes = new Uint8Array(viewOf(calls, hva, 2 * PAGE)).fill(3);
    expect(calls.madvise(hva, PAGE, MADV.REMOVE)).toBe(0);
    expect([bytes[0], bytes[PAGE]]).toEqual([0, 3]);
    const MADV_FREE = 8;
    expect(calls.madvise(hva, PAGE, MADV_FREE)).toBe(-ERRNO.EINVAL);
    calls.munmap(hva, 2 * PAGE);
    calls.close(fd);
  });
});
