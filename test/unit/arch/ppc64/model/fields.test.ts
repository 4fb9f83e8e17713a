/** What each bit of an entry, a segment and the kernel's structures is: by Power ISA 2.07 Book III-S and the uAPI headers. */

import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import {
  allowsRead,
  allowsWrite,
  amrBits,
  decodeSmmuInfo,
  encodeHpte,
  encodeSegment,
  encodeSlb,
  type Hpte,
  hpte,
  pageEncoding,
  pageSizeName,
  protectionContext,
  type Segment,
  segment,
  slbOfSregs,
} from '../../../../../lib/arch/ppc64/model/index.ts';
import { decodeRegs, encodeRegs } from '../../../../../lib/arch/ppc64/model/registers.ts';

/** A structure of a little-endian host, by its doublewords. */
const doublewords = (bytes: Uint8Array): bigint[] => {
  const view = new DataView(bytes.buffer);
  return Array.from({ length: bytes.length / 8 }, (_, i) => view.getBigUint64(8 * i, true));
};
const putDoublewords = (bytes: Uint8Array, first: number, words: readonly bigint[]): void => {
  const view = new DataView(bytes.buffer);
  for (const [i, word] of words.entries()) view.setBigUint64(8 * (first + i), word, true);
};

const ENTRY = {
  valid: false,
  bolted: false,
  secondary: false,
  large: false,
  segmentSize: '256M',
  avpn: 0n,
  baseShift: 12,
  shift: 12,
  ra: 0n,
  pp: 0,
  key: 0,
  referenced: false,
  changed: false,
  wimg: 0,
  noExecute: false,
};

describe('an entry, bit by bit', () => {
  it.each<[v: bigint, r: bigint, Partial<Record<keyof Hpte, unknown>>]>([
    [0n, 0n, {}],
    [1n, 0n, { valid: true }],
    [2n, 0n, { secondary: true }],
    [4n, 0n, { large: true, baseShift: 24, shift: 24 }],
    [8n, 0n, {}],
    [0x10n, 0n, { bolted: true }],
    [0x20n, 0n, {}],
    [0x40n, 0n, {}],
    [0x80n, 0n, { avpn: 1n }],
    [1n << 61n, 0n, { avpn: 1n << 54n }],
    [1n << 62n, 0n, { segmentSize: '1T' }],
    [1n << 63n, 0n, { segmentSize: 'reserved' }],
    [0n, 1n, { pp: 1 }],
    [0n, 2n, { pp: 2 }],
    [0n, 4n, { noExecute: true }],
    [0n, 8n, { wimg: 1 }],
    [0n, 0x10n, { wimg: 2 }],
    [0n, 0x20n, { wimg: 4 }],
    [0n, 0x40n, { wimg: 8 }],
    [0n, 0x80n, { changed: true }],
    [0n, 0x100n, { referenced: true }],
    [0n, 0x200n, { key: 1 }],
    [0n, 0x800n, { key: 4 }],
    [0n, 0x1000n, { ra: 0x1000n }],
    [0n, 1n << 59n, { ra: 1n << 59n }],
    [0n, 1n << 60n, { key: 8 }],
    [0n, 1n << 61n, { key: 16 }],
    [0n, 1n << 62n, {}],
    [0n, 1n << 63n, { pp: 4 }],
  ])('V 0x%s, R 0x%s', (v, r, fields) => {
    expect(hpte(v, r)).toMatchObject({ ...ENTRY, ...fields });
  });

  const page = { vsid: 0, segmentSize: '256M', offset: 0, ra: 0, pp: 0, wimg: 0, valid: false } as const;

  it.each<[object, v: bigint, r: bigint]>([
    [{}, 0n, 0n],
    [{ pp: undefined, wimg: undefined, valid: undefined }, 1n, 0x12n],
    [{ valid: true }, 1n, 0n],
    [{ secondary: true }, 2n, 0n],
    [{ bolted: true }, 0x10n, 0n],
    [{ referenced: true }, 0n, 0x100n],
    [{ changed: true }, 0n, 0x80n],
    [{ noExecute: true }, 0n, 4n],
    [{ wimg: 9 }, 0n, 0x48n],
    [{ pp: 1 }, 0n, 1n],
    [{ pp: 5 }, 0n, (1n << 63n) | 1n],
    [{ key: 0b10101 }, 0n, (0b10n << 60n) | (0b101n << 9n)],
    [{ ra: (1n << 60n) - 0x1000n }, 0n, (1n << 60n) - 0x1000n],
    // The virtual address is VSID and offset; V has its bits from 2^23 up, from bit 7 on.
    [{ offset: 0x7f_ffff }, 0n, 0n],
    [{ offset: 0x80_0000 }, 0x80n, 0n],
    [{ vsid: 1 }, 1n << 12n, 0n],
    [{ vsid: (1n << 50n) - 1n }, ((1n << 50n) - 1n) << 12n, 0n],
    [{ segmentSize: '1T', vsid: 1 }, (1n << 62n) | (1n << 24n), 0n],
    [{ segmentSize: '1T', offset: (1n << 40n) - 1n }, (1n << 62n) | 0xff_ff80n, 0n],
    // 64 KiB: L and LP 1; 16 MiB: L alone, and one bit less of the address; 16 GiB: LP 3, eleven bits less.
    [{ baseShift: 16 }, 4n, 0x1000n],
    [{ shift: 16 }, 4n, 0x7000n],
    [{ baseShift: 24, offset: 0xff_ffff }, 4n, 0n],
    [{ baseShift: 24, offset: 0x180_0000 }, 4n | 0x100n, 0n],
    [{ segmentSize: '1T', baseShift: 34, offset: (1n << 40n) - 1n }, (1n << 62n) | 4n | 0xfc_0000n, 0x3000n],
  ])('%o is encoded', (fields, v, r) => {
    const made = encodeHpte({ ...page, ...fields });
    expect([made.v, made.r]).toEqual([v, r]);
  });

  it.each<[object, string]>([
    [{ vsid: 1n << 50n }, '"vsid" is out of range. It must be below 2^50'],
    [{ vsid: 1n << 38n, segmentSize: '1T' }, '"vsid" is out of range. It must be below 2^38'],
    [{ wimg: 16 }, '"wimg" is out of range. It must be below 2^4'],
    [{ ra: 0x8000, shift: 16 }, '"ra" is out of range. It must be a multiple of 2^16'],
    [{ shift: 20 }, '"shift" is out of range. It must be 12 or 16 or 24 in a segment with base pages of 2^12 bytes'],
    [{ baseShift: 16, shift: 12 }, '"shift" is out of range. It must be 16 or 24 in a segment with base pages of 2^16'],
    [{ bolted: 1 }, '"bolted"'],
    [{ valid: 0 }, '"valid"'],
    [{ segmentSize: '2M' }, '"segmentSize"'],
  ])('%o is refused', (fields, message) => {
    expect(() => encodeHpte({ ...page, ...fields })).toThrow(message);
  });
});

