/** Storage keys as they are kept up to 6.19, in the page tables of user space: which of those there are shows in the keys that are lost. */

import { describe, expect, it } from 'vitest';
import { EmulatedKernel } from '../../../../../lib/backends/emulated.ts';
import { MAP, PROT } from '../../../../../lib/uapi/flags.ts';
import { CHECK_ONLY, DAT64, LOG, Machine, MIB, SKEY } from './machine.ts';

const EFAULT = -14;
const EINVAL = -22;
const FLAGS = MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE;
/** Guest address of the memory that nobody has touched, and its first frame. */
const FRESH = 8 * MIB;
const FRAME = FRESH / 4096;
const SEGMENT = 256;

/** A machine with keys, and 4 MiB of fresh memory from FRESH on. */
function withFresh(gpa = FRESH): { machine: Machine; hva: number } {
  const machine = new Machine().addMemory();
  expect(machine.setKeys(0, 0x10)).toBe(0);
  const hva = machine.map(4 * MIB);
  expect(machine.slot(1, gpa, 4 * MIB, hva)).toBe(0);
  return { machine, hva };
}

/** Whether user space has a page table at a frame: without one the first key is lost, and then there is one. */
function hasTable(machine: Machine, frame: number): boolean {
  expect(machine.setKeys(frame, 0x20, 0x30)).toBe(0);
  const [first, second] = machine.keys(frame, 2) as Uint8Array;
  expect(second).toBe(0x30);
  return first === 0x20;
}

it('keys that nobody has set are 0, whatever is where they are put', () => {
  const machine = new Machine().addMemory();
  expect(machine.setKeys(0, 0x10)).toBe(0);
  const [length, frame] = [256 * MIB, 0x1_0000];
  expect(machine.slot(1, frame * 4096, length, machine.map(length))).toBe(0);
  // 256 MiB are in two or three parts of what is kept; in one of them a key is set.
  const middle = length / 4096 / 2;
  expect(machine.setKeys(frame + middle, 0x20, 0x30)).toBe(0);
  for (const first of [0, middle - 2, length / 4096 - 64]) {
    const keys = new Uint8Array(64).fill(0xff);
    expect(machine.s390x.getSkeys(machine.vm, frame + first, keys.length, 0, keys)).toBe(0);
    const set = first === middle - 2 ? [3] : [];
    expect([...keys.keys()].filter((i) => keys[i] !== 0)).toEqual(set);
  }
});

const tables = (machine: Machine): boolean[] => [0, 1, 2, 3].map((i) => hasTable(machine, FRAME + i * SEGMENT));

