/** Attributes of a VM, in the order of `kvm_s390_set_mem_control` and `kvm_s390_vm_start_migration` of Linux 6.12. */

import { describe, expect, it } from 'vitest';
import { EmulatedKernel } from '../../../../../lib/backends/emulated.ts';
import { MEM, PROT } from '../../../../../lib/uapi/flags.ts';
import { LOG, Machine, MIB } from './machine.ts';

const [ENXIO, E2BIG, EFAULT, EBUSY, EINVAL] = [-6, -7, -14, -16, -22];
const [MEMORY, MIGRATION, OTHER] = [0, 4, 77];
const [ENABLE_CMMA, CLEAR_CMMA, LIMIT_SIZE] = [0n, 1n, 2n];
const [STOP, START, STATUS] = [0n, 1n, 2n];
/** The highest guest address of the recorded machine, + 1. */
const HIGHEST = 2n ** 47n;

const u64 = (value: bigint): Uint8Array => {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value);
  return bytes;
};

/** A VM without a vCPU, and memory of 4 MiB for its slots. */
function machine(release = '6.12') {
  const kernel = new EmulatedKernel({ arch: 's390x', release });
  const vm = kernel.createVm(kernel.openKvm(), 0);
  const hva = kernel.mmap(4 * MIB, PROT.READ | PROT.WRITE, 0x22, -1, 0, MIB, 0);
  const set = (group: number, attr: bigint, value: Uint8Array | null = null) =>
    kernel.setDeviceAttr(vm, group, attr, value);
  const get = (group: number, attr: bigint): bigint | number => {
    const value = new Uint8Array(8);
    const result = kernel.getDeviceAttr(vm, group, attr, value);
    return result === 0 ? new DataView(value.buffer).getBigUint64(0) : result;
  };
  const slot = (id: number, gpa: number, flags = 0, size = MIB) =>
    kernel.setUserMemoryRegion(vm, id, flags, gpa, size, hva + id * MIB);
  return { kernel, vm, set, get, slot, limit: (value: bigint) => set(MEMORY, LIMIT_SIZE, u64(value)) };
}

it('there are three of memory and any of migration', () => {
  const { kernel, vm } = machine();
  const has = (group: number, attr: bigint): number => kernel.hasDeviceAttr(vm, group, attr);
  expect([0n, 1n, 2n, 3n].map((attr) => has(MEMORY, attr))).toEqual([0, 0, 0, ENXIO]);
  expect([0n, 1n, 2n, 9n].map((attr) => has(MIGRATION, attr))).toEqual([0, 0, 0, 0]);
  expect(has(OTHER, 0n)).toBe(ENXIO);
});

it('which can be set, and which can be got', () => {
  const { set, get } = machine();
  expect([0n, 1n, 2n, 3n].map((attr) => get(MEMORY, attr))).toEqual([ENXIO, ENXIO, HIGHEST, ENXIO]);
  expect([0n, 1n, 2n, 3n].map((attr) => get(MIGRATION, attr))).toEqual([ENXIO, ENXIO, 0n, ENXIO]);
  expect([0n, 2n].map((attr) => get(OTHER, attr))).toEqual([ENXIO, ENXIO]);
  expect([set(MEMORY, 3n), set(MIGRATION, STATUS), set(OTHER, 0n)]).toEqual([ENXIO, ENXIO, ENXIO]);
});

it('what is got needs a buffer of 8 bytes', () => {
  const { kernel, vm } = machine();
  for (const [group, attr] of [
    [MEMORY, LIMIT_SIZE],
    [MIGRATION, STATUS],
  ] as const)
    for (const buffer of [null, new Uint8Array(7)]) expect(kernel.getDeviceAttr(vm, group, attr, buffer)).toBe(EFAULT);
});

describe('CMMA', () => {
  it('is turned on before there are vCPUs', () => {
    const { kernel, vm, set } = machine();
    expect([set(MEMORY, CLEAR_CMMA), set(MEMORY, ENABLE_CMMA), set(MEMORY, CLEAR_CMMA)]).toEqual([EINVAL, 0, 0]);
    kernel.createVcpu(vm, 0);
    expect(set(MEMORY, ENABLE_CMMA)).toBe(EBUSY);
    expect(set(MEMORY, CLEAR_CMMA)).toBe(0);
  });

  it('is cleared for all frames of all slots', () => {
    const { kernel, vm, set, slot } = machine();
    expect([set(MEMORY, ENABLE_CMMA), slot(0, 0), slot(1, 4 * MIB)]).toEqual([0, 0, 0]);
    const frames = [0, 255, 1024, 1279];
    const cmmaOf = (frame: number): number => {
      const value = new Uint8Array(1);
      expect(kernel.s390x!.getCmmaBits(vm, BigUint64Array.of(BigInt(frame), 1n, 0n), 1, value)).toBe(0);
      return value[0]!;
    };
    for (const frame of frames)
      expect(kernel.s390x!.setCmmaBits(vm, frame, 1, 0, 2n ** 64n - 1n, Uint8Array.of(0x43))).toBe(0);
    expect(frames.map(cmmaOf)).toEqual([0x43, 0x43, 0x43, 0x43]);
    expect(set(MEMORY, CLEAR_CMMA)).toBe(0);
    expect(frames.map(cmmaOf)).toEqual([0, 0, 0, 0]);
  });
});