describe('an entry is printed', () => {
  it.each([
    [
      0x81n,
      0x2000n,
      'HPTE 0x0000000000000081 0x0000000000002000: valid, 256M segment, avpn 0x1, 4K at 0x2000, pp 0, key 0, ----, ---',
    ],
    [
      (1n << 62n) | 0x10n,
      0x1f9n,
      'HPTE 0x4000000000000010 0x00000000000001f9: invalid bolted, 1T segment, avpn 0x0, 4K at 0x0, pp 1, key 0, WIMG, RC-',
    ],
    [
      7n,
      0x1044n,
      'HPTE 0x0000000000000007 0x0000000000001044: valid secondary, 256M segment, avpn 0x0, 64K at 0x0, pp 0, key 0, W---, --N',
    ],
    [
      0x60n,
      0n,
      'HPTE 0x0000000000000060 0x0000000000000000: invalid hvlock absent, 256M segment, avpn 0x0, 4K at 0x0, pp 0, key 0, ----, ---',
    ],
    [
      5n,
      0x2000n,
      'HPTE 0x0000000000000005 0x0000000000002000: valid, 256M segment, avpn 0x0, invalid page size at 0x2000, pp 0, key 0, ----, ---',
    ],
    [
      0n,
      1n,
      'HPTE 0x0000000000000000 0x0000000000000001: invalid, 256M segment, avpn 0x0, 4K at 0x0, pp 1, key 0, ----, ---',
    ],
    [0n, 0n, 'HPTE empty'],
  ])('V 0x%s, R 0x%s', (v, r, line) => {
    expect(inspect(hpte(v, r))).toBe(line);
  });
});

