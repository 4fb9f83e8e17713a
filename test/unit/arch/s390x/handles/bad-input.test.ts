/**
 * Every bad operation, flag, key, access register, size, address, descriptor and buffer of the calls that only s390x has:
 * what 6.12 says, alone and where several are bad at once; and how the typed layer explains what can be asked through it.
 */

import { describe, expect, it } from 'vitest';
import { KvmError, type Vcpu, type Vm } from '../../../../../lib/index.ts';
import { ERRNO, MEMOP } from '../../../../../lib/raw.ts';
import { CHECK_ONLY, INJECT, Machine, MIB, SKEY } from '../emulated/machine.ts';
import { TypedGuest } from './typed-guest.ts';

type Errno = keyof typeof ERRNO;
const GOOD = 0x2_0000;
/** Behind all memory. */
const HOLE = 4 * MIB;
/** Nothing was ever open there. */
const NO_FD = 0x7fff_0000;
const MAX = 65536;
const PEEK = 1;

type Call = (machine: Machine) => number;
type Row = readonly [name: string, call: Call, expected: Errno | number];

const bytes = (length: number): Uint8Array => new Uint8Array(length);
const exchange =
  (
    gaddr: number,
    size: number,
    options: { flags?: number; key?: number; old?: Uint8Array; buf?: Uint8Array } = {},
  ): Call =>
  (m) => {
    const { old = bytes(size), buf = bytes(size) } = options;
    return m.mop(m.vm, MEMOP.ABSOLUTE_CMPXCHG, gaddr, size, { ...options, old, buf });
  };

function check(rows: readonly Row[], make: () => Machine): void {
  it.each(rows)('%s', (_name, call, expected) => {
    const result = call(make());
    expect(result).toBe(typeof expected === 'number' ? expected : -ERRNO[expected]);
  });
}

const withMemory = (): Machine => new Machine().addMemory();

describe.each([
  ['LOGICAL_READ', MEMOP.LOGICAL_READ],
  ['LOGICAL_WRITE', MEMOP.LOGICAL_WRITE],
])('%s', (_name, op) => {
  const logical =
    (gaddr: number | bigint, size: number, options?: Parameters<Machine['mop']>[4]): Call =>
    (m) =>
      m.mop(m.vcpu, op, gaddr, size, options);
  check(
    [
      ['flag 8', logical(GOOD, 8, { flags: 8 }), 'EINVAL'],
      ['flag 0x80000000', logical(GOOD, 8, { flags: 0x8000_0000 }), 'EINVAL'],
      ['flag 2^32', logical(GOOD, 8, { flags: 2 ** 32 }), 'EINVAL'],
      ['size 0', logical(GOOD, 0), 'EINVAL'],
      ['size 0 where nothing is', logical(HOLE, 0), 'EINVAL'],
      ['size 64 KiB + 1', logical(GOOD, MAX + 1), 'E2BIG'],
      ['size 2^32 − 1, checked', logical(GOOD, 0xffff_ffff, { flags: CHECK_ONLY, buf: null }), 'E2BIG'],
      ['an unknown flag before the size', logical(GOOD, MAX + 1, { flags: 8 }), 'EINVAL'],
      ['the size before key and access register', logical(GOOD, MAX + 1, { flags: SKEY, key: 16, ar: 16 }), 'E2BIG'],
      ['key 16', logical(GOOD, 8, { flags: SKEY, key: 16 }), 'EINVAL'],
      ['key 255', logical(GOOD, 8, { flags: SKEY | CHECK_ONLY, key: 255 }), 'EINVAL'],
      ['key 16 that nobody looks at', logical(GOOD, 8, { key: 16 }), 0],
      ['access register 16, though no access register counts', logical(GOOD, 8, { ar: 16 }), 'EINVAL'],
      ['access register 16 before the address', logical(HOLE, 8, { ar: 16, flags: INJECT }), 'EINVAL'],
      ['an address without memory', logical(HOLE, 8), 5],
      ['an address without memory, checked', logical(HOLE, 8, { flags: CHECK_ONLY }), 5],
      ['the last byte without memory', logical(HOLE - 8, 9), 5],
      ['no buffer', logical(GOOD, 8, { buf: null }), 'EFAULT'],
      ['a short buffer', logical(GOOD, 4096, { buf: bytes(4095) }), 'EFAULT'],
      ['no buffer, checked', logical(GOOD, 8, { buf: null, flags: CHECK_ONLY }), 0],
      // A read meets the guest first, a write the buffer.
      ['no buffer, no memory', logical(HOLE, 8, { buf: null }), op === MEMOP.LOGICAL_READ ? 5 : 'EFAULT'],
      ['on the VM', (m) => m.mop(m.vm, op, GOOD, 8), 'EINVAL'],
      ['on /dev/kvm', (m) => m.mop(m.kernel.openKvm(), op, GOOD, 8), 'EINVAL'],
      ['on nothing', (m) => m.mop(NO_FD, op, GOOD, 8), 'EBADF'],
      ['on an eventfd', (m) => m.mop(m.kernel.eventfd(0), op, GOOD, 8), 'ENOTTY'],
    ],
    withMemory,
  );
});