describe('a page table', () => {
  it.each<[string, boolean, (machine: Machine, hva: number) => unknown]>([
    ['nothing', false, () => 0],
    ['a store by user space', true, (machine, hva) => machine.kernel.writeMemory(hva + MIB, new Uint8Array(1))],
    ['a load by user space', true, (machine, hva) => machine.kernel.readMemory(hva + MIB, new Uint8Array(1))],
    ['a read of MEM_OP', true, (machine) => machine.absoluteRead(FRESH + MIB + 0x2000, 8)],
    ['a write of MEM_OP', true, (machine) => machine.absoluteWrite(FRESH + MIB + 0x2000, 8)],
    ['a logical read', true, (machine) => machine.read(FRESH + MIB + 0x2000, 8)],
    ['a logical write', true, (machine) => machine.write(FRESH + MIB + 0x2000, 8)],
    ['a logical read across pages', true, (machine) => machine.read(FRESH + MIB + 0x2800, 0x1000)],
    ['a logical check', false, (machine) => machine.read(FRESH + MIB, 8, { flags: CHECK_ONLY })],
    [
      'a translation by tables there, which are all zeros',
      true,
      (machine) => {
        machine.latch(DAT64, { 1: BigInt(FRESH + MIB) }, 0);
        expect(machine.read(0x2000, 8)).toBe(0);
      },
    ],
    ['VCPU_FAULT', true, (machine) => machine.s390x.vcpuFault(machine.vcpu, FRESH + MIB + 0x2000)],
    ['one that a key forbids', true, (machine) => machine.absoluteWrite(FRESH + MIB, 8, { flags: SKEY, key: 1 })],
    ['a check', false, (machine) => machine.absoluteRead(FRESH + MIB, 8, { flags: CHECK_ONLY })],
    ['GET_SKEYS', false, (machine) => machine.keys(FRAME + SEGMENT, SEGMENT)],
    ['SET_SKEYS of zeros', false, (machine) => machine.setKeys(FRAME + SEGMENT + 9, 0, 0)],
    ['SET_SKEYS of others', true, (machine) => machine.setKeys(FRAME + SEGMENT + 9, 0, 0x10)],
  ])('is made by an access in its segment, and no other: %s', (_, made, access) => {
    const { machine, hva } = withFresh();
    access(machine, hva);
    expect(tables(machine)).toEqual([false, made, false, false]);
  });

  it.each([
    [MIB - 8, 8, [true, false, false, false]],
    [MIB - 8, 9, [true, true, false, false]],
    [MIB, 1, [false, true, false, false]],
    [MIB - 1, MIB + 2, [true, true, true, false]],
  ])('user space makes one for each segment that it touches: %i, %i bytes', (at, length, made) => {
    const { machine, hva } = withFresh();
    machine.kernel.writeMemory(hva + at, new Uint8Array(length));
    expect(tables(machine)).toEqual(made);
  });

  it('may be older than the VM', () => {
    const kernel = new EmulatedKernel({ arch: 's390x', release: '6.12' });
    const hva = kernel.mmap(2 * MIB, PROT.READ | PROT.WRITE, FLAGS, -1, 0, MIB, 0);
    kernel.writeMemory(hva, new Uint8Array(1));
    const vm = kernel.createVm(kernel.openKvm(), 0);
    expect(kernel.setUserMemoryRegion(vm, 0, 0, 0, 2 * MIB, hva)).toBe(0);
    const keys = new Uint8Array(SEGMENT + 1).fill(0x10);
    expect(kernel.s390x!.setSkeys(vm, 0, keys.length, 0, keys)).toBe(0);
    expect(kernel.s390x!.getSkeys(vm, 0, keys.length, 0, keys)).toBe(0);
    expect([keys[0], keys[SEGMENT]]).toEqual([0x10, 0]);
  });

  it('is for a segment of user space, not of the guest', () => {
    // The last frame of one of the guest's segments is in the first of user space's, and what follows it too.
    const { machine } = withFresh(FRESH + 0x1000);
    machine.absoluteRead(FRESH + MIB, 8);
    machine.absoluteRead(FRESH + MIB + 0x1000, 8);
    expect([0, 1, 2].map((i) => hasTable(machine, FRAME + 1 + i * SEGMENT))).toEqual([true, true, false]);
  });

  it('is for the segment of each page, though pages before them may not be accessed', () => {
    const half = 128 * 4096;
    const { machine, hva } = withFresh(FRESH + half);
    machine.kernel.mprotect(hva, 4096, PROT.NONE);
    for (const page of [200, 300]) machine.absoluteRead(FRESH + half + page * 4096, 8);
    machine.kernel.mprotect(hva, 4096, PROT.READ | PROT.WRITE);
    expect([0, 1, 2].map((i) => hasTable(machine, FRAME + 128 + i * SEGMENT))).toEqual([true, true, false]);
  });

  it.each([
    ['a segment', MIB, MIB, [true, false, true, true]],
    ['less', MIB, MIB - 0x1000, [true, true, true, true]],
    ['the rest of one', MIB + 0x1000, MIB - 0x1000, [true, true, true, true]],
    ['more than two', MIB - 0x1000, 2 * MIB + 0x2000, [true, false, false, true]],
  ])('goes with all that was in it when its whole segment is emptied, not with less: %s', (_, at, length, left) => {
    const machine = new Machine({ cmma: true }).addMemory();
    const { kernel, s390x, vm } = machine;
    const hva = kernel.mmap(4 * MIB, PROT.NONE, FLAGS, -1, 0, MIB, 0);
    const fill = (from: number, size: number) =>
      kernel.mmapFixed(hva + from, size, PROT.READ | PROT.WRITE, FLAGS, -1, 0);
    expect(fill(0, 4 * MIB)).toBe(0);
    expect(machine.slot(1, FRESH, 4 * MIB, hva)).toBe(0);
    kernel.writeMemory(hva, new Uint8Array(4 * MIB));
    expect(s390x.setSkeys(vm, FRAME, 1024, 0, new Uint8Array(1024).fill(0x40))).toBe(0);
    expect(s390x.setCmmaBits(vm, FRAME, 1024, 0, 2n ** 64n - 1n, new Uint8Array(1024).fill(2))).toBe(0);
    expect(fill(at, length)).toBe(0);
    const keys = machine.keys(FRAME, 1024) as Uint8Array;
    const values = new Uint8Array(1024);
    expect(s390x.getCmmaBits(vm, BigUint64Array.of(BigInt(FRAME), 1024n, 0n), 1, values)).toBe(0);
    for (const [i, there] of left.entries()) {
      const part = [i * SEGMENT, (i + 1) * SEGMENT] as const;
      expect(keys.subarray(...part)).toEqual(new Uint8Array(SEGMENT).fill(there ? 0x40 : 0));
      expect(values.subarray(...part)).toEqual(new Uint8Array(SEGMENT).fill(there ? 2 : 0));
    }
    expect(tables(machine)).toEqual(left);
  });
});