describe('a segment, bit by bit', () => {
  const SEGMENT = {
    valid: false,
    segmentSize: '256M',
    vsid: 0n,
    baseShift: 12,
    ks: false,
    kp: false,
    noExecute: false,
  };

  it.each<[esid: bigint, vsid: bigint, Partial<Record<keyof Segment, unknown>>, string]>([
    [0n, 0n, {}, 'segment 0x0000000000000000 256M vsid 0x0 4K pages ----- (invalid)'],
    [1n << 27n, 0n, { valid: true }, 'segment 0x0000000000000000 256M vsid 0x0 4K pages -----'],
    [
      1n << 28n,
      0x800n,
      { ks: true, ea: 1n << 28n },
      'segment 0x0000000010000000 256M vsid 0x0 4K pages Ks--- (invalid)',
    ],
    [0n, 0x400n, { kp: true }, 'segment 0x0000000000000000 256M vsid 0x0 4K pages --Kp- (invalid)'],
    [0n, 0x200n, { noExecute: true }, 'segment 0x0000000000000000 256M vsid 0x0 4K pages ----N (invalid)'],
    [0n, 0x80n, {}, 'segment 0x0000000000000000 256M vsid 0x0 4K pages ----- (invalid)'],
    [0n, 0x100n, { baseShift: 24 }, 'segment 0x0000000000000000 256M vsid 0x0 16M pages ----- (invalid)'],
    [0n, 0x110n, { baseShift: 16 }, 'segment 0x0000000000000000 256M vsid 0x0 64K pages ----- (invalid)'],
    [0n, 0x120n, { baseShift: 34 }, 'segment 0x0000000000000000 256M vsid 0x0 16G pages ----- (invalid)'],
    [0n, 0x10n, { baseShift: 0 }, 'segment 0x0000000000000000 256M vsid 0x0 reserved page size ----- (invalid)'],
    [0n, 0x130n, { baseShift: 0 }, 'segment 0x0000000000000000 256M vsid 0x0 reserved page size ----- (invalid)'],
    [0n, 1n << 12n, { vsid: 1n }, 'segment 0x0000000000000000 256M vsid 0x1 4K pages ----- (invalid)'],
    [
      0n,
      1n << 61n,
      { vsid: 1n << 49n },
      'segment 0x0000000000000000 256M vsid 0x2000000000000 4K pages ----- (invalid)',
    ],
    [
      0xff_ffff_ffffn | (1n << 40n),
      (1n << 62n) | (5n << 24n),
      { valid: true, segmentSize: '1T', vsid: 5n, ea: 1n << 40n },
      'segment 0x0000010000000000 1T vsid 0x5 4K pages -----',
    ],
  ])('ESID word 0x%s, VSID word 0x%s', (esid, vsid, fields, line) => {
    expect(segment(esid, vsid)).toMatchObject({ ...SEGMENT, ...fields });
    expect(inspect(segment(esid, vsid))).toBe(line);
  });

  it.each<[object, esid: bigint, vsid: bigint]>([
    [{}, 1n << 27n, 0n],
    [{ ea: 0x1_2fff_ffffn }, 0x1_2800_0000n, 0n],
    [{ vsid: (1n << 50n) - 1n }, 1n << 27n, ((1n << 50n) - 1n) << 12n],
    [
      { segmentSize: '1T', vsid: 3, ea: (1n << 64n) - 1n },
      (0xff_ffffn << 40n) | (1n << 27n),
      (1n << 62n) | (3n << 24n),
    ],
    [{ ks: true }, 1n << 27n, 0x800n],
    [{ kp: true }, 1n << 27n, 0x400n],
    [{ noExecute: true }, 1n << 27n, 0x200n],
    [{ baseShift: 16 }, 1n << 27n, 0x110n],
    [{ baseShift: 34 }, 1n << 27n, 0x120n],
  ])('%o is encoded', (fields, esid, vsid) => {
    const made = encodeSegment({ ea: 0, vsid: 0, segmentSize: '256M', ...fields });
    expect([made.esidWord, made.vsidWord]).toEqual([esid, vsid]);
  });

  it.each<[object, string]>([
    [{ vsid: 1n << 50n }, '"vsid" is out of range. It must be below 2^50 in a segment of 256M'],
    [{ vsid: 1n << 38n, segmentSize: '1T' }, '"vsid" is out of range. It must be below 2^38 in a segment of 1T'],
    [{ baseShift: 20 }, '"baseShift" is out of range. It must be one of 12, 16, 24, 34'],
    [{ ks: 1 }, '"ks"'],
    [{ kp: 1 }, '"kp"'],
    [{ noExecute: 1 }, '"noExecute"'],
  ])('%o is refused', (fields, message) => {
    expect(() => encodeSegment({ ea: 0, vsid: 0, segmentSize: '256M', ...fields })).toThrow(message);
  });
});