describe.each([
  ['SIDA_READ', MEMOP.SIDA_READ],
  ['SIDA_WRITE', MEMOP.SIDA_WRITE],
])('%s of a vCPU that is not protected', (_name, op) => {
  const sida =
    (size: number, options?: Parameters<Machine['mop']>[4]): Call =>
    (m) =>
      m.mop(m.vcpu, op, 0, size, options);
  check(
    [
      ['size 0', sida(0), 'EINVAL'],
      ['any flag', sida(8, { flags: CHECK_ONLY }), 'EINVAL'],
      ['an offset that wraps', sida(0x10, { sidaOffset: 0xffff_fff0, buf: null }), 'EINVAL'],
      ['more than there is', sida(MAX, { buf: null }), 'E2BIG'],
      ['what there would be', sida(8), 'EINVAL'],
      ['on the VM', (m) => m.mop(m.vm, op, 0, 8), 'EINVAL'],
    ],
    withMemory,
  );
});

describe.each([
  ['ABSOLUTE_READ', MEMOP.ABSOLUTE_READ],
  ['ABSOLUTE_WRITE', MEMOP.ABSOLUTE_WRITE],
])('%s', (_name, op) => {
  const absolute =
    (gaddr: number | bigint, size: number, options?: Parameters<Machine['mop']>[4]): Call =>
    (m) =>
      m.mop(m.vm, op, gaddr, size, options);
  check(
    [
      ['INJECT', absolute(GOOD, 8, { flags: INJECT }), 'EINVAL'],
      ['flag 8', absolute(GOOD, 8, { flags: 8 }), 'EINVAL'],
      ['size 0', absolute(GOOD, 0), 'EINVAL'],
      ['size 64 KiB + 1', absolute(GOOD, MAX + 1), 'E2BIG'],
      ['size before key', absolute(GOOD, MAX + 1, { flags: SKEY, key: 16 }), 'E2BIG'],
      ['key 16', absolute(GOOD, 8, { flags: SKEY, key: 16 }), 'EINVAL'],
      ['key before address', absolute(HOLE, 8, { flags: SKEY, key: 16 }), 'EINVAL'],
      ['access register 16, of which there is none', absolute(GOOD, 8, { ar: 16 }), 0],
      ['an address without memory', absolute(HOLE, 8), 5],
      ['the highest address', absolute((1n << 64n) - 1n, 8), 5],
      ['an address without memory before the buffer', absolute(HOLE, 8, { buf: null }), 5],
      ['no buffer', absolute(GOOD, 8, { buf: null }), 'EFAULT'],
      ['a short buffer', absolute(GOOD, 4096, { buf: bytes(4095) }), 'EFAULT'],
      ['on the vCPU', (m) => m.mop(m.vcpu, op, GOOD, 8), 'EINVAL'],
    ],
    withMemory,
  );
});

