import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  encodeHpte,
  HPTES_PER_GROUP,
  primaryGroup,
  VRMA_VSID,
  vrmaSegment,
} from '../../../lib/arch/ppc64/model/index.ts';
import { Kvm, PROT, type Vcpu, type Vm } from '../../../lib/index.ts';
import type { EmulatedKernel } from '../../../lib/raw.ts';
import { type GuestOp, type GuestProgram, load, spin, store } from '../../../lib/raw.ts';
import { backends, UNIT } from '../handles/backends.ts';
import { loadGuest } from '../handles/guests.ts';

/** Where the device is; and its MMIO registers, behind it. */
const DEVICE = 16 * UNIT;
const REGISTERS = DEVICE + UNIT;

/** A file that stands in for a device's memory: a thing with a descriptor that can be mapped. */
class DeviceFile {
  readonly #folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-device-'));
  readonly fd = openSync(join(this.#folder, 'bar'), 'w+');

  constructor(size: number) {
    ftruncateSync(this.fd, size);
  }

  byteAt(offset: number): number {
    const byte = new Uint8Array(1);
    readSync(this.fd, byte, 0, 1, offset);
    return byte[0]!;
  }

  close(): void {
    closeSync(this.fd);
    rmSync(this.#folder, { recursive: true });
  }
}

describe.each(backends)('a device region on $name', ({ options }) => {
  let kvm: Kvm;
  let vm: Vm;
  let file: DeviceFile;

  beforeEach(() => {
    kvm = Kvm.open(options);
    vm = kvm.createVm();
    file = new DeviceFile(UNIT);
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
  });
  afterEach(() => {
    vm.close();
    kvm.close();
    file.close();
  });

  it('is a memslot like any other: nothing of ours is in its flags', () => {
    const region = vm.memory.addDevice(DEVICE, kvm.mapDevice(file.fd, { size: UNIT }), { name: 'bar' });
    expect([region.kind, vm.memory.find(DEVICE + 5)]).toEqual(['device', region]);
    expect([...vm.memslots].map(({ flags }) => flags)).toEqual([0, 0]);
    region.remove();
    expect([vm.memslots.size, vm.memory.find(DEVICE)]).toEqual([1, undefined]);
  });

  it('lies between RAM and MMIO, and overlaps neither', () => {
    vm.memory.addMmio(REGISTERS, 0x100, {}, { name: 'registers' });
    vm.memory.addDevice(DEVICE, kvm.mapDevice(file.fd, { size: UNIT }));
    expect([...vm.memory.regions()].map(({ kind }) => kind)).toEqual(['ram', 'device', 'mmio']);
    const another = kvm.mapDevice(file.fd, { size: UNIT });
    expect(() => vm.memory.addDevice(REGISTERS, another)).toThrow(/EEXIST.*registers/);
    expect(() => vm.memory.addDevice(0, another)).toThrow(/EEXIST/);
  });

  it('is read and written by the host through copies, page by page', () => {
    const mapping = kvm.mapDevice(file.fd, { size: UNIT });
    vm.memory.addDevice(DEVICE, mapping);
    vm.memory.writeU8(DEVICE + 3, 0x5a);
    expect(file.byteAt(3)).toBe(0x5a);
    const page = kvm.pageSize;
    mapping.protect(page, page, PROT.READ);
    expect(vm.memory.readU8(DEVICE + page)).toBe(0);
    expect(() => vm.memory.writeU8(DEVICE + page, 1)).toThrow(/EFAULT/);
    vm.memory.writeU8(DEVICE + 2 * page, 7);
    mapping.protect(page, page, PROT.READ | PROT.WRITE);
    vm.memory.writeU8(DEVICE + page, 1);
    expect([file.byteAt(page), file.byteAt(2 * page)]).toEqual([1, 7]);
  });

  it('faults where the device has taken its memory away, and is there again when that comes back', () => {
    vm.memory.addDevice(DEVICE, kvm.mapDevice(file.fd, { size: UNIT }));
    const last = DEVICE + UNIT - 1;
    vm.memory.writeU8(last, 9);
    ftruncateSync(file.fd, UNIT / 2);
    expect(() => vm.memory.readU8(last)).toThrow(/EFAULT/);
    expect(() => vm.memory.writeU8(last, 1)).toThrow(/EFAULT/);
    vm.memory.writeU8(DEVICE, 3);
    ftruncateSync(file.fd, UNIT);
    expect(vm.memory.readU8(last)).toBe(0);
  });
});

describe.each(backends.filter(({ options: { backend, arch } }) => backend === 'native' || arch === 'x86_64'))(
  'a guest of $name',
  ({ options }) => {
    let kvm: Kvm;
    let vm: Vm;
    let vcpu: Vcpu;
    let file: DeviceFile;

    beforeEach(() => {
      kvm = Kvm.open(options);
      vm = kvm.createVm();
      file = new DeviceFile(UNIT);
      vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
      vcpu = vm.createVcpu();
    });
    afterEach(() => {
      vm.close();
      kvm.close();
      file.close();
    });

    it('reaches a device without exits, and its registers through handlers', async () => {
      const seen: unknown[] = [];
      vm.memory.addDevice(DEVICE, kvm.mapDevice(file.fd, { size: UNIT }));
      vm.memory.addMmio(REGISTERS, 16, { write: (offset, value) => seen.push([offset, value]), read: () => 0x33 });
      loadGuest(kvm, vm, vcpu, [
        { store: DEVICE + 8, value: 0x41 },
        { store: REGISTERS + 4, value: 0x42 },
        { load: REGISTERS, storedAt: DEVICE + 9 },
        { load: DEVICE + 8, storedAt: 0x3000 },
      ]);
      expect(await vcpu.run()).toEqual({ reason: 'HLT' });
      expect([file.byteAt(8), file.byteAt(9), vm.memory.readU8(0x3000), seen]).toEqual([0x41, 0x33, 0x41, [[4, 0x42]]]);
    });

    it('finds MMIO where a device region goes, and the device where one comes', async () => {
      const region = vm.memory.addDevice(DEVICE, kvm.mapDevice(file.fd, { size: UNIT }));
      loadGuest(kvm, vm, vcpu, [
        { store: DEVICE, value: 1 },
        { store: REGISTERS, value: 0 },
        { store: DEVICE + 1, value: 2 },
        { store: REGISTERS, value: 0 },
        { store: DEVICE + 2, value: 3 },
      ]);
      expect(await vcpu.run()).toMatchObject({ reason: 'MMIO', gpa: REGISTERS });
      region.remove();
      expect(await vcpu.run()).toMatchObject({ reason: 'MMIO', gpa: DEVICE + 1, isWrite: true });
      expect(await vcpu.run()).toMatchObject({ reason: 'MMIO', gpa: REGISTERS });
      vm.memory.addDevice(DEVICE, kvm.mapDevice(file.fd, { size: UNIT }));
      expect(await vcpu.run()).toEqual({ reason: 'HLT' });
      expect([0, 1, 2].map((at) => file.byteAt(at))).toEqual([1, 0, 3]);
    });
  },
);

describe.each([4096, 65536])('a ppc64 guest with a hashed page table, host pages of %i bytes', (pageSize) => {
  const ORDER = 18;
  let kvm: Kvm;
  let vm: Vm;
  let vcpu: Vcpu;
  let file: DeviceFile;

  beforeEach(() => {
    kvm = Kvm.open({ backend: 'emulated', arch: 'ppc64', pageSize });
    vm = kvm.createVm();
    file = new DeviceFile(UNIT);
    vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
    vm.hpt.allocate(ORDER);
    for (const ea of [DEVICE, REGISTERS]) enter(ea);
    vcpu = vm.createVcpu();
    vcpu.ppc64.enablePapr();
  });
  afterEach(() => {
    vm.close();
    kvm.close();
    file.close();
  });

  /** An entry that maps a real-mode address to itself. */
  function enter(ea: number): void {
    const table = vm.hpt.read();
    let slot = primaryGroup(vrmaSegment(), ea, ORDER) * HPTES_PER_GROUP;
    while (table.isValid(slot)) slot++;
    table.set(slot, encodeHpte({ vsid: VRMA_VSID, segmentSize: '1T', offset: ea, ra: ea, bolted: true, pp: 0 }));
    vm.hpt.write(table);
  }

  function guest(...ops: readonly GuestOp[]): void {
    const emulated: EmulatedKernel = kvm.emulated!;
    emulated.loadGuest(
      vcpu.fd,
      (function* (): GuestProgram {
        for (const op of ops) {
          const value = yield op;
          if (op.op === 'load') yield store(0x100, op.size, value as bigint);
        }
        yield spin;
      })(),
    );
  }

  it('reaches handlers through entries with key 31, which is never shown', () => {
    const seen: unknown[] = [];
    vm.memory.addMmio(REGISTERS, 16, { write: (offset, value) => seen.push([offset, value]), read: () => 0x1234 });
    enter(0);
    guest(store(REGISTERS + 4, 4, 0x42n), load(REGISTERS, 2));
    expect(vcpu.runSync()).toEqual({ reason: 'INTR' });
    expect([seen, vm.memory.readU16(0x100)]).toEqual([[[4, 0x42]], 0x1234]);
    expect(vm.hpt.translate(REGISTERS, [vrmaSegment()]).result.entry?.key).toBe(0);
  });

  it('finds a device where there was MMIO, and MMIO where the device goes, with the same entry', () => {
    guest(store(DEVICE, 1, 1n), store(DEVICE + 1, 1, 2n), store(REGISTERS, 1, 0n), store(DEVICE + 2, 1, 3n));
    expect(vcpu.runSync()).toMatchObject({ reason: 'MMIO', gpa: DEVICE });
    const region = vm.memory.addDevice(DEVICE, kvm.mapDevice(file.fd, { size: UNIT }));
    expect(vcpu.runSync()).toMatchObject({ reason: 'MMIO', gpa: REGISTERS });
    region.remove();
    expect(vcpu.runSync()).toMatchObject({ reason: 'MMIO', gpa: DEVICE + 2, data: Uint8Array.of(3) });
    expect([0, 1, 2].map((at) => file.byteAt(at))).toEqual([0, 2, 0]);
  });

  it('is refused stores to a page that the host may only read, and lets loads pass', () => {
    const mapping = kvm.mapDevice(file.fd, { size: UNIT });
    vm.memory.addDevice(DEVICE, mapping);
    enter(0);
    mapping.protect(0, pageSize, PROT.READ);
    guest(load(DEVICE, 1), store(DEVICE, 1, 5n));
    expect(() => vcpu.runSync()).toThrow(/EFAULT/);
    expect(file.byteAt(0)).toBe(0);
    mapping.protect(0, pageSize, PROT.READ | PROT.WRITE);
    expect(vcpu.runSync()).toEqual({ reason: 'INTR' });
    expect(file.byteAt(0)).toBe(5);
  });

  it('faults where a page of the device has gone', () => {
    const mapping = kvm.mapDevice(file.fd, { size: UNIT });
    vm.memory.addDevice(DEVICE, mapping);
    guest(store(DEVICE, 1, 1n), store(DEVICE, 1, 2n));
    ftruncateSync(file.fd, 0);
    expect(() => vcpu.runSync()).toThrow(/EFAULT/);
    ftruncateSync(file.fd, UNIT);
    expect(vcpu.runSync()).toEqual({ reason: 'INTR' });
    expect(file.byteAt(0)).toBe(2);
  });
});