describe('the SLB in struct kvm_sregs', () => {
  // pvr, then sdr1 at 8, and slbe and slbv of 64 entries from 16 on.
  const END = 16 + 64 * 16;
  const two = [
    encodeSegment({ ea: 0x1_0000_0000n, vsid: 7, segmentSize: '256M' }),
    encodeSegment({ ea: 0xc000_0000_0000_0000n, vsid: 9, segmentSize: '1T', ks: true }),
  ];

  it('has pairs of little-endian doublewords from byte 16 on, and is cleared behind what is put there', () => {
    const sregs = new Uint8Array(END + 8).fill(0xff);
    encodeSlb(sregs, two);
    const words = doublewords(sregs);
    const all = (1n << 64n) - 1n;
    expect(words.slice(0, 6)).toEqual([
      all,
      all,
      0x1_0800_0000n,
      7n << 12n,
      0xc000_0000_0800_0000n,
      (1n << 62n) | (9n << 24n) | 0x800n,
    ]);
    expect(words.slice(6, END / 8).every((word) => word === 0n)).toBe(true);
    expect(words[END / 8]).toBe(all);
    expect(slbOfSregs(sregs).map(String)).toEqual(two.map(String));
  });

  it('is read up to its last entry, the valid ones', () => {
    const sregs = new Uint8Array(END);
    putDoublewords(sregs, 2 + 2 * 63, [two[0]!.esidWord, two[0]!.vsidWord]);
    putDoublewords(sregs, 2, [two[1]!.esidWord & ~(1n << 27n), two[1]!.vsidWord]);
    expect(slbOfSregs(sregs).map(String)).toEqual([String(two[0])]);
    // As a part of a buffer.
    const part = new Uint8Array(END + 24);
    part.set(sregs, 16);
    expect(slbOfSregs(part.subarray(16)).map(String)).toEqual([String(two[0])]);
  });

  it('takes 32 segments, and bytes up to its end', () => {
    const sregs = new Uint8Array(END);
    encodeSlb(
      sregs,
      Array.from({ length: 32 }, () => two[0]!),
    );
    expect(slbOfSregs(sregs)).toHaveLength(32);
    expect(() =>
      encodeSlb(
        sregs,
        Array.from({ length: 33 }, () => two[0]!),
      ),
    ).toThrow('"slb.length" is out of range. It must be at most 32');
    expect(() => slbOfSregs(sregs.subarray(1))).toThrow('"sregs.length" is out of range. It must be at least 1040');
  });
});