describe('ABSOLUTE_CMPXCHG', () => {
  check(
    [
      ['CHECK_ONLY', exchange(GOOD, 8, { flags: CHECK_ONLY }), 'EINVAL'],
      ['size 0', exchange(GOOD, 0), 'EINVAL'],
      ['size 3', exchange(GOOD, 3), 'EINVAL'],
      ['size 17', exchange(GOOD, 17), 'EINVAL'],
      ['size 64 KiB + 1', exchange(GOOD, MAX + 1, { old: bytes(0), buf: bytes(0) }), 'E2BIG'],
      ['key 16', exchange(GOOD, 8, { flags: SKEY, key: 16 }), 'EINVAL'],
      ['size 17 before the buffers', exchange(GOOD, 17, { old: bytes(0), buf: bytes(0) }), 'EINVAL'],
      ['a short new value', exchange(GOOD, 8, { buf: bytes(7) }), 'EFAULT'],
      ['a short old value', exchange(GOOD, 8, { old: bytes(7) }), 'EFAULT'],
      ['a short value before the address', exchange(HOLE, 8, { old: bytes(7) }), 'EFAULT'],
      ['no memory, before the alignment', exchange(HOLE + 4, 8), 5],
      ['misaligned', exchange(GOOD + 4, 8), 'EINVAL'],
      ['on the vCPU', (m) => m.mop(m.vcpu, MEMOP.ABSOLUTE_CMPXCHG, GOOD, 8, { old: bytes(8) }), 'EINVAL'],
    ],
    withMemory,
  );
});

describe('unknown operations', () => {
  check(
    [
      ['7 on a vCPU', (m) => m.mop(m.vcpu, 7, GOOD, 8), 'EINVAL'],
      ['7 on the VM, before everything else', (m) => m.mop(m.vm, 7, HOLE, MAX + 1), 'EINVAL'],
      ['2^32 − 1', (m) => m.mop(m.vcpu, 0xffff_ffff, GOOD, 8), 'EINVAL'],
    ],
    withMemory,
  );
});

