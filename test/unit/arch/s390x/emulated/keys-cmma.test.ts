/** Storage keys, CMMA and attributes of the emulated kernel; "recorded" is what a real 6.12 kernel answered in the lab. */

import { describe, expect, it } from 'vitest';
import { MAP, PROT } from '../../../../../lib/uapi/flags.ts';
import { LOG, Machine, MIB } from './machine.ts';

const EINVAL = -22;
const EFAULT = -14;
const ENXIO = -6;
const ENOTTY = -25;
const EBUSY = -16;
const PEEK = 1;

describe('GET_SKEYS and SET_SKEYS, recorded', () => {
  it('there are none until the first SET_SKEYS, which is not an error', () => {
    const machine = new Machine().addMemory();
    const keys = new Uint8Array(4).fill(0xee);
    expect(machine.s390x.getSkeys(machine.vm, 0x20, 4, 0, keys)).toBe(1);
    // Not even the count is looked at, nor the buffer.
    expect(machine.s390x.getSkeys(machine.vm, 0x20, 0, 0, null)).toBe(1);
    expect(machine.s390x.getSkeys(machine.vm, 0x20, 4, 1, keys)).toBe(EINVAL);
    expect([...keys]).toEqual([0xee, 0xee, 0xee, 0xee]);
    expect(machine.setKeys(0x20, 0x10, 0x18)).toBe(0);
    expect(machine.keys(0x1f, 4)).toEqual(Uint8Array.of(0, 0x10, 0x18, 0));
  });

  it('refuses what the kernel refuses', () => {
    const machine = new Machine().addMemory();
    const { s390x, vm } = machine;
    const keys = new Uint8Array(8);
    expect(machine.setKeys(0x20, 0x11)).toBe(EINVAL);
    expect(s390x.setSkeys(vm, 0x20, 0, 0, keys)).toBe(EINVAL);
    expect(s390x.getSkeys(vm, 0x20, 0, 0, keys)).toBe(EINVAL);
    expect(s390x.setSkeys(vm, 0x20, 1, 1, keys)).toBe(EINVAL);
    expect(s390x.setSkeys(vm, 0x20, 0x10_0001, 0, keys)).toBe(EINVAL);
    expect(s390x.getSkeys(vm, 0x20, 0x10_0001, 0, keys)).toBe(EINVAL);
    expect(s390x.setSkeys(vm, 0x20, 1, 0, null)).toBe(EFAULT);
    expect(s390x.getSkeys(vm, 0x20, 1, 0, null)).toBe(EFAULT);
    expect(s390x.setSkeys(vm, 0x20, 9, 0, keys)).toBe(EFAULT);
    expect(s390x.setSkeys(vm, 0x5_0000, 1, 0, keys)).toBe(EFAULT);
    expect(s390x.getSkeys(vm, 0x5_0000, 1, 0, keys)).toBe(EFAULT);
    expect(s390x.getSkeys(vm, (1n << 64n) - 1n, 1, 0, keys)).toBe(EFAULT);
  });

  it('set before a hole or a bad key stays set', () => {
    const machine = new Machine().addMemory();
    expect(machine.setKeys(0x3ff, 0x40, 0x50)).toBe(EFAULT);
    expect(machine.keys(0x3ff, 1)).toEqual(Uint8Array.of(0x40));
    expect(machine.setKeys(0x10, 0x60, 0x61)).toBe(EINVAL);
    expect(machine.keys(0x10, 2)).toEqual(Uint8Array.of(0x60, 0));
  });

  it('a store that the mapping forbids faults nothing in, so that a key has nowhere to be', () => {
    // 6.12 in the lab: npm run fuzz -- --arch s390x --seed 918273 --ops 1500
    const machine = new Machine().addMemory();
    machine.setKeys(0x20, 0x10);
    const { kernel } = machine;
    const hva = kernel.mmap(MIB, PROT.NONE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, MIB, 0);
    kernel.mmapFixed(hva, MIB, PROT.READ, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0);
    expect(machine.slot(1, 4 * MIB, MIB, hva)).toBe(0);
    expect(machine.absoluteWrite(4 * MIB, 8)).toBe(4);
    expect(machine.setKeys(0x400, 0x10)).toBe(EFAULT);
    // A load faults its page in.
    expect(machine.absoluteRead(4 * MIB, 8)).toBe(0);
    expect(machine.setKeys(0x400, 0x10)).toBe(0);
  });

  it('accesses set R and C', () => {
    const machine = new Machine().addMemory();
    machine.setKeys(0x20, 0x10, 0x18, 0x90);
    machine.read(0x2_0000, 8);
    machine.write(0x2_1000, 8);
    expect(machine.keys(0x20, 3)).toEqual(Uint8Array.of(0x14, 0x1e, 0x90));
  });
});