it('6.12: values are those of user space’s pages, and those of another VM’s stay', () => {
  const { kernel, vm, set, slot } = machine();
  const other = kernel.createVm(kernel.openKvm(), 0);
  const hva = kernel.mmap(2 * MIB, PROT.READ | PROT.WRITE, 0x22, -1, 0, MIB, 0);
  expect(kernel.setUserMemoryRegion(vm, 0, 0, 0, MIB, hva)).toBe(0);
  expect(kernel.setUserMemoryRegion(other, 0, 0, 0, MIB, hva + MIB)).toBe(0);
  const { setCmmaBits, getCmmaBits } = kernel.s390x!;
  for (const each of [vm, other]) {
    expect(kernel.setDeviceAttr(each, MEMORY, ENABLE_CMMA, null)).toBe(0);
    expect(setCmmaBits(each, 0, 256, 0, 2n ** 64n - 1n, new Uint8Array(256).fill(2))).toBe(0);
  }
  expect([set(MEMORY, CLEAR_CMMA), slot(1, 8 * MIB)]).toEqual([0, 0]);
  const values = (of: number): Uint8Array => {
    const all = new Uint8Array(256);
    expect(getCmmaBits(of, BigUint64Array.of(0n, 256n, 0n), 1, all)).toBe(0);
    return all;
  };
  expect(values(vm)).toEqual(new Uint8Array(256));
  expect(values(other)).toEqual(new Uint8Array(256).fill(2));
});

describe('the memory limit', () => {
  it('is where slots end, whatever was set', () => {
    const { get, slot, limit } = machine();
    expect(limit(1n << 31n)).toBe(0);
    expect(get(MEMORY, LIMIT_SIZE)).toBe(HIGHEST);
    expect(slot(0, Number(HIGHEST))).toBe(EINVAL);
    expect(slot(0, Number(HIGHEST) - MIB)).toBe(0);
  });

  it('is checked before it is seen whether there are vCPUs', () => {
    const { kernel, vm, set, limit } = machine();
    const checks = (): number[] => [
      set(MEMORY, LIMIT_SIZE, null),
      set(MEMORY, LIMIT_SIZE, new Uint8Array(7)),
      limit(HIGHEST + 1n),
      limit(0n),
      limit(HIGHEST),
      limit(1n),
    ];
    expect(checks()).toEqual([EFAULT, EFAULT, E2BIG, EINVAL, 0, 0]);
    kernel.createVcpu(vm, 0);
    expect(checks()).toEqual([EFAULT, EFAULT, E2BIG, EINVAL, EBUSY, EBUSY]);
  });

  it('7.0: is rounded up to whole segments first', () => {
    const { limit } = machine('7.0');
    expect(limit(HIGHEST - 1n)).toBe(0);
    expect(limit(HIGHEST + 1n)).toBe(E2BIG);
    // There are 64 bits.
    expect(limit(2n ** 64n - 1n)).toBe(EINVAL);
    expect(limit(2n ** 64n - BigInt(MIB))).toBe(E2BIG);
    expect(limit(0n)).toBe(EINVAL);
  });

  it('takes its bytes from where they are in a buffer', () => {
    const { set } = machine();
    const bytes = new Uint8Array(16).fill(0xff);
    bytes.set(u64(1n << 31n), 4);
    expect(set(MEMORY, LIMIT_SIZE, bytes.subarray(4, 12))).toBe(0);
    expect(set(MEMORY, LIMIT_SIZE, bytes.subarray(7, 15))).toBe(E2BIG);
  });

  it('7.0: cannot be below a slot', () => {
    for (const [release, below] of [
      ['6.12', 0],
      ['7.0', EBUSY],
    ] as const) {
      const { slot, limit } = machine(release);
      expect([slot(0, 0), slot(1, 8 * MIB)]).toEqual([0, 0]);
      expect([limit(BigInt(9 * MIB)), limit(BigInt(9 * MIB - 1)), limit(BigInt(8 * MIB))]).toEqual([0, 0, below]);
    }
  });

  // Tables of two levels reach 2 GiB, of three 4 TiB, of four 8 PiB.
  it.each([
    [1n, 2 ** 31],
    [1n << 31n, 2 ** 31],
    [(1n << 31n) + 1n, 2 ** 42],
    [1n << 42n, 2 ** 42],
    [(1n << 42n) + 1n, 2 ** 47],
  ])('7.0: 0x%s makes tables that no slot may go beyond', (value, reach) => {
    const { slot, limit } = machine('7.0');
    expect(limit(value)).toBe(0);
    expect(slot(0, reach)).toBe(EINVAL);
    expect(slot(0, reach - MIB)).toBe(0);
    // Up to 6.19 they are no matter of the slots.
    const before = machine();
    expect([before.limit(value), before.slot(0, 2 ** 47 - MIB)]).toEqual([0, 0]);
  });
});