describe('storage keys', () => {
  const inUse = (): Machine => {
    const machine = withMemory();
    expect(machine.setKeys(0, 0)).toBe(0);
    return machine;
  };
  const get =
    (gfn: number | bigint, count: number | bigint, flags = 0, keys: Uint8Array | null = bytes(Number(count))): Call =>
    (m) =>
      m.s390x.getSkeys(m.vm, gfn, count, flags, keys);
  const set =
    (gfn: number | bigint, count: number | bigint, flags = 0, keys: Uint8Array | null = bytes(Number(count))): Call =>
    (m) =>
      m.s390x.setSkeys(m.vm, gfn, count, flags, keys);
  check(
    [
      ['GET: flags', get(0, 1, 1), 'EINVAL'],
      ['GET: count 0', get(0, 0), 'EINVAL'],
      ['GET: count 2^20 + 1', get(0, 0x10_0001, 0, null), 'EINVAL'],
      ['GET: count 2^64 − 1', get(0, (1n << 64n) - 1n, 0, null), 'EINVAL'],
      ['GET: no memory', get(HOLE / 4096, 1), 'EFAULT'],
      ['GET: the last frame without memory', get(HOLE / 4096 - 1, 2), 'EFAULT'],
      ['GET: the highest frame', get((1n << 64n) - 1n, 1), 'EFAULT'],
      ['GET: no buffer', get(0, 1, 0, null), 'EFAULT'],
      ['GET: a short buffer', get(0, 2, 0, bytes(1)), 'EFAULT'],
      ['SET: flags', set(0, 1, 1), 'EINVAL'],
      ['SET: count 0', set(0, 0), 'EINVAL'],
      ['SET: count 2^20 + 1', set(0, 0x10_0001, 0, null), 'EINVAL'],
      ['SET: no buffer', set(0, 1, 0, null), 'EFAULT'],
      ['SET: a short buffer', set(0, 2, 0, bytes(1)), 'EFAULT'],
      ['SET: no memory', set(HOLE / 4096, 1), 'EFAULT'],
      ['SET: a byte that is no key', set(0, 1, 0, Uint8Array.of(0x11)), 'EINVAL'],
      ['SET: no memory before a byte that is no key', set(HOLE / 4096, 1, 0, Uint8Array.of(0x11)), 'EFAULT'],
      ['GET on a vCPU', (m) => m.s390x.getSkeys(m.vcpu, 0, 1, 0, bytes(1)), 'ENOTTY'],
      ['SET on a vCPU', (m) => m.s390x.setSkeys(m.vcpu, 0, 1, 0, bytes(1)), 'ENOTTY'],
      ['GET on nothing', (m) => m.s390x.getSkeys(NO_FD, 0, 1, 0, bytes(1)), 'EBADF'],
      ['KEYOP, which came with 7.0', (m) => m.s390x.keyOp(m.vm, 0, 1, bytes(1)), 'ENOTTY'],
    ],
    inUse,
  );
  describe('before they are used', () => {
    check(
      [
        ['GET gives 1, whatever the count and the frame', get(HOLE / 4096, 0), 1],
        ['GET: flags', get(0, 1, 1), 'EINVAL'],
      ],
      withMemory,
    );
  });
  describe('on 7.0', () => {
    check(
      [
        ['KEYOP: operation 0', (m) => m.s390x.keyOp(m.vm, 0, 0, bytes(1)), 'EINVAL'],
        ['KEYOP: operation 4', (m) => m.s390x.keyOp(m.vm, 0, 4, bytes(1)), 'EINVAL'],
        ['KEYOP: no memory', (m) => m.s390x.keyOp(m.vm, HOLE, 1, bytes(1)), 'EFAULT'],
        ['KEYOP on a vCPU', (m) => m.s390x.keyOp(m.vcpu, 0, 1, bytes(1)), 'ENOTTY'],
        ['misaligned before the address', exchange(HOLE + 4, 8), 'EINVAL'],
        ['a write copies in before it looks', (m) => m.absoluteWrite(HOLE, 8, { buf: null }), 'EFAULT'],
      ],
      () => new Machine({ release: '7.0' }).addMemory(),
    );
  });
});

describe('CMMA', () => {
  const get =
    (gfn: number, count: number, flags: number, values: Uint8Array | null = bytes(count)): Call =>
    (m) =>
      m.s390x.getCmmaBits(m.vm, BigUint64Array.of(BigInt(gfn), BigInt(count), 0n), flags, values);
  const set =
    (gfn: number, count: number, flags = 0, values: Uint8Array | null = bytes(count)): Call =>
    (m) =>
      m.s390x.setCmmaBits(m.vm, gfn, count, flags, 0n, values);
  check(
    [
      ['GET: unknown flags', get(0, 1, 2), 'EINVAL'],
      ['GET: outside of migration mode', get(0, 1, 0), 'EINVAL'],
      ['GET: the first frame without memory', get(HOLE / 4096, 1, PEEK), 'EFAULT'],
      ['GET: no buffer', get(0, 1, PEEK, null), 'EFAULT'],
      ['SET: flags', set(0, 1, 1), 'EINVAL'],
      ['SET: count 2^20 + 1', set(0, 0x10_0001, 0, null), 'EINVAL'],
      ['SET: no values', set(HOLE / 4096, 0, 0, null), 0],
      ['SET: a short buffer', set(0, 2, 0, bytes(1)), 'EFAULT'],
      ['SET: no memory', set(HOLE / 4096, 1), 'EFAULT'],
      ['GET on a vCPU', (m) => m.s390x.getCmmaBits(m.vcpu, new BigUint64Array(3), PEEK, bytes(1)), 'ENOTTY'],
    ],
    () => {
      const machine = new Machine({ cmma: true }).addMemory();
      expect(machine.s390x.setCmmaBits(machine.vm, 0, 1, 0, 0n, bytes(1))).toBe(0);
      return machine;
    },
  );
  describe('without CMMA', () => {
    check(
      [
        ['GET, before the flags', get(0, 1, 2), 'ENXIO'],
        ['SET, before the flags', set(0, 1, 1), 'ENXIO'],
      ],
      withMemory,
    );
  });
});

