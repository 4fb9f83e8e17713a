import { afterEach, describe, expect, it, vi } from 'vitest';
import { KvmError, ProgramInterruption } from '../../../../../lib/index.ts';
import { DAT_64, MIB, REAL_64, TABLES, TypedGuest } from './typed-guest.ts';

const guests: TypedGuest[] = [];
const guest = (...args: ConstructorParameters<typeof TypedGuest>): TypedGuest => {
  const made = new TypedGuest(...args);
  guests.push(made);
  return made;
};
afterEach(() => {
  for (const made of guests.splice(0)) made.close();
  vi.restoreAllMocks();
});

const bytes = (length: number, seed = 1): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 7 + seed) & 0xff);
const IN_SEGMENT = MIB;

/** What `call` throws. */
function thrown<T extends Error>(call: () => unknown, type: new (...args: never[]) => T): T {
  try {
    call();
  } catch (error) {
    expect(error).toBeInstanceOf(type);
    return error as T;
  }
  throw new Error('nothing was thrown');
}

describe('vcpu.memOp', () => {
  it('reads and writes through translation tables, each as one call', () => {
    const g = guest();
    g.translate([{ frame: TABLES.DATA + 0x1000 }, { frame: TABLES.DATA }]);
    g.trace.length = 0;
    g.vcpu.memOp.write(IN_SEGMENT + 0xff8, bytes(16), { key: 0 });
    expect(g.calls('memOp')).toHaveLength(1);
    expect(g.peek(TABLES.DATA + 0x1ff8, 8)).toEqual(bytes(16).subarray(0, 8));
    expect(g.peek(TABLES.DATA, 8)).toEqual(bytes(16).subarray(8));
    expect(g.vcpu.memOp.read(IN_SEGMENT + 0xff8, 16, { key: 0 })).toEqual(bytes(16));
    const into = new Uint8Array(16);
    expect(g.vcpu.memOp.read(BigInt(IN_SEGMENT + 0xff8), into, { key: 0 })).toBe(into);
    expect(into).toEqual(bytes(16));
  });

  it('throws what the CPU would have seen, with the walk that led to it', () => {
    const g = guest();
    g.translate([{ frame: TABLES.DATA }, { frame: TABLES.DATA, bits: 0x200n }]);
    const page = thrown(() => g.vcpu.memOp.read(IN_SEGMENT + 0x2123, 8, { key: 0 }), ProgramInterruption);
    expect(page).toMatchObject({
      code: 0x11,
      title: 'page-translation exception',
      gaddr: 0x10_2123n,
      address: 0x10_2123n,
    });
    expect(page.message).toMatch(/^page-translation exception \(0x11\) at 0x102123: .*invalid/);
    expect(page.walk).toContain('page table at 0x0000000000110000');
    // The failing address is that of the page, not of the access.
    const write = thrown(() => g.vcpu.memOp.write(IN_SEGMENT + 0xffe, bytes(4), { key: 0 }), ProgramInterruption);
    expect(write).toMatchObject({ code: 4, gaddr: 0x10_0ffen, address: 0x10_1000n });
    expect(write.explanation).toContain('protection bit');
    const missing = thrown(() => g.vcpu.memOp.read(0x8000_0000, 8, { key: 0 }), ProgramInterruption);
    expect(missing).toMatchObject({ code: 0x38 });
  });

  it('explains storage keys, low addresses and missing host memory', () => {
    const g = guest();
    const data = TABLES.DATA / 4096;
    g.translate([{ frame: TABLES.DATA }]);
    g.vm.storageKeys.set(data, [{ acc: 3, fetchProtection: true, reference: false, change: false }]);
    const fetch = thrown(() => g.vcpu.memOp.read(IN_SEGMENT, 8, { key: 4 }), ProgramInterruption);
    expect(fetch).toMatchObject({ code: 4, address: 0x10_0000n });
    expect(fetch.explanation).toBe(
      'access key 4 does not match the storage key of the frame at absolute 0x180000 (ACC 3), which protects against fetches and stores',
    );
    expect(g.vcpu.memOp.read(IN_SEGMENT, 8, { key: 3 })).toHaveLength(8);
    expect(g.vcpu.memOp.check(IN_SEGMENT, 8, 'store', { key: 4 })).toMatchObject({
      permitted: false,
      interruption: { code: 4, address: 0x10_0000n },
    });
    g.latch(REAL_64, { 0: 0x1000_0000n }, 0x20_0000n);
    const low = thrown(() => g.vcpu.memOp.write(8, bytes(8), { key: 0 }), ProgramInterruption);
    expect(low.explanation).toContain('low-address protection');
  });

  it('tells what checks permit, and changes nothing', () => {
    const g = guest();
    g.translate([{ frame: TABLES.DATA }, { frame: TABLES.DATA, bits: 0x200n }]);
    expect(g.vcpu.memOp.check(IN_SEGMENT, 4096, 'store', { key: 0 })).toEqual({ permitted: true });
    const refused = g.vcpu.memOp.check(IN_SEGMENT, 4097, 'store', { key: 0 });
    expect(refused).toMatchObject({ permitted: false, interruption: { code: 4, address: 0x10_1000n } });
    expect(g.vcpu.memOp.check(IN_SEGMENT, 4097, 'fetch', { key: 0 })).toEqual({ permitted: true });
    expect(thrown(() => g.vcpu.memOp.check(0, 70_000, 'fetch', { key: 0 }), KvmError)).toMatchObject({
      code: 'E2BIG',
      explanation: 'size 70000 is more than the 65536 bytes one MEM_OP moves',
    });
  });

  it('splits what is longer than one call, and says how much was moved', () => {
    const g = guest();
    g.latch(REAL_64);
    const data = bytes(150_000);
    g.trace.length = 0;
    g.vcpu.memOp.write(0x2_0001, data, { key: 0 });
    expect(g.calls('memOp').map((line) => line.split(', ').slice(2, 4))).toEqual([
      ['0x20001', '65536'],
      ['0x30001', '65536'],
      ['0x40001', '18928'],
    ]);
    expect(g.vcpu.memOp.read(0x2_0001, 150_000, { key: 0 })).toEqual(data);
    expect(g.peek(0x2_0001, 150_000)).toEqual(data);
    const end = 4 * MIB;
    const into = new Uint8Array(100_000);
    g.vm.memory.write(end - 70_000, bytes(70_000));
    const failed = thrown(() => g.vcpu.memOp.read(end - 70_000, into, { key: 0 }), ProgramInterruption);
    expect(failed).toMatchObject({ code: 5, transferred: 65_536, address: BigInt(end), gaddr: BigInt(end - 70_000) });
    expect(into.subarray(0, 65_536)).toEqual(bytes(70_000).subarray(0, 65_536));
    expect(into.subarray(65_536).every((byte) => byte === 0)).toBe(true);
  });

  it('warns once when an address means another one', () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const g = guest();
    g.vm.memory.write(0x2_0000, bytes(8));
    expect(g.vcpu.memOp.read(0x102_0000, 8, { key: 0 })).toEqual(bytes(8));
    g.vcpu.memOp.read(0x202_0000, 8, { key: 0 });
    expect(warn).toHaveBeenCalledTimes(1);
    expect(warn.mock.calls[0]![0]).toContain(
      'the PSW says 24-bit addressing, as it does on a vCPU that never ran, so that 0x1020000 means 0x20000',
    );
    const failed = thrown(() => g.vcpu.memOp.read(0x1a0_0000, 8, { key: 0 }), ProgramInterruption);
    expect(failed.code).toBe(5);
    expect(failed.explanation).toContain('so that 0x1a00000 means 0xa00000');
    g.latch(REAL_64);
    expect(thrown(() => g.vcpu.memOp.read(0x1a0_0000, 8, { key: 0 }), ProgramInterruption).explanation).not.toContain(
      'PSW',
    );
  });

  it('makes the interruption pending where that is asked for', () => {
    const g = guest();
    g.translate([{ frame: TABLES.DATA }]);
    expect(() => g.vcpu.memOp.read(IN_SEGMENT + 0x5000, 8, { key: 0, inject: true })).toThrow(ProgramInterruption);
    expect(g.calls('memOp').some((line) => line.includes(', 8, INJECT, '))).toBe(true);
  });

  it.each([
    ['no key', {}, 'ERR_INVALID_ARG_TYPE'],
    ['a key of 16', { key: 16 }, 'ERR_OUT_OF_RANGE'],
    ['a fraction', { key: 1.5 }, 'ERR_OUT_OF_RANGE'],
    ['access register 16', { key: 0, ar: 16 }, 'ERR_OUT_OF_RANGE'],
  ])('refuses %s', (_, options, code) => {
    const g = guest();
    g.trace.length = 0;
    expect(() => g.vcpu.memOp.read(0, 8, options as { key: number })).toThrow(expect.objectContaining({ code }));
    expect(() => g.vcpu.memOp.write(0, bytes(8), options as { key: number })).toThrow(
      expect.objectContaining({ code }),
    );
    expect(g.calls('memOp')).toEqual([]);
  });

  it('asks the kernel about nothing, and explains its answer', () => {
    const g = guest();
    const empty = thrown(() => g.vcpu.memOp.read(0, 0, { key: 0 }), KvmError);
    expect(empty).toMatchObject({ code: 'EINVAL', syscall: 'ioctl(KVM_S390_MEM_OP)', explanation: 'size is 0' });
    g.vcpu.close();
    expect(thrown(() => g.vcpu.memOp.read(0, 8, { key: 0 }), KvmError)).toMatchObject({
      code: 'EBADF',
      explanation: 'vCPU 0 is closed',
    });
  });
});

