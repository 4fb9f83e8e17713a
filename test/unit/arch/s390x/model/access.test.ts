/** Everything about an access beside the table walk: PSW, spaces, access lists, low addresses, keys, TEID. */

import { describe, expect, it } from 'vitest';
import {
  type Access,
  buildTeid,
  type CpuStateInit,
  cpuState,
  decodeAsce,
  decodePswMask,
  decodeStorageKey,
  decodeTeid,
  effectiveAddress,
  encodeStorageKey,
  fetchOverridePermits,
  isLowAddressProtected,
  keyPermits,
  programInterruptionName,
  storageOverridePermits,
  translate,
} from '../../../../../lib/arch/s390x/model/index.ts';
import { ALE, ALET, ASTE, AUTHORITY, accessList, DUCT, EAX, SPACE } from './access-list.ts';
import { Storage } from './storage.ts';

const DAT = 0x0400_0000_0000_0000n;
const AMODE64 = 0x1_8000_0000n;
const spaceBits = (bits: bigint) => bits << 46n;

describe('PSW', () => {
  it('of a Linux guest in problem state', () => {
    expect(decodePswMask(0x0705_1001_8000_0000n)).toEqual({
      dat: true,
      addressSpace: 'primary',
      key: 0,
      addressingMode: 64,
      io: true,
      external: true,
      machineCheck: true,
      wait: false,
      problemState: true,
      conditionCode: 1,
      programMask: 0,
    });
  });

  it.each([
    [0n, 'primary'],
    [1n, 'access-register'],
    [2n, 'secondary'],
    [3n, 'home'],
  ])('space bits %s are %s', (bits, name) => {
    expect(decodePswMask(DAT | spaceBits(bits)).addressSpace).toBe(name);
  });

  it('has a key', () => {
    expect(decodePswMask(0x00f0_0000_0000_0000n).key).toBe(15);
    expect(decodePswMask(0x0010_0000_0000_0000n).key).toBe(1);
  });

  it.each([
    ['24-bit', 0n, 0x234567n],
    ['31-bit', 0x8000_0000n, 0x7123_4567n & 0x7fff_ffffn],
    ['64-bit', AMODE64, 0x89ab_cdef_f123_4567n],
    ['EA without BA as 24-bit', 0x1_0000_0000n, 0x234567n],
  ])('%s addressing makes the effective address', (_, mask, expected) => {
    expect(effectiveAddress(mask, 0x89ab_cdef_f123_4567n)).toBe(expected);
  });

  it('of a fresh vCPU wraps at 16 MiB', () => {
    expect(effectiveAddress(0, 0x500_0000)).toBe(0n);
  });

  it('refuses what is no u64', () => {
    for (const bad of [-1, 1.5, Number.NaN, 2 ** 53, 1n << 64n, -1n]) {
      expect(() => effectiveAddress(0, bad)).toThrow(RangeError);
    }
  });
});

describe('address spaces', () => {
  /** Three spaces, each a segment table whose only page maps to a frame of its own. */
  function spaces(): { storage: Storage; asce: Record<'primary' | 'secondary' | 'home', bigint> } {
    const storage = new Storage(0x100_0000n);
    const asce = { primary: 0x10_0000n, secondary: 0x20_0000n, home: 0x30_0000n };
    for (const origin of Object.values(asce)) {
      storage.put(origin, origin + 0x8000n);
      storage.put(origin + 0x8000n, origin + 0x9000n);
    }
    return { storage, asce };
  }

  function find(bits: bigint, access: Access): bigint | undefined {
    const { storage, asce } = spaces();
    const cpu = cpuState({
      pswMask: DAT | AMODE64 | spaceBits(bits),
      cr: { 1: asce.primary, 7: asce.secondary, 13: asce.home },
    });
    const found = translate(cpu, storage, 0, { access });
    return 'absolute' in found ? found.absolute : undefined;
  }

  it('come from CR1, CR7 and CR13', () => {
    for (const access of ['fetch', 'store'] as const) {
      expect(find(0n, access)).toBe(0x10_9000n);
      expect(find(2n, access)).toBe(0x20_9000n);
      expect(find(3n, access)).toBe(0x30_9000n);
    }
  });

  it('of instructions are the primary one except in home-space mode', () => {
    expect([0n, 1n, 2n, 3n].map((bits) => find(bits, 'instruction-fetch'))).toEqual([
      0x10_9000n,
      0x10_9000n,
      0x10_9000n,
      0x30_9000n,
    ]);
  });

  it('do not matter with DAT off', () => {
    const cpu = cpuState({ pswMask: AMODE64 | spaceBits(2n), cr: { 7: 0x7000_0000n }, prefix: 0x2000 });
    expect(translate(cpu, new Storage(0x1_0000n), 0x10)).toMatchObject({ code: 0, absolute: 0x2010n });
    expect(translate(cpu, new Storage(0x1_0000n), 0x1_0000)).toMatchObject({ code: 5 });
  });

  it('are decoded from an ASCE', () => {
    expect(decodeAsce(0x0000_0000_0204_01c7n)).toEqual({
      designation: 'region-third',
      origin: 0x204_0000n,
      tableLength: 3,
      subspaceGroup: false,
      privateSpace: true,
      storageAlterationEvent: true,
      spaceSwitchEvent: true,
    });
    expect(decodeAsce(0x200n)).toMatchObject({ designation: 'segment', subspaceGroup: true, tableLength: 0 });
    expect(decodeAsce(0x2fn).designation).toBe('real-space');
  });
});