describe('the rest', () => {
  check(
    [
      ['UCAS_MAP', (m) => m.s390x.ucasMap(m.vcpu, m.hva, 0, MIB), 'ENOTTY'],
      ['UCAS_UNMAP', (m) => m.s390x.ucasUnmap(m.vcpu, 0, 0, MIB), 'ENOTTY'],
      ['a ucontrol VM', (m) => m.kernel.createVm(m.kernel.openKvm(), 1), 'EINVAL'],
      ['VCPU_FAULT where nothing is', (m) => m.s390x.vcpuFault(m.vcpu, HOLE), 'EFAULT'],
      ['VCPU_FAULT on the VM', (m) => m.s390x.vcpuFault(m.vm, 0), 'ENOTTY'],
      ['INITIAL_RESET on the VM', (m) => m.s390x.initialReset(m.vm), 'ENOTTY'],
      ['NORMAL_RESET on nothing', (m) => m.s390x.normalReset(NO_FD), 'EBADF'],
    ],
    withMemory,
  );
});

describe('the typed layer explains', () => {
  type Ask = (guest: { vm: Vm; vcpu: Vcpu }) => unknown;
  const key = { key: 0 };
  const value = { key: 0, expected: bytes(8), replacement: bytes(8) };
  it.each<readonly [string, Ask, string, RegExp]>([
    ['a read of nothing', (g) => g.vcpu.memOp.read(GOOD, 0, key), 'EINVAL', /^size is 0$/],
    ['a write of nothing', (g) => g.vm.memOp.writeAbsolute(GOOD, bytes(0), key), 'EINVAL', /^size is 0$/],
    ['a check of too much', (g) => g.vcpu.memOp.check(GOOD, MAX + 1, 'fetch', key), 'E2BIG', /65537 .* 65536 bytes/],
    ['an absolute check of too much', (g) => g.vm.memOp.checkAbsolute(0, MAX + 1, 'store', key), 'E2BIG', /65537/],
    ['a misaligned exchange', (g) => g.vm.memOp.compareExchange(GOOD + 4, value), 'EINVAL', /not a multiple of the 8/],
    ['no keys', (g) => g.vm.storageKeys.getBytes(0, 0), 'EINVAL', /^count 0 is not 1 to 1048576$/],
    [
      'keys without memory',
      (g) => g.vm.storageKeys.getBytes(0x3ff, 2),
      'EFAULT',
      /^frame 0x400 of the 2 .* no memslot/,
    ],
    [
      'a byte that is no key',
      (g) => g.vm.storageKeys.setBytes(0, Uint8Array.of(1)),
      'EINVAL',
      /0x1 of frame 0x0 has bit/,
    ],
    ['no KEYOP', (g) => g.vm.storageKeys.iske(0), 'ENOTTY', /before 7\.0/],
    ['no CMMA', (g) => g.vm.cmma.peek(0, 1), 'ENXIO', /CMMA/],
    ['a late CMMA', (g) => g.vm.cmma.enable(), 'EBUSY', /before the first vCPU/],
  ])('%s', (_name, ask, code, explanation) => {
    const guest = new TypedGuest();
    guest.vm.memory.write(0, bytes(1));
    guest.vm.storageKeys.setBytes(0, Uint8Array.of(0));
    let thrown: unknown;
    try {
      ask(guest);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(KvmError);
    expect(thrown).toMatchObject({ code, explanation: expect.stringMatching(explanation) });
    guest.close();
  });
});