describe('vm.memOp', () => {
  it('reads and writes absolute storage, and the dirty log knows', () => {
    const g = guest();
    g.vm.memOp.writeAbsolute(0x1ff8, bytes(16), { key: 0 });
    expect(g.vm.memOp.readAbsolute(0x1ff8, 16, { key: 0 })).toEqual(bytes(16));
    expect(g.peek(0x1ff8, 16)).toEqual(bytes(16));
    const failed = thrown(() => g.vm.memOp.writeAbsolute(4 * MIB - 8, bytes(16, 9), { key: 0 }), ProgramInterruption);
    expect(failed).toMatchObject({ code: 5, address: BigInt(4 * MIB), transferred: 0 });
    expect(failed.explanation).toContain('no memslot has absolute 0x400000');
    // What precedes the missing page stays written.
    expect(g.peek(4 * MIB - 8, 8)).toEqual(bytes(16, 9).subarray(0, 8));
  });

  it('checks keys', () => {
    const g = guest();
    g.vm.storageKeys.setBytes(5, Uint8Array.of(0x38, 0x30));
    expect(g.vm.memOp.checkAbsolute(0x5ff8, 16, 'fetch', { key: 3 })).toEqual({ permitted: true });
    expect(g.vm.memOp.checkAbsolute(0x5ff8, 16, 'fetch', { key: 4 })).toMatchObject({
      permitted: false,
      interruption: { code: 4, address: 0x5ff8n },
    });
    expect(g.vm.memOp.checkAbsolute(0x6000, 16, 'fetch', { key: 4 })).toEqual({ permitted: true });
    expect(g.vm.memOp.checkAbsolute(0x6000, 16, 'store', { key: 4 })).toMatchObject({ permitted: false });
  });

  it('exchanges what is expected, and tells what was there', () => {
    const g = guest();
    g.vm.memory.write(0x3000, bytes(16));
    for (const size of [1, 2, 4, 8, 16]) {
      const expected = g.peek(0x3000, size);
      const replacement = bytes(size, 0x80 + size);
      const done = g.vm.memOp.compareExchange(0x3000, { key: 0, expected, replacement });
      expect(done).toEqual({ exchanged: true, found: expected });
      const again = g.vm.memOp.compareExchange(0x3000, { key: 0, expected, replacement });
      expect(again).toEqual({ exchanged: false, found: replacement });
      expect(g.peek(0x3000, size)).toEqual(replacement);
    }
  });

  it.each([
    [3, 0x3000, 'size 3: compare-exchange is on 1, 2, 4, 8 or 16 bytes'],
    [32, 0x3000, 'size 32: compare-exchange is on 1, 2, 4, 8 or 16 bytes'],
    [8, 0x3004, 'address 0x3004 is not a multiple of the 8 bytes to exchange'],
  ])('explains why %i bytes at %i are not exchanged', (size, gaddr, explanation) => {
    const g = guest();
    const options = { key: 0, expected: bytes(size), replacement: bytes(size) };
    expect(thrown(() => g.vm.memOp.compareExchange(gaddr, options), KvmError)).toMatchObject({
      code: 'EINVAL',
      explanation,
    });
  });

  it('asks again after lost races, but not forever', () => {
    const g = guest();
    const eagain = vi.spyOn(g.kvm.calls.s390x!, 'memOp').mockReturnValueOnce(-11).mockReturnValueOnce(-11);
    const options = { key: 0, expected: new Uint8Array(1), replacement: bytes(1) };
    expect(g.vm.memOp.compareExchange(0x3000, options).exchanged).toBe(true);
    expect(eagain).toHaveBeenCalledTimes(3);
    eagain.mockReturnValue(-11);
    expect(() => g.vm.memOp.compareExchange(0x3000, options)).toThrow(expect.objectContaining({ code: 'EAGAIN' }));
  });

  it('says that a kernel before 6.3 cannot exchange', () => {
    const g = guest({ release: '6.1' });
    const options = { key: 0, expected: bytes(8), replacement: bytes(8) };
    expect(() => g.vm.memOp.compareExchange(0x3000, options)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });
});

describe('vCPU state', () => {
  it('shows what decides about translations', () => {
    const g = guest();
    g.latch(DAT_64, { 0: 0x80_0000n, 1: 0x1234_5003n });
    const cpu = g.vcpu.s390x.cpuState({ edat2: false });
    expect([cpu.cr[3], cpu.pswMaskHi, cpu.prefixPfn]).toEqual([0x1234_5003, 0x0400_0001, 0x7_f000]);
    expect(cpu.facilities).toEqual({ edat1: true, edat2: false, iep: true });
  });

  it('is reset, and begins where it is told to', () => {
    const g = guest();
    g.vcpu.s390x.setInitialPsw(REAL_64, 0x1000);
    g.latch(DAT_64, { 1: 0x3000n });
    expect(thrown(() => g.vcpu.s390x.setInitialPsw(0, 0), KvmError)).toMatchObject({
      code: 'EBUSY',
      explanation: 'only a stopped vCPU takes one, and this one is operating',
    });
    g.vcpu.s390x.normalReset();
    expect(g.vcpu.s390x.cpuState().cr[3]).toBe(0x3000);
    g.vcpu.s390x.initialReset();
    expect([g.vcpu.s390x.cpuState().cr[1], g.vcpu.s390x.cpuState().cr[3], g.vcpu.s390x.cpuState().pswMaskHi]).toEqual([
      0xe0, 0, 0,
    ]);
    g.vcpu.s390x.clearReset();
    g.vcpu.close();
    expect(() => g.vcpu.s390x.initialReset()).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });
});