describe('keys of other kernels and processes', () => {
  it('7.0 validates all before it sets any, and keeps what came before a hole', () => {
    const machine = new Machine({ release: '7.0' }).addMemory();
    expect(machine.setKeys(0x10, 0x60, 0x61)).toBe(EINVAL);
    expect(machine.keys(0x10, 1)).toEqual(Uint8Array.of(0));
    expect(machine.setKeys(0x3ff, 0x40, 0x50)).toBe(EFAULT);
    expect(machine.keys(0x3ff, 1)).toEqual(Uint8Array.of(0x40));
    expect(machine.s390x.getSkeys(machine.vm, 0x400, 1, 0, new Uint8Array(1))).toBe(EFAULT);
  });

  it('KEYOP does not turn keys on, and the first SET_SKEYS clears what it set', () => {
    const { s390x, vm, ...machine } = new Machine({ release: '7.0' }).addMemory();
    expect(s390x.keyOp(vm, 0x5000, 3, Uint8Array.of(0x51))).toBe(0);
    const key = new Uint8Array(1);
    expect(s390x.keyOp(vm, 0x5000, 1, key)).toBe(0);
    expect(key[0]).toBe(0x50);
    expect(s390x.getSkeys(vm, 5, 1, 0, key)).toBe(1);
    expect(s390x.setSkeys(vm, 6, 1, 0, Uint8Array.of(0x70))).toBe(0);
    const keys = new Uint8Array(2);
    expect(s390x.getSkeys(vm, 5, 2, 0, keys)).toBe(0);
    expect(keys).toEqual(Uint8Array.of(0, 0x70));
    // From here on they stay until their slot goes or moves.
    expect(machine.kernel.madvise(machine.hva, MIB, 4)).toBe(0);
    expect(s390x.getSkeys(vm, 5, 2, 0, keys)).toBe(0);
    expect(keys).toEqual(Uint8Array.of(0, 0x70));
    expect(machine.kernel.setUserMemoryRegion(vm, 0, 0, 16 * MIB, 4 * MIB, machine.hva)).toBe(0);
    expect(s390x.getSkeys(vm, 0x1005, 2, 0, keys)).toBe(0);
    expect(keys).toEqual(Uint8Array.of(0, 0));
  });

  it('7.0: user space sets R and C of the pages that it touches itself, and that the guest has', () => {
    const machine = new Machine({ release: '7.0' }).addMemory();
    for (const at of [0x1_f000, 0x2_0000, 0x2_1000, 0x2_2000]) machine.read(at, 8);
    machine.setKeys(0x1f, 0, 0, 0, 0, 0);
    machine.poke(0x2_0ff8, new Uint8Array(16));
    expect(machine.keys(0x1f, 5)).toEqual(Uint8Array.of(0, 6, 6, 0, 0));
    machine.setKeys(0x1f, 0, 0, 0, 0, 0);
    machine.peek(0x2_2000, 0x1008);
    expect(machine.keys(0x1f, 5)).toEqual(Uint8Array.of(0, 0, 0, 4, 0));
  });

  it.each([
    ['6.12', 0x50],
    ['7.0', 1],
  ])('%s: of a process or of a VM', (release, expected) => {
    const machine = new Machine({ release }).addMemory();
    const other = machine.kernel.createVm(machine.kernel.openKvm(), 0);
    expect(machine.kernel.setUserMemoryRegion(other, 0, 0, 16 * MIB, 4 * MIB, machine.hva)).toBe(0);
    machine.setKeys(3, 0x50);
    const keys = new Uint8Array(1);
    const result = machine.s390x.getSkeys(other, 0x1003, 1, 0, keys);
    expect(result === 0 ? keys[0] : result).toBe(expected);
  });

  it('KEYOP reads, resets R and sets', () => {
    const machine = new Machine({ release: '7.0' }).addMemory();
    const { s390x, vm } = machine;
    const key = Uint8Array.of(0x37);
    expect(s390x.keyOp(vm, 0x5000, 3, key)).toBe(0);
    expect(key[0]).toBe(0);
    expect(s390x.keyOp(vm, 0x5000, 1, key)).toBe(0);
    expect(key[0]).toBe(0x36);
    expect(s390x.keyOp(vm, 0x5000, 2, key)).toBe(0);
    expect(key[0]).toBe(0x06);
    expect(s390x.keyOp(vm, 0x5000, 1, key)).toBe(0);
    expect(key[0]).toBe(0x32);
    expect(s390x.keyOp(vm, 0x5000, 4, key)).toBe(EINVAL);
    expect(new Machine().s390x.keyOp(vm, 0, 1, key)).toBe(-25);
  });
});