it('PP and the segment’s key are what KVM makes of them', () => {
  // hpte_read_permission: with the key set 1 to 3; hpte_write_permission: 0 to 2, with the key set 2.
  const of = (allows: typeof allowsRead, strict: boolean) =>
    [0, 1, 2, 3, 4, 5, 6, 7].filter((pp) => allows(pp, strict));
  expect(of(allowsRead, false)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  expect(of(allowsRead, true)).toEqual([1, 2, 3]);
  expect(of(allowsWrite, false)).toEqual([0, 1, 2]);
  expect(of(allowsWrite, true)).toEqual([2]);
});

it('each key has two bits of the AMR, key 0 the leftmost', () => {
  for (let key = 0; key < 32; key++) {
    for (const bits of [0, 1, 2, 3]) {
      const amr = BigInt(bits) << BigInt(62 - 2 * key);
      expect(amrBits(protectionContext({ amr }), key), `key ${key}`).toBe(bits);
      expect(amrBits(protectionContext({ amr: ~amr & ((1n << 64n) - 1n) }), key), `key ${key}`).toBe(3 - bits);
    }
  }
});

it('a context is what was given, or denies nothing', () => {
  const open = { problemState: false, amrHi: 0, amrLo: 0, iamrHi: 0, iamrLo: 0 };
  expect(protectionContext()).toEqual(open);
  expect(protectionContext({ problemState: true, amr: 0x1_0000_0002n, iamr: 0x3_0000_0004n })).toEqual({
    problemState: true,
    amrHi: 1,
    amrLo: 2,
    iamrHi: 3,
    iamrLo: 4,
  });
  expect(() => protectionContext({ problemState: 1 as never })).toThrow('"state.problemState"');
  expect(() => protectionContext({ amr: -1 })).toThrow('"state.amr"');
  expect(() => protectionContext({ iamr: -1 })).toThrow('"state.iamr"');
});

describe('page sizes', () => {
  it('have names up to the largest', () => {
    expect([0, 1, 9, 10, 11, 19, 20, 30, 39, 40, 50, 63].map(pageSizeName)).toEqual([
      '1',
      '2',
      '512',
      '1K',
      '2K',
      '512K',
      '1M',
      '1G',
      '512G',
      '1T',
      '1024T',
      '8388608T',
    ]);
    expect(() => pageSizeName(64)).toThrow('"shift"');
  });

  it('that do not exist are refused, and those that do are named', () => {
    expect(() => pageEncoding(20, 20)).toThrow('"baseShift" is out of range. It must be one of 12, 16, 24, 34');
    expect(() => pageEncoding(24, 16)).toThrow('It must be 24 in a segment with base pages of 2^24 bytes. Received 16');
    expect(pageEncoding(16, 24)).toMatchObject({ large: true, lp: 8 });
  });
});

it('struct kvm_ppc_smmu_info is flags, sizes and eight segment sizes of eight page sizes', () => {
  for (const littleEndian of [true, false]) {
    // A part of a larger buffer.
    const bytes = new Uint8Array(16 + 592 + 8)
      .fill(0xee)
      .subarray(16, 16 + 592)
      .fill(0);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    view.setBigUint64(0, 2n, littleEndian);
    view.setUint32(8, 32, littleEndian);
    view.setUint16(12, 31, littleEndian);
    view.setUint16(14, 30, littleEndian);
    const u32 = (at: number, ...values: number[]) => {
      for (const [i, value] of values.entries()) view.setUint32(at + 4 * i, value, littleEndian);
    };
    // Each is 72 bytes: page_shift, slb_enc, then pairs of page_shift and pte_enc.
    u32(16, 12, 0, 12, 0, 16, 7, 24, 0x38);
    u32(16 + 72, 16, 0x110, 16, 1, 24, 8);
    u32(16 + 7 * 72, 34, 0x120);
    const segments = [
      {
        baseShift: 12,
        sllp: 0,
        pages: [
          { shift: 12, lp: 0 },
          { shift: 16, lp: 7 },
          { shift: 24, lp: 0x38 },
        ],
      },
      {
        baseShift: 16,
        sllp: 0x110,
        pages: [
          { shift: 16, lp: 1 },
          { shift: 24, lp: 8 },
        ],
      },
    ];
    const info = { pageSizesReal: false, segments1T: true, noHash: false, slbSize: 32, dataKeys: 31, instrKeys: 30 };
    // The list ends with the first that has no size.
    expect(decodeSmmuInfo(bytes, littleEndian)).toEqual({ ...info, segments });
    if (littleEndian) expect(decodeSmmuInfo(bytes)).toEqual({ ...info, segments });
    view.setBigUint64(0, 5n, littleEndian);
    expect(decodeSmmuInfo(bytes, littleEndian)).toMatchObject({ pageSizesReal: true, segments1T: false, noHash: true });
    for (let i = 0; i < 8; i++) u32(16 + 72 * i, 12, i, ...Array.from({ length: 16 }, (_, n) => n + 1));
    const full = decodeSmmuInfo(bytes, littleEndian).segments;
    expect(full.map(({ sllp }) => sllp)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(full[7]!.pages).toEqual([1, 3, 5, 7, 9, 11, 13, 15].map((n) => ({ shift: n, lp: n + 1 })));
    expect(() => decodeSmmuInfo(bytes.subarray(1), littleEndian)).toThrow(
      '"bytes.length" is out of range. It must be at least 592',
    );
  }
});

it('struct kvm_regs is seventeen special registers and 32 general ones, little-endian', () => {
  const special = ['pc', 'cr', 'ctr', 'lr', 'xer', 'msr', 'srr0', 'srr1', 'pid'];
  const sprgs = Array.from({ length: 8 }, (_, n) => `sprg${n}`);
  const general = Array.from({ length: 32 }, (_, n) => `r${n}`);
  const names = [...special, ...sprgs, ...general];
  const whole = new Uint8Array(16 + 8 * names.length);
  const bytes = whole.subarray(16);
  putDoublewords(
    whole,
    2,
    names.map((_, n) => 0x100n + BigInt(n)),
  );
  expect(decodeRegs(bytes)).toEqual(Object.fromEntries(names.map((name, n) => [name, 0x100n + BigInt(n)])));
  encodeRegs(bytes, { r31: 5, pc: 1n << 63n });
  expect(decodeRegs(bytes)).toMatchObject({ r31: 5n, pc: 1n << 63n, r30: 0x100n + 47n, cr: 0x101n });
  expect(whole.subarray(0, 16).every((byte) => byte === 0)).toBe(true);
});