describe('access-register mode', () => {
  const PRIVATE = 0x0100_0000n << 32n;

  function run(storage: Storage, init: CpuStateInit = {}, ar = 3, access: Access = 'fetch') {
    const cpu = cpuState({
      pswMask: DAT | AMODE64 | spaceBits(1n),
      ...init,
      cr: { 1: 0x20, 2: DUCT, 5: 0x3000_0000n, 7: 0x20, 8: EAX << 16n, ...init.cr },
      ar: { [ar]: ALET, ...init.ar },
    });
    return translate(cpu, storage, 0x10, { ar, access });
  }

  function changed(address: bigint, change: (value: bigint) => bigint): Storage {
    const storage = accessList();
    storage.put(address, change(storage.get(address)));
    return storage;
  }

  it('finds the space of an ALET', () => {
    expect(run(accessList())).toMatchObject({ code: 0, absolute: SPACE + 0x9010n });
  });

  it('takes access register 0 and ALET 0 as primary, ALET 1 as secondary', () => {
    const asces = { cr: { 1: SPACE, 7: 0x20 } };
    expect(run(accessList(), asces, 0)).toMatchObject({ absolute: SPACE + 0x9010n });
    expect(run(accessList(), { ...asces, ar: { 3: 0 } })).toMatchObject({ absolute: SPACE + 0x9010n });
    expect(run(accessList(), { ...asces, ar: { 3: 1 } })).toMatchObject({ absolute: 0x10n });
  });

  it('refuses an access register that does not exist', () => {
    expect(() => run(accessList(), { ar: {} }, 16)).toThrow(RangeError);
  });

  it.each([
    ['reserved ALET bits', { ar: { 3: 0x0200_0009 } }, 0x28],
    ['an entry beyond the list', { ar: { 3: 0x005a_0010 } }, 0x29],
    ['a list register beyond storage', { cr: { 2: 0x7000_0000n } }, 5],
    ['the primary list, which CR5 designates', { ar: { 3: 0x015a_0009 } }, 0x29],
  ])('%s', (_, init, expected) => {
    expect(run(accessList(), init)).toMatchObject({ code: expected });
  });

  it('follows CR5 for the primary list', () => {
    expect(run(accessList(), { ar: { 3: 0x015a_0009 }, cr: { 2: 0, 5: DUCT } })).toMatchObject({ code: 0 });
  });

  it.each([
    ['an entry outside storage', DUCT + 16n, () => 0x7000_0001n << 32n, 5],
    ['an invalid entry', ALE, (v: bigint) => v | (0x8000_0000n << 32n), 0x29],
    ['another sequence in the entry', ALE, (v: bigint) => v ^ (0x0001_0000n << 32n), 0x2a],
    ['an ASTE outside storage', ALE + 8n, (v: bigint) => v | (0x7000_0000n << 32n), 5],
    ['an invalid ASTE', ASTE, (v: bigint) => v | (0x8000_0000n << 32n), 0x2b],
    ['another ASTE sequence', ASTE + 16n, (v: bigint) => v ^ 1n, 0x2c],
  ])('%s', (_, address, change, expected) => {
    expect(run(changed(address, change))).toMatchObject({ code: expected });
  });

  it('an entry address beyond 31 bits is 5, even with storage there', () => {
    const storage = new Storage(0x1_0000_0000n);
    for (const [address, value] of accessList().entries()) storage.put(address, value);
    storage.put(DUCT + 16n, 0x7fff_ff81n << 32n);
    expect(run(storage)).toMatchObject({ code: 5 });
  });

  it('checks the invalid bits before the sequences', () => {
    expect(run(changed(ALE, () => 0x80ff_0000n << 32n))).toMatchObject({ code: 0x29 });
    const storage = changed(ASTE, (v) => v | (0x8000_0000n << 32n));
    storage.put(ASTE + 16n, 0n);
    expect(run(storage)).toMatchObject({ code: 0x2b });
  });

  describe('a private entry', () => {
    it('opens for its own authorization index', () => {
      expect(run(changed(ALE, (v) => v | PRIVATE | (EAX << 32n)))).toMatchObject({ code: 0 });
    });

    it('asks the authority table otherwise', () => {
      // EAX 0x123: byte 0x48, bits 6 and 7 of it; the secondary-authority bit is 0x40 >> 6 = 0x01.
      const storage = changed(ALE, (v) => v | PRIVATE);
      expect(run(storage)).toMatchObject({ code: 0x2d });
      storage.put(AUTHORITY + 0x48n, 0xfen << 56n);
      expect(run(storage)).toMatchObject({ code: 0x2d });
      storage.put(AUTHORITY + 0x48n, 0x01n << 56n);
      expect(run(storage)).toMatchObject({ code: 0 });
    });

    it('is refused beyond the authority-table length', () => {
      const storage = changed(ALE, (v) => v | PRIVATE);
      storage.put(AUTHORITY + 0x48n, 0xffn << 56n);
      storage.put(ASTE, (AUTHORITY << 32n) | (0x11n << 4n));
      expect(run(storage)).toMatchObject({ code: 0x2d });
    });
  });

  it('a fetch-only entry forbids stores, named in the TEID', () => {
    const storage = changed(ALE, (v) => v | (0x0200_0000n << 32n));
    expect(run(storage, {}, 3, 'fetch')).toMatchObject({ code: 0 });
    // Access-list-controlled: bits 60 and 61; store; access-register mode.
    expect(run(storage, {}, 3, 'store')).toMatchObject({ code: 4, protection: 'access-list', teid: 0x40dn });
  });

  it('reads the lists as real storage', () => {
    const storage = accessList();
    // With the prefix on the list, real LIST is absolute 0, where nothing valid is: entry 9 is not invalid but has sequence 0.
    expect(run(storage, { prefix: 0x1_0000 })).toMatchObject({ code: 0x29 });
  });
});