describe('SET_SKEYS', () => {
  it('loses the first key that isn’t 0 of each segment without a page table', () => {
    const { machine } = withFresh();
    const keys = new Uint8Array(2 * SEGMENT).fill(0x50);
    keys.fill(0, 0, 5);
    expect(machine.setKeys(FRAME + 100, ...keys)).toBe(0);
    const set = machine.keys(FRAME + 100, 2 * SEGMENT) as Uint8Array;
    // Frames 100 and 256 are the first of their segments, 512 of the third.
    const lost = [...keys.keys()].filter((i) => set[i] !== keys[i]);
    expect(lost).toEqual([5, SEGMENT - 100, 2 * SEGMENT - 100]);
    expect(lost.map((i) => set[i])).toEqual([0, 0, 0]);
  });

  it('goes over a segment of zeros, and sets what is behind it', () => {
    const { machine } = withFresh();
    machine.absoluteRead(FRESH + 2 * MIB, 8);
    const keys = new Uint8Array(3 * SEGMENT);
    keys[10] = 0x60;
    keys[11] = 0x70;
    keys[2 * SEGMENT] = 0x80;
    expect(machine.setKeys(FRAME, ...keys)).toBe(0);
    const set = machine.keys(FRAME, 3 * SEGMENT) as Uint8Array;
    expect([set[10], set[11], set[2 * SEGMENT]]).toEqual([0, 0x70, 0x80]);
    expect(hasTable(machine, FRAME + SEGMENT)).toBe(false);
  });

  it.each([
    ['6.12', 0x40, EFAULT],
    ['6.12', 0x41, EINVAL],
    ['7.0', 0x40, 0],
    ['7.0', 0x41, EINVAL],
  ])('%s: where user space has nothing mapped, a key 0x%s', (release, key, expected) => {
    const machine = new Machine({ release }).addMemory();
    const hva = machine.map(MIB);
    expect(machine.slot(1, FRESH, MIB, hva)).toBe(0);
    expect(machine.kernel.munmap(hva, MIB)).toBe(0);
    expect(machine.setKeys(FRAME, key)).toBe(expected);
    const keys = machine.keys(FRAME, 1);
    expect(keys).toEqual(release === '7.0' ? Uint8Array.of(expected === 0 ? key : 0) : EFAULT);
  });

  it('keeps keys for many pages, each for itself', () => {
    const machine = new Machine().addMemory();
    const hva = machine.map(160 * MIB);
    expect(machine.slot(1, 256 * MIB, 160 * MIB, hva)).toBe(0);
    for (let at = 0; at < 160 * MIB; at += MIB) machine.kernel.writeMemory(hva + at, new Uint8Array(1));
    const keys = Uint8Array.from({ length: 40_960 }, (_, i) => (i * 2 + (i >> 8) * 6) & 0xfe);
    const first = (256 * MIB) / 4096;
    expect(machine.s390x.setSkeys(machine.vm, first, keys.length, 0, keys)).toBe(0);
    const set = machine.keys(first, keys.length) as Uint8Array;
    expect(Buffer.compare(set, keys)).toBe(0);
    expect(machine.keys(first + 40_957, 3)).toEqual(keys.subarray(40_957));
  });
});

describe('what is dirty by its key', () => {
  /** Pages of the whole words and of what is before and behind them. */
  const run = Uint8Array.from({ length: 21 }, (_, i) => 0x10 + (i % 4) * 2);

  it.each([3, 4, 5])('are the pages whose key is another than the last that was set, from frame %i on', (first) => {
    const machine = new Machine().addMemory(LOG);
    machine.s390x.vcpuFault(machine.vcpu, 0);
    machine.setKeys(first, ...run);
    machine.dirtyPages();
    machine.setKeys(first, ...run);
    expect(machine.dirtyPages()).toEqual([]);
    const changed = Uint8Array.from(run, (key, i) => (i % 6 === 2 ? key ^ 0x80 : key));
    machine.setKeys(first, ...changed);
    // The mark stays when the same are set once more.
    machine.setKeys(first, ...changed);
    expect(machine.dirtyPages()).toEqual([2, 8, 14, 20].map((i) => first + i));
    expect(machine.keys(first, run.length)).toEqual(changed);
  });

  it.each(['6.12', '7.0'])(
    'or that were stored to, not those that were read, also before the log was turned on, on %s',
    (release) => {
      for (const usesKeys of [false, true]) {
        const machine = new Machine({ release }).addMemory(LOG);
        machine.s390x.vcpuFault(machine.vcpu, 0);
        if (usesKeys) machine.setKeys(0, 0x10);
        machine.dirtyPages();
        for (const [flags, page] of [
          [0, 5],
          [LOG, 7],
        ] as const) {
          expect(machine.slot(0, 0, 4 * MIB, machine.hva, flags)).toBe(0);
          machine.absoluteWrite(page * 4096, 8);
          machine.absoluteRead((page + 1) * 4096, 8);
        }
        expect(machine.dirtyPages()).toEqual([5, 7]);
        expect(machine.dirtyPages()).toEqual([]);
      }
    },
  );
});