describe('CMMA, recorded', () => {
  function get(machine: Machine, start: number, count: number, flags: number, values: Uint8Array | null) {
    const log = BigUint64Array.of(BigInt(start), BigInt(count), 0xffffn);
    const result = machine.s390x.getCmmaBits(machine.vm, log, flags, values);
    return { result, log: [...log].map(Number) };
  }

  const set = (machine: Machine, start: number, mask: bigint, ...values: number[]) =>
    machine.s390x.setCmmaBits(machine.vm, start, values.length, 0, mask, Uint8Array.from(values));

  it('is not there unless it was enabled before the first vCPU', () => {
    const machine = new Machine().addMemory();
    expect(get(machine, 0, 16, PEEK, new Uint8Array(16)).result).toBe(ENXIO);
    expect(set(machine, 0, ~0n, 0)).toBe(ENXIO);
    expect(machine.kernel.setDeviceAttr(machine.vm, 0, 0, null)).toBe(EBUSY);
    // Migration mode works without it.
    expect(machine.kernel.setDeviceAttr(machine.vm, 4, 1n, null)).toBe(0);
  });

  it('gives nothing before it was used', () => {
    const machine = new Machine({ cmma: true }).addMemory();
    const values = new Uint8Array(16).fill(0xee);
    expect(get(machine, 7, 16, PEEK, values)).toEqual({ result: 0, log: [0, 0, 0] });
    expect(values[0]).toBe(0xee);
    expect(get(machine, 0, 16, 0, values).result).toBe(EINVAL);
    expect(get(machine, 0, 16, 2, values).result).toBe(EINVAL);
  });

  it('keeps the bits that the mask has 24 bits up', () => {
    const machine = new Machine({ cmma: true }).addMemory();
    const values = new Uint8Array(16).fill(0xee);
    expect(set(machine, 0, 3n, 0, 0, 3, 0, 2)).toBe(0);
    expect(get(machine, 0, 16, PEEK, values)).toEqual({ result: 0, log: [0, 16, 0] });
    expect(values).toEqual(new Uint8Array(16));
    expect(set(machine, 0, 0xffff_ffff_ffff_ffffn, 0, 0, 3, 0, 2, 0x43, 0x40, 0xff)).toBe(0);
    expect(get(machine, 0, 8, PEEK, values).result).toBe(0);
    expect([...values.subarray(0, 8)]).toEqual([0, 0, 3, 0, 2, 0x43, 0x40, 0x43]);
    expect(get(machine, 0x5_0000, 16, PEEK, values).result).toBe(EFAULT);
    expect(get(machine, 0x3fe, 16, PEEK, values).log).toEqual([0x3fe, 2, 0]);
    expect(get(machine, 0, 0, PEEK, values)).toEqual({ result: 0, log: [0, 0, 0] });
    expect(get(machine, 0, 16, PEEK, null)).toEqual({ result: EFAULT, log: [0, 16, 0xffff] });
  });

  it('SET_CMMA_BITS refuses what the kernel refuses', () => {
    const machine = new Machine({ cmma: true }).addMemory();
    const { s390x, vm } = machine;
    expect(s390x.setCmmaBits(vm, 0, 1, 1, 0n, new Uint8Array(1))).toBe(EINVAL);
    expect(s390x.setCmmaBits(vm, 0, 0x10_0001, 0, 0n, null)).toBe(EINVAL);
    expect(s390x.setCmmaBits(vm, 0, 0, 0, 0n, null)).toBe(0);
    expect(s390x.setCmmaBits(vm, 0, 2, 0, 0n, new Uint8Array(1))).toBe(EFAULT);
    expect(set(machine, 0x3ff, 0xff00_0000n, 3, 3)).toBe(EFAULT);
    const values = new Uint8Array(1);
    get(machine, 0x3ff, 1, PEEK, values);
    expect(values[0]).toBe(3);
  });

  it('migration wants dirty logging on every slot, and ends with it', () => {
    const machine = new Machine({ cmma: true });
    const start = () => machine.kernel.setDeviceAttr(machine.vm, 4, 1n, null);
    const status = () => {
      const value = new Uint8Array(8);
      expect(machine.kernel.getDeviceAttr(machine.vm, 4, 2n, value)).toBe(0);
      return value[7];
    };
    expect(start()).toBe(EINVAL);
    machine.addMemory(LOG);
    machine.slot(1, 16 * MIB, MIB, machine.map(MIB));
    expect(start()).toBe(EINVAL);
    machine.slot(1, 16 * MIB, 0, machine.hva);
    expect(start()).toBe(0);
    expect(start()).toBe(0);
    expect(status()).toBe(1);
    machine.slot(0, 0, 4 * MIB, machine.hva, 0);
    expect(status()).toBe(0);
  });

  it('is harvested 64 pages at a time', () => {
    const machine = new Machine({ cmma: true }).addMemory(LOG);
    set(machine, 0, 0xff00_0000n, 0, 0, 3, 0, 2, 0x43, 0x40);
    machine.kernel.setDeviceAttr(machine.vm, 4, 1n, null);
    const values = new Uint8Array(64);
    expect(get(machine, 0, 64, 0, values)).toEqual({ result: 0, log: [0, 64, 960] });
    expect([...values.subarray(0, 8)]).toEqual([0, 0, 3, 0, 2, 0x43, 0x40, 0]);
    expect(get(machine, 0, 64, 0, values)).toEqual({ result: 0, log: [64, 64, 896] });
    expect(get(machine, 0, 64, 0, values)).toEqual({ result: 0, log: [128, 64, 832] });
    // From the end of memory on, the search begins again at its start.
    expect(get(machine, 0x400, 16, 0, values)).toEqual({ result: 0, log: [192, 16, 816] });
    // The rest, and then nothing.
    expect(get(machine, 0, 2000, 0, new Uint8Array(2000))).toEqual({ result: 0, log: [208, 816, 0] });
    expect(get(machine, 0, 64, 0, values)).toEqual({ result: 0, log: [0, 0, 0] });
  });

  it('never goes across a hole', () => {
    const machine = new Machine({ cmma: true }).addMemory(LOG);
    machine.slot(1, 4 * MIB + 0x1000, MIB, machine.map(MIB), LOG);
    set(machine, 0, 0xff00_0000n, 3);
    machine.kernel.setDeviceAttr(machine.vm, 4, 1n, null);
    const values = new Uint8Array(64);
    expect(get(machine, 0x3f0, 64, 0, values).log).toEqual([0x3f0, 16, 1280 - 16]);
    expect(get(machine, 0x400, 64, 0, values).log).toEqual([0x401, 64, 1280 - 80]);
  });
});

it('UCAS is unknown to a kernel without ucontrol VMs; VCPU_FAULT says whether a page is there', () => {
  const machine = new Machine().addMemory();
  expect(machine.s390x.ucasMap(machine.vcpu, machine.hva, 0, MIB)).toBe(ENOTTY);
  expect(machine.s390x.ucasUnmap(machine.vcpu, machine.hva, 0, MIB)).toBe(ENOTTY);
  expect(machine.s390x.vcpuFault(machine.vcpu, 0x1000)).toBe(0);
  expect(machine.s390x.vcpuFault(machine.vcpu, 0x500_0000)).toBe(EFAULT);
});
