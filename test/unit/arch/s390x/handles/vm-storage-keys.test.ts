import { afterEach, describe, expect, it } from 'vitest';
import { formatRange } from '../../../../../lib/arch/s390x/model/index.ts';
import {
  addressSpaceRanges,
  CMMA_USAGE,
  dumpMemory,
  dumpStorageKeys,
  Kvm,
  KvmError,
} from '../../../../../lib/index.ts';
import { REAL_64, TABLES, TypedGuest } from './typed-guest.ts';

const MIB = 0x10_0000;
const guests: TypedGuest[] = [];
const guest = (...args: ConstructorParameters<typeof TypedGuest>): TypedGuest => {
  const made = new TypedGuest(...args);
  guests.push(made);
  return made;
};
afterEach(() => {
  for (const made of guests.splice(0)) made.close();
});

describe('vm.storageKeys', () => {
  it('has none before they are used, which is no error', () => {
    const g = guest();
    expect(g.vm.storageKeys.getBytes(0, 4)).toBeNull();
    expect(g.vm.storageKeys.get(0, 4)).toBeNull();
    g.vm.storageKeys.setBytes(0, Uint8Array.of(0));
    expect(g.vm.storageKeys.getBytes(0, 4)).toEqual(new Uint8Array(4));
  });

  it('sets and gets keys as bytes and taken apart', () => {
    const g = guest();
    const key = { acc: 9, fetchProtection: true, reference: false, change: true };
    g.vm.storageKeys.set(0x10, [key, { ...key, acc: 0 }]);
    expect(g.vm.storageKeys.getBytes(0x0f, 4)).toEqual(Uint8Array.of(0, 0x9a, 0x0a, 0));
    const part = new Uint8Array(6).fill(0xff).subarray(1, 5);
    expect(g.vm.storageKeys.getBytes(0x0f, part)).toBe(part);
    expect([...new Uint8Array(part.buffer)]).toEqual([0xff, 0, 0x9a, 0x0a, 0, 0xff]);
    expect(g.vm.storageKeys.get(0x10, 1)).toEqual([key]);
    expect(() => g.vm.storageKeys.set(0, [{ ...key, acc: 16 }])).toThrow(RangeError);
  });

  it('sets keys again that the kernel loses where no page table is', () => {
    // The kernel alone loses the first key of a segment that was never touched.
    const kvm = Kvm.open({ backend: 'emulated', arch: 's390x' });
    const vm = kvm.createVm();
    const hva = kvm.calls.mmap(2 * MIB, 3, 0x21, -1, 0, MIB, 0);
    vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0, memorySize: 2 * MIB, userspaceAddr: hva });
    const s390x = kvm.calls.s390x!;
    expect(s390x.setSkeys(vm.fd, 0, 2, 0, Uint8Array.of(0x10, 0x20))).toBe(0);
    expect(vm.storageKeys.getBytes(0, 2)).toEqual(Uint8Array.of(0, 0x20));
    vm.storageKeys.setBytes(0x100, Uint8Array.of(0x10, 0x20));
    expect(vm.storageKeys.getBytes(0x100, 2)).toEqual(Uint8Array.of(0x10, 0x20));
    vm.close();
    kvm.close();
  });

  it('says which frame has no memory, and which byte is no key', () => {
    const g = guest();
    g.vm.memory.write(0, new Uint8Array(8));
    g.vm.storageKeys.setBytes(0, Uint8Array.of(0));
    const far = () => g.vm.storageKeys.getBytes(0x3fe, 4);
    expect(far).toThrow(
      expect.objectContaining({ code: 'EFAULT', explanation: 'frame 0x400 of the 4 from 0x3fe on is in no memslot' }),
    );
    expect(() => g.vm.storageKeys.setBytes(5, Uint8Array.of(0x10, 0x11))).toThrow(
      expect.objectContaining({
        code: 'EINVAL',
        explanation: 'the key 0x11 of frame 0x6 has bit 0x01, which no key has',
      }),
    );
    expect(g.vm.storageKeys.getBytes(5, 1)).toEqual(Uint8Array.of(0x10));
    expect(() => g.vm.storageKeys.getBytes(0, 0)).toThrow(
      expect.objectContaining({ code: 'EINVAL', explanation: 'count 0 is not 1 to 1048576' }),
    );
    g.vm.close();
    expect(() => g.vm.storageKeys.getBytes(0, 1)).toThrow(expect.objectContaining({ explanation: 'the VM is closed' }));
  });

  it('takes as many calls as there are keys', () => {
    const g = guest({ mebibytes: 4200 });
    const keys = new Uint8Array(1_048_577).fill(0x20);
    g.vm.storageKeys.setBytes(16, keys);
    g.trace.length = 0;
    // toEqual takes seconds for so many.
    expect(Buffer.compare(g.vm.storageKeys.getBytes(16, keys.length) ?? Buffer.alloc(0), keys)).toBe(0);
    expect(g.calls('getSkeys')).toHaveLength(2);
  });

  it('has key operations from 7.0 on', () => {
    const old = guest();
    expect(() => old.vm.storageKeys.iske(0x1000)).toThrow(
      expect.objectContaining({ code: 'ENOTTY', explanation: 'kernels before 7.0 have no KEYOP' }),
    );
    const g = guest({ release: '7.0' });
    const key = { acc: 3, fetchProtection: false, reference: true, change: true };
    expect(g.vm.storageKeys.sske(0x1000, key).acc).toBe(0);
    expect(g.vm.storageKeys.iske(0x1000)).toEqual(key);
    expect(g.vm.storageKeys.rrbe(0x1000)).toEqual({ reference: true, change: true });
    expect(g.vm.storageKeys.iske(0x1000).reference).toBe(false);
    expect(() => g.vm.storageKeys.iske(16 * MIB)).toThrow(
      expect.objectContaining({ code: 'EFAULT', explanation: 'no memslot has absolute 0x1000000' }),
    );
  });
});

