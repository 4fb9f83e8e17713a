import { describe, expect, it } from 'vitest';
import {
  DAT_EDAT1,
  DAT_EDAT2,
  DAT_IEP,
  decodeAsce,
  decodePswMask,
  decodeStorageKey,
  decodeTeid,
  describeEntry,
  realToAbsolutePfn,
  type TableLevel,
} from '../../../../../lib/arch/s390x/model/index.ts';

const EDAT = DAT_EDAT1 | DAT_EDAT2 | DAT_IEP;
const AT = 0x1_2345_6789_f800n;
const at = (low: string): string => `0x0001234567${low}`;

describe('a table entry', () => {
  // By the Principles of Operation: what each bit of an entry of the level is.
  it.each<[TableLevel, bigint, number, string]>([
    ['P', AT & -4096n, 0, `4 KiB frame at real ${at('89f000')}`],
    ['P', AT, 0, `4 KiB frame at real ${at('89f000')}, bit 52 is not zero`],
    ['P', 0x1400n, EDAT, 'invalid'],
    ['P', 0x1020n, 0, '4 KiB frame at real 0x0000000000001000'],
    ['P', 0x1200n, 0, '4 KiB frame at real 0x0000000000001000, protected'],
    ['P', 0x1100n, EDAT, '4 KiB frame at real 0x0000000000001000, no instruction fetch (IEP)'],
    ['P', 0x101cn, EDAT, '4 KiB frame at real 0x0000000000001000'],
    ['S', AT, 0, `page table at ${at('89f800')}`],
    ['S', AT | 0x20n, 0, 'invalid'],
    ['S', 0x1210n, 0, 'page table at 0x0000000000001000, common, protected'],
    ['S', 0x1004n, 0, 'page table at 0x0000000000001000, TT 1, which is not S'],
    ['S', 0x1100n, EDAT, 'page table at 0x0000000000001000'],
    ['S', 0x1_2345_6789_f400n, DAT_EDAT1, `1 MiB frame at absolute ${at('800000')}`],
    ['S', 0x1_2345_6789_f500n, EDAT, `1 MiB frame at absolute ${at('800000')}, no instruction fetch (IEP)`],
    ['S', 0x1_2345_6789_f400n, DAT_EDAT2, `page table at ${at('89f000')}`],
    ['R3', 0x10c7n, 0, 'segment table at 0x0000000000001000, TF 3, TL 3'],
    ['R3', 0x1016n, 0, 'segment table at 0x0000000000001000, TF 0, TL 2, common'],
    ['R3', 0x1_2345_89ab_c404n, DAT_EDAT2, '2 GiB frame at absolute 0x0001234580000000'],
    ['R3', 0x1_2345_89ab_c404n, DAT_EDAT1, 'segment table at 0x0001234589abc000, TF 0, TL 0'],
    ['R2', 0x1008n, EDAT, 'region-third table at 0x0000000000001000, TF 0, TL 0'],
    ['R2', 0x1418n, EDAT, 'region-third table at 0x0000000000001000, TF 0, TL 0'],
    ['R2', 0x100cn, EDAT, 'region-third table at 0x0000000000001000, TF 0, TL 0, TT 3, which is not R2'],
    ['R2', 0x1808n, EDAT, 'region-third table at 0x0000000000001000, TF 0, TL 0'],
    ['R1', 0x104fn, EDAT, 'region-second table at 0x0000000000001000, TF 1, TL 3'],
  ])('%s 0x%s with facilities %i', (level, entry, features, text) => {
    expect(describeEntry(level, entry, features)).toBe(text);
  });
});

const ASCE = {
  designation: 'segment',
  origin: 0n,
  tableLength: 0,
  subspaceGroup: false,
  privateSpace: false,
  storageAlterationEvent: false,
  spaceSwitchEvent: false,
};

it.each([
  [0n, {}],
  [0x1_2345_6789_f000n, { origin: 0x1_2345_6789_f000n }],
  [0x3n, { tableLength: 3 }],
  [0x4n, { designation: 'region-third' }],
  [0x8n, { designation: 'region-second' }],
  [0xcn, { designation: 'region-first' }],
  [0x2cn, { designation: 'real-space' }],
  [0x40n, { spaceSwitchEvent: true }],
  [0x80n, { storageAlterationEvent: true }],
  [0x100n, { privateSpace: true }],
  [0x200n, { subspaceGroup: true }],
])('the ASCE 0x%s', (asce, fields) => {
  expect(decodeAsce(asce)).toEqual({ ...ASCE, ...fields });
});

it.each([
  [0, { acc: 0, fetchProtection: false, reference: false, change: false }],
  [0xf1, { acc: 15, fetchProtection: false, reference: false, change: false }],
  [0x18, { acc: 1, fetchProtection: true, reference: false, change: false }],
  [0x24, { acc: 2, fetchProtection: false, reference: true, change: false }],
  [0x42, { acc: 4, fetchProtection: false, reference: false, change: true }],
])('the storage key %i', (key, fields) => {
  expect(decodeStorageKey(key)).toEqual(fields);
});

const PSW = {
  dat: false,
  addressSpace: 'primary',
  key: 0,
  addressingMode: 24,
  io: false,
  external: false,
  machineCheck: false,
  wait: false,
  problemState: false,
  conditionCode: 0,
  programMask: 0,
};

it.each([
  [0n, {}],
  [0x0400n << 48n, { dat: true }],
  [0x0200n << 48n, { io: true }],
  [0x0100n << 48n, { external: true }],
  [0x00a0n << 48n, { key: 10 }],
  [0x0004n << 48n, { machineCheck: true }],
  [0x0002n << 48n, { wait: true }],
  [0x0001n << 48n, { problemState: true }],
  [0xc000n << 32n, { addressSpace: 'home' }],
  [0x2000n << 32n, { conditionCode: 2 }],
  [0x0500n << 32n, { programMask: 5 }],
  [0x8000_0000n, { addressingMode: 31 }],
  [0x1_8000_0000n, { addressingMode: 64 }],
  [0x1_0000_0000n, {}],
])('the PSW mask 0x%s', (mask, fields) => {
  expect(decodePswMask(mask)).toEqual({ ...PSW, ...fields });
});

const TEID = { address: 0n, access: 'unknown', addressSpace: 'primary' };

it.each([
  [0n, {}],
  [0x1234_5678_9abc_d000n, { address: 0x1234_5678_9abc_d000n }],
  [0x400n, { access: 'store' }],
  [0x800n, { access: 'fetch' }],
  [0xc00n, {}],
  [1n, { addressSpace: 'access-register' }],
  [2n, { addressSpace: 'secondary' }],
  [3n, { addressSpace: 'home' }],
  [0x80n, { protection: 'low-address' }],
  [0x88n, {}],
])('the TEID 0x%s', (teid, fields) => {
  expect(decodeTeid(teid)).toStrictEqual({ ...TEID, ...fields });
});

it.each([
  [0, [0, 1, 2, 3, 4, 5, 6]],
  [4, [4, 5, 2, 3, 0, 1, 6]],
  [2, [2, 3, 0, 1, 4, 5, 6]],
])('with the prefix at frame %i the real frames 0 to 6 are the absolute ones %j', (prefix, absolute) => {
  expect([0, 1, 2, 3, 4, 5, 6].map((real) => realToAbsolutePfn(real, prefix))).toEqual(absolute);
  expect(realToAbsolutePfn(2 ** 52 - 1, prefix)).toBe(2 ** 52 - 1);
  expect(() => realToAbsolutePfn(2 ** 52, prefix)).toThrow('"realPfn"');
});