describe('low-address protection', () => {
  const CR0 = 0x1000_0000;

  it.each([
    [0n, true],
    [511n, true],
    [512n, false],
    [4095n, false],
    [4096n, true],
    [4607n, true],
    [4608n, false],
    [8192n, false],
    [0x1_0000_0000n, false],
  ])('a store at %s: %s', (address, expected) => {
    const [hi, lo] = [Number(address >> 32n), Number(address & 0xffff_ffffn)];
    expect(isLowAddressProtected(CR0, false, hi, lo)).toBe(expected);
    expect(isLowAddressProtected(0, false, hi, lo)).toBe(false);
    expect(isLowAddressProtected(CR0, true, hi, lo)).toBe(false);
  });

  it('comes before translation, spares fetches, and knows private spaces only with DAT on', () => {
    const storage = new Storage(0x1_0000n);
    const failing = { code: 4, protection: 'low-address' };
    const beyond = 0x7000_0000n;
    expect(translate(cpuState({ cr: { 0: CR0, 1: beyond } }), storage, 0, { access: 'store' })).toMatchObject(failing);
    expect(translate(cpuState({ cr: { 0: CR0, 1: beyond } }), storage, 0)).toMatchObject({ code: 5 });
    const privateSpace = { 0: CR0, 1: beyond | 0x100n };
    expect(translate(cpuState({ cr: privateSpace }), storage, 0, { access: 'store' })).toMatchObject({ code: 5 });
    const off = cpuState({ pswMask: AMODE64, cr: privateSpace });
    expect(translate(off, storage, 0, { access: 'store' })).toMatchObject({ ...failing, teid: 0x480n });
  });

  it('holds in a real space', () => {
    const cpu = cpuState({ cr: { 0: CR0, 1: 0x20 } });
    expect(translate(cpu, new Storage(0x1_0000n), 0x1ff, { access: 'store' })).toMatchObject({ code: 4 });
    expect(translate(cpu, new Storage(0x1_0000n), 0x200, { access: 'store' })).toMatchObject({ code: 0 });
  });
});