describe('vm.cmma', () => {
  const withCmma = () => guest({ prepare: (vm) => vm.cmma.enable() });

  it('sets and peeks values', () => {
    const { vm } = withCmma();
    expect(vm.cmma.peek(0, 4).values).toHaveLength(0);
    vm.cmma.set(2, Uint8Array.of(CMMA_USAGE.VOLATILE, 0x41));
    expect(vm.cmma.peek(1, 4)).toEqual({ startGfn: 1, values: Uint8Array.of(0, 3, 0x41, 0), remaining: 0 });
    vm.cmma.set(2, Uint8Array.of(0, 0), 0x40);
    expect(vm.cmma.peek(2, 2).values).toEqual(Uint8Array.of(3, 1));
    vm.cmma.reset();
    expect(vm.cmma.peek(2, 2).values).toEqual(Uint8Array.of(0, 0));
  });

  it('harvests in migration mode', () => {
    const { vm } = withCmma();
    vm.cmma.set(0, Uint8Array.of(1, 2, 3));
    expect(() => vm.cmma.startMigration()).toThrow(
      expect.objectContaining({ code: 'EINVAL', explanation: 'slot 0 has no dirty logging' }),
    );
    expect(() => vm.cmma.harvest(0, 16)).toThrow(
      expect.objectContaining({ explanation: expect.stringContaining('PEEK') }),
    );
    vm.dirtyPages.start();
    vm.cmma.startMigration();
    expect(vm.cmma.migrating).toBe(true);
    expect(vm.cmma.harvest(0, 16)).toMatchObject({ startGfn: 0, remaining: 1008 });
    expect(vm.cmma.harvest(0, 16).startGfn).toBe(16);
    vm.cmma.stopMigration();
    expect(vm.cmma.migrating).toBe(false);
  });

  it('says what it needs', () => {
    const g = guest();
    expect(() => g.vm.cmma.peek(0, 1)).toThrow(expect.objectContaining({ code: 'ENXIO' }));
    expect(() => g.vm.cmma.enable()).toThrow(
      expect.objectContaining({ code: 'EBUSY', explanation: 'CMMA is switched on before the first vCPU is made' }),
    );
    expect(g.vm.s390x.memoryLimit).toBe(2n ** 47n);
    expect(() => g.vm.s390x.setMemoryLimit(2n ** 48n)).toThrow(expect.objectContaining({ code: 'E2BIG' }));
    expect(() => g.vm.s390x.setMemoryLimit(2n ** 32n)).toThrow(expect.objectContaining({ code: 'EBUSY' }));
  });
});