describe('migration mode', () => {
  it('begins and ends, each once or more', () => {
    const { set, get, slot } = machine();
    expect([set(MIGRATION, STOP), get(MIGRATION, STATUS)]).toEqual([0, 0n]);
    expect([set(MIGRATION, START), get(MIGRATION, STATUS)]).toEqual([EINVAL, 0n]);
    slot(0, 0, LOG);
    expect([set(MIGRATION, START), set(MIGRATION, START), get(MIGRATION, STATUS)]).toEqual([0, 0, 1n]);
    expect([set(MIGRATION, STOP), set(MIGRATION, STOP), get(MIGRATION, STATUS)]).toEqual([0, 0, 0n]);
  });

  it('wants every slot logged where CMMA is on', () => {
    for (const [cmma, mixed] of [
      [false, 0],
      [true, EINVAL],
    ] as const) {
      const { set, slot } = machine();
      if (cmma) expect(set(MEMORY, ENABLE_CMMA)).toBe(0);
      expect([slot(0, 0, LOG), slot(1, 4 * MIB), set(MIGRATION, START)]).toEqual([0, 0, mixed]);
      set(MIGRATION, STOP);
      expect([slot(1, 4 * MIB, MEM.LOG_DIRTY_PAGES), set(MIGRATION, START)]).toEqual([0, 0]);
    }
  });

  it('ends with a slot that is not logged: made, moved or changed, not with one that goes', () => {
    const { set, get, slot } = machine();
    const started = (): unknown => set(MIGRATION, START) || get(MIGRATION, STATUS);
    expect([slot(0, 0, LOG), slot(1, 4 * MIB, LOG), slot(2, 8 * MIB, LOG), started()]).toEqual([0, 0, 0, 1n]);
    expect([slot(2, 8 * MIB, LOG, 0), get(MIGRATION, STATUS)]).toEqual([0, 1n]);
    expect([slot(1, 6 * MIB, LOG), get(MIGRATION, STATUS)]).toEqual([0, 1n]);
    expect([slot(1, 4 * MIB, 0), get(MIGRATION, STATUS)]).toEqual([0, 0n]);
    expect([started(), slot(2, 8 * MIB), get(MIGRATION, STATUS)]).toEqual([1n, 0, 0n]);
    expect([started(), slot(1, 4 * MIB, LOG), get(MIGRATION, STATUS)]).toEqual([1n, 0, 1n]);
    expect([slot(1, 4 * MIB, 0), get(MIGRATION, STATUS)]).toEqual([0, 0n]);
  });

  it('begun once more marks nothing anew', () => {
    const made = new Machine({ cmma: true }).addMemory(LOG);
    const { kernel, s390x, vm } = made;
    const harvest = (): bigint => {
      const log = BigUint64Array.of(0n, 1024n, 0n);
      expect(s390x.getCmmaBits(vm, log, 0, new Uint8Array(1024))).toBe(0);
      return log[1]!;
    };
    s390x.setCmmaBits(vm, 0, 1, 0, 0n, new Uint8Array(1));
    expect(kernel.setDeviceAttr(vm, MIGRATION, START, null)).toBe(0);
    expect(harvest()).toBe(1024n);
    expect(kernel.setDeviceAttr(vm, MIGRATION, START, null)).toBe(0);
    expect(harvest()).toBe(0n);
    kernel.setDeviceAttr(vm, MIGRATION, STOP, null);
    kernel.setDeviceAttr(vm, MIGRATION, START, null);
    expect(harvest()).toBe(1024n);
  });
});