describe('storage keys', () => {
  it('have ACC, F, R and C', () => {
    expect(decodeStorageKey(0x9c)).toEqual({ acc: 9, fetchProtection: true, reference: true, change: false });
    for (let key = 0; key < 256; key += 2) expect(encodeStorageKey(decodeStorageKey(key))).toBe(key);
    expect(encodeStorageKey(decodeStorageKey(0xff))).toBe(0xfe);
    for (const acc of [-1, 16, 0.5, Number.NaN]) {
      expect(() => encodeStorageKey({ acc, fetchProtection: false, reference: false, change: false })).toThrow(
        RangeError,
      );
    }
  });

  it('permit key 0 and their own key everything, others fetches without F', () => {
    for (let access = 0; access < 16; access++) {
      for (let acc = 0; acc < 16; acc++) {
        const own = access === 0 || access === acc;
        expect(keyPermits(access, acc << 4, true)).toBe(own);
        expect(keyPermits(access, (acc << 4) | 8, true)).toBe(own);
        expect(keyPermits(access, acc << 4, false)).toBe(true);
        expect(keyPermits(access, (acc << 4) | 8, false)).toBe(own);
      }
    }
  });

  it('with ACC 9 are open under storage-protection override', () => {
    expect(storageOverridePermits(0x0100_0000, 0x98)).toBe(true);
    expect(storageOverridePermits(0x0100_0000, 0x88)).toBe(false);
    expect(storageOverridePermits(0x0200_0000, 0x98)).toBe(false);
  });

  it('are open to fetches below 2048 under fetch-protection override', () => {
    const CR0 = 0x0200_0000;
    expect(fetchOverridePermits(CR0, false, 0, 0, 2048)).toBe(true);
    expect(fetchOverridePermits(CR0, false, 0, 0, 2049)).toBe(false);
    expect(fetchOverridePermits(CR0, false, 0, 2047, 1)).toBe(true);
    expect(fetchOverridePermits(CR0, false, 0, 2048, 1)).toBe(false);
    expect(fetchOverridePermits(CR0, false, 1, 0, 1)).toBe(false);
    expect(fetchOverridePermits(CR0, true, 0, 0, 1)).toBe(false);
    expect(fetchOverridePermits(0x0100_0000, false, 0, 0, 1)).toBe(false);
  });
});

describe('TEID', () => {
  const parts = { code: 4, address: 0x1234_5678n, access: 'store', addressSpaceBits: 3 } as const;

  it.each([
    ['low-address', 0x80n],
    ['key', 0x08n],
    ['access-list', 0x0cn],
    ['dat', 0x04n],
    ['instruction-execution', 0x84n],
  ] as const)('of %s protection', (protection, bits) => {
    const teid = buildTeid({ ...parts, protection });
    expect(teid).toBe(0x1234_5000n | 0x400n | bits | 3n);
    expect(decodeTeid(teid!)).toEqual({ address: 0x1234_5000n, access: 'store', addressSpace: 'home', protection });
    expect(buildTeid({ ...parts, protection, terminating: true })).toBe(0x1234_5403n);
  });

  it('has no cause for translation exceptions', () => {
    for (const code of [0x10, 0x11, 0x38, 0x39, 0x3a, 0x3b]) {
      expect(buildTeid({ ...parts, code, access: 'fetch', protection: 'dat' })).toBe(0x1234_5803n);
    }
  });

  it('does not exist for other codes', () => {
    for (const code of [5, 0x12, 0x28, 0x29, 0x2a, 0x2b, 0x2c, 0x2d])
      expect(buildTeid({ ...parts, code })).toBeUndefined();
  });

  it('names codes', () => {
    expect(programInterruptionName(0x3a)).toBe('region-second-translation');
    expect(programInterruptionName(0x7f)).toBe('program interruption 0x7f');
  });
});

describe('CPU state', () => {
  it.each([
    { cr: { 16: 0 } },
    { cr: { [-1]: 0 } },
    { ar: { 3: 2 ** 32 } },
    { ar: { 3: -1 } },
    { prefix: 0x1000 },
    { prefix: 0x8000_0000 },
    { pswMask: -1 },
    { cr: { 0: 1n << 64n } },
  ])('refuses %o', (init) => {
    expect(() => cpuState(init)).toThrow(RangeError);
  });
});