describe.each(['6.12', '7.2'])('copies of what frames have, on %s', (release) => {
  const make = (mebibytes = 4) => guest({ release, mebibytes, prepare: (vm) => vm.cmma.enable() }).vm;
  const FRAMES = 1024;

  it('storage keys, to where they differ', () => {
    const vm = make();
    const other = make();
    expect(vm.storageKeys.copyTo(other)).toBe(0);
    expect(other.storageKeys.getBytes(0, 1)).toBeNull();
    vm.memory.fill(0, 4 * MIB, 1);
    vm.storageKeys.setBytes(0, new Uint8Array(FRAMES));
    vm.storageKeys.setBytes(0, Uint8Array.of(0x10));
    vm.storageKeys.setBytes(0x201, Uint8Array.of(0x32, 0x48));
    vm.storageKeys.setBytes(FRAMES - 1, Uint8Array.of(0xf8));
    const keys = vm.storageKeys.getBytes(0, FRAMES)!;
    expect([keys[0], keys[0x201], keys[0x202], keys[FRAMES - 1]].map((key) => key! & 0xf8)).toEqual([
      0x10, 0x30, 0x48, 0xf8,
    ]);
    vm.storageKeys.copyTo(other);
    expect(other.storageKeys.getBytes(0, FRAMES)).toEqual(keys);
    expect(vm.storageKeys.copyTo(other)).toBe(0);
    // A frame's key that became 0 is one too, and sets no more than its neighbours.
    vm.storageKeys.setBytes(0x201, Uint8Array.of(0));
    expect(vm.storageKeys.copyTo(other)).toBe(256);
    expect(other.storageKeys.getBytes(0, FRAMES)).toEqual(vm.storageKeys.getBytes(0, FRAMES));
  });

  it('CMMA values, to where they differ', () => {
    const vm = make();
    const other = make();
    expect(vm.cmma.copyTo(other)).toBe(0);
    vm.cmma.set(0x100, Uint8Array.of(CMMA_USAGE.VOLATILE, 0x41));
    vm.cmma.set(FRAMES - 1, Uint8Array.of(CMMA_USAGE.UNUSED));
    expect(vm.cmma.copyTo(other)).toBe(512);
    expect(other.cmma.peek(0, FRAMES).values).toEqual(vm.cmma.peek(0, FRAMES).values);
    expect(other.cmma.peek(0x100, 2).values).toEqual(Uint8Array.of(3, 0x41));
    vm.cmma.set(0x101, Uint8Array.of(0));
    expect(vm.cmma.copyTo(other)).toBe(256);
    expect(other.cmma.peek(0x101, 1).values).toEqual(Uint8Array.of(0));
  });

  it('say what the other VM lacks', () => {
    const vm = make();
    vm.storageKeys.setBytes(FRAMES - 1, Uint8Array.of(0x10));
    vm.cmma.set(FRAMES - 1, Uint8Array.of(1));
    const small = make(2);
    // Those that have no memory there.
    small.storageKeys.setBytes(0, Uint8Array.of(0));
    expect(() => vm.storageKeys.copyTo(small)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
    const plain = guest({ release }).vm;
    expect(() => vm.cmma.copyTo(plain)).toThrow(expect.objectContaining({ code: 'ENXIO' }));
    expect(() => vm.cmma.copyTo({} as never)).toThrow('"target.cmma"');
    expect(() => vm.storageKeys.copyTo(null as never)).toThrow('"target"');
  });
});

describe('whole guests', () => {
  it('dumps storage keys, none before they are used', () => {
    const g = guest({ mebibytes: 1 });
    expect([...dumpStorageKeys(g.vm)]).toEqual([]);
    g.vm.storageKeys.setBytes(3, Uint8Array.of(0x3e));
    const lines = [...dumpStorageKeys(g.vm)];
    expect(lines).toHaveLength(256);
    expect(lines.slice(2, 5)).toEqual([
      'page=002: key(0) => ACC=0, FP=0, REF=0, CH=0',
      'page=003: key(62) => ACC=3, FP=1, REF=1, CH=1',
      'page=004: key(0) => ACC=0, FP=0, REF=0, CH=0',
    ]);
  });

  it('dumps memory, slot by slot', () => {
    const g = guest({ mebibytes: 1 });
    g.vm.memory.addRam(8 * MIB, g.kvm.mapAnonymous(MIB));
    g.vm.memory.write(8 * MIB + 5, Uint8Array.of(7));
    const runs = [...dumpMemory(g.vm)];
    expect(runs.map(({ gaddr }) => gaddr)).toEqual(
      [0, 8 * MIB].flatMap((start) => Array.from({ length: 16 }, (_, i) => start + i * 0x1_0000)),
    );
    expect(runs[16]!.bytes.subarray(0, 8)).toEqual(Uint8Array.of(0, 0, 0, 0, 0, 7, 0, 0));
  });

  it('lists an address space', () => {
    const g = guest();
    g.translate([{ frame: TABLES.DATA }, { frame: TABLES.DATA + 0x1000 }, { frame: TABLES.DATA, bits: 0x200n }]);
    expect([...addressSpaceRanges(g.vcpu)].map(formatRange)).toEqual([
      '0x0000000000100000-0x0000000000101fff -> 0x0000000000180000     8 KiB 4 KiB rwx',
      '0x0000000000102000-0x0000000000102fff -> 0x0000000000180000     4 KiB 4 KiB r-x',
    ]);
    expect([...addressSpaceRanges(g.vcpu, { asce: 0x20 })]).toEqual([]);
    g.latch(REAL_64);
    expect([...addressSpaceRanges(g.vcpu)]).toEqual([]);
  });
});

it('is missing on other architectures, with a reason', () => {
  const kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  const vm = kvm.createVm();
  const vcpu = vm.createVcpu();
  for (const use of [
    () => vm.memOp,
    () => vm.storageKeys,
    () => vm.cmma,
    () => vcpu.memOp,
    () => vcpu.s390x.initialReset(),
  ]) {
    expect(use).toThrow(KvmError);
    expect(use).toThrow(expect.objectContaining({ code: 'ENOTTY', explanation: expect.stringContaining('x86_64') }));
  }
  vm.close();
  kvm.close();
});
