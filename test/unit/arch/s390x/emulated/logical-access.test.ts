/** Accesses to logical addresses that touch several pages, and what is told of those that fail. */

import { describe, expect, it } from 'vitest';
import { PROT } from '../../../../../lib/uapi/flags.ts';
import { KVM_RUN_S390X } from '../../../../../lib/uapi/structs.ts';
import { ALET, accessList, DUCT, EAX } from '../model/access-list.ts';
import { CHECK_ONLY, DAT64, INJECT, LOG, Machine, MIB, REAL64, SKEY } from './machine.ts';

const [PROTECTION, ADDRESSING, PAGE_TRANSLATION] = [4, 5, 0x11];
const PAGES = 0x11_0000;
/** PSW with DAT on and access-register mode. */
const AR_MODE = DAT64 | 0x4000_0000_0000n;
/** A prefix area that is memory, so that the vCPU runs. */
const PREFIX = 0x20_0000;
/** In the prefix area: where a program interruption leaves its code, which access register it was, and the TEID. */
const LOWCORE = { CODE: 0x8e, ACCESS_ID: 0xa0, TEID: 0xa8 } as const;

/** A machine with DAT on whose first pages have these frames; each frame from 0x60 to 0x7f has its number in all bytes. */
function mapped(frames: readonly number[], release = '6.12'): Machine {
  const machine = new Machine({ release });
  machine.latch(DAT64, { 0: 0xe0n, 1: 0x10_0000n });
  machine.addMemory();
  machine.pokeDoubleword(0x10_0000, BigInt(PAGES));
  for (let i = 0; i < 256; i++) machine.pokeDoubleword(PAGES + 8 * i, 0x400n);
  for (const [i, frame] of frames.entries()) machine.pokeDoubleword(PAGES + 8 * i, BigInt(frame) << 12n);
  for (let frame = 0x60; frame < 0x80; frame++) machine.poke(frame << 12, new Uint8Array(4096).fill(frame));
  return machine;
}

/** The first and the last byte of each part of a page that a read gives. */
function ends(machine: Machine, address: number, size: number, options = {}): number[] {
  const buf = new Uint8Array(size);
  expect(machine.read(address, size, { buf, ...options })).toBe(0);
  const found: number[] = [];
  for (let at = 0; at < size; ) {
    const end = Math.min(size, at + 4096 - ((address + at) & 0xfff));
    expect(new Set(buf.subarray(at, end)).size).toBe(1);
    found.push(buf[at]!);
    at = end;
  }
  return found;
}

describe('a read across pages', () => {
  it.each([
    ['frames that follow one another', [0x60, 0x61, 0x62, 0x63], 0, 0x4000, [0x60, 0x61, 0x62, 0x63]],
    ['from the middle to the middle', [0x60, 0x61, 0x62, 0x63], 0x800, 0x2400, [0x60, 0x61, 0x62]],
    ['to the end of a page', [0x60, 0x61, 0x62, 0x63], 0x800, 0x1800, [0x60, 0x61]],
    ['frames anywhere', [0x60, 0x70, 0x61, 0x71], 0, 0x4000, [0x60, 0x70, 0x61, 0x71]],
    ['neighbours before it that are none behind it', [0x60, 0x61, 0x62, 0x70], 0x2000, 0x2000, [0x62, 0x70]],
    ['backwards', [0x63, 0x62, 0x61], 0, 0x3000, [0x63, 0x62, 0x61]],
    ['the same frame again', [0x60, 0x60, 0x61], 0, 0x3000, [0x60, 0x60, 0x61]],
  ])('gives what is in each, and a write goes there: %s', (_, frames, address, size, expected) => {
    for (const release of ['6.12', '7.0']) {
      const machine = mapped(frames, release);
      expect(ends(machine, address, size)).toEqual(expected);
      // With a key it goes page by page.
      expect(ends(machine, address, size, { key: 1, flags: SKEY })).toEqual(expected);
      const data = Uint8Array.from({ length: size }, (_, i) => 1 + ((address + i) >> 12));
      expect(machine.write(address, size, { buf: data })).toBe(0);
      // Of a frame that is there twice the last counts.
      const last = new Map(frames.map((frame, page) => [frame, page + 1]));
      expect(ends(machine, address, size)).toEqual(expected.map((frame) => last.get(frame)));
    }
  });

  it.each(['6.12', '7.0'])('notes it for each page and for no other, on %s', (release) => {
    const machine = mapped([0x60, 0x61, 0x62, 0x63, 0x64], release);
    expect(machine.setKeys(0x60, 0x10, 0x10, 0x10, 0x10, 0x10)).toBe(0);
    expect(machine.read(0x1800, 0x1800)).toBe(0);
    expect(machine.keys(0x60, 5)).toEqual(Uint8Array.of(0x10, 0x14, 0x14, 0x10, 0x10));
    // And for those of the tables, where the guest has them.
    for (const table of [0x10_0000, PAGES]) machine.absoluteRead(table, 8);
    machine.setKeys(0xff, 0x20, 0x20, 0x20);
    machine.setKeys(PAGES / 4096, 0x20, 0x20);
    expect(machine.read(0, 8)).toBe(0);
    expect([machine.keys(0xff, 3), machine.keys(PAGES / 4096, 2)]).toEqual([
      Uint8Array.of(0x20, 0x24, 0x20),
      Uint8Array.of(0x24, 0x20),
    ]);
  });

  it.each(['6.12', '7.0'])('that ends where a segment does leaves the next one’s table alone, on %s', (release) => {
    const machine = mapped([0x60], release);
    for (const [at, entry] of [
      [PAGES + 8 * 254, 0x6_1000n],
      [PAGES + 8 * 255, 0x6_3000n],
      [0x10_0008, 0x12_0000n],
    ] as const)
      machine.pokeDoubleword(at, entry);
    machine.absoluteRead(0x12_0000, 8);
    machine.setKeys(0x120, 0x10);
    expect(ends(machine, 0xf_e000, 0x2000)).toEqual([0x61, 0x63]);
    expect(machine.keys(0x120, 1)).toEqual(Uint8Array.of(0x10));
    // Not so one byte later.
    machine.read(0xf_e000, 0x2001);
    expect(machine.keys(0x120, 1)).toEqual(Uint8Array.of(0x14));
  });

  it('begins with frame 0, where that is the prefix area, and goes on with what follows it', () => {
    const machine = mapped([0, 1, 2, 0x60]);
    machine.latch(DAT64, { 0: 0xe0n, 1: 0x10_0000n }, 0);
    for (let frame = 0; frame < 3; frame++) machine.poke(frame << 12, new Uint8Array(4096).fill(frame + 1));
    expect(ends(machine, 0, 0x4000)).toEqual([1, 2, 3, 0x60]);
    expect(ends(machine, 0x800, 0x1000)).toEqual([1, 2]);
  });

  it('looks for neighbours in the page table, not before it', () => {
    const machine = mapped([0x60, 0x61, 0x62, 0x70]);
    // As if the table began two entries earlier.
    for (const [i, frame] of [0x62, 0x63, 0x64, 0x65].entries())
      machine.pokeDoubleword(PAGES - 32 + 8 * i, BigInt(frame) << 12n);
    expect(ends(machine, 0x2000, 0x2000)).toEqual([0x62, 0x70]);
    for (const [i, frame] of [0x60, 0x61, 0x62, 0x63].entries())
      machine.pokeDoubleword(PAGES - 32 + 8 * i, BigInt(frame) << 12n);
    expect(ends(machine, 0x2000, 0x2000)).toEqual([0x62, 0x70]);
  });

  it('goes from one memslot to the next', () => {
    const machine = mapped([0x3fe, 0x3ff, 0x400, 0x401, 0x402]);
    const other = machine.map(MIB);
    expect(machine.slot(1, 4 * MIB, MIB, other)).toBe(0);
    for (const [i, value] of [0xa1, 0xa2].entries()) {
      machine.poke(4 * MIB - 0x2000 + i * 0x1000, new Uint8Array(4096).fill(value));
      machine.kernel.writeMemory(other + i * 0x1000, new Uint8Array(4096).fill(0xb1 + i));
    }
    expect(ends(machine, 0, 0x4000)).toEqual([0xa1, 0xa2, 0xb1, 0xb2]);
  });

  it('is refused for a key on any page, with nothing read', () => {
    const machine = mapped([0x60, 0x61, 0x62]);
    for (const page of [0x60, 0x61, 0x62]) {
      machine.setKeys(0x60, 0x10, 0x10, 0x10);
      machine.setKeys(page, 0x28);
      const buf = new Uint8Array(0x3000).fill(0xee);
      expect(machine.read(0, 0x3000, { buf, key: 1, flags: SKEY })).toBe(PROTECTION);
      expect(buf.every((byte) => byte === 0xee)).toBe(true);
      expect(machine.read(0, 0x3000, { key: 1, flags: SKEY | CHECK_ONLY })).toBe(PROTECTION);
    }
    machine.setKeys(0x60, 0x18, 0x18, 0x18);
    expect(ends(machine, 0, 0x3000, { key: 1, flags: SKEY })).toEqual([0x60, 0x61, 0x62]);
  });

  it.each([
    [0xffff_f800n, 0x1000],
    [0xffff_f000n, 0x2000],
    [0xffff_e000n, 0x3000],
  ])('goes on above 4 GiB from 0x%s', (address, size) => {
    const machine = new Machine().addMemory();
    machine.latch(REAL64);
    const high = machine.map(2 * MIB);
    expect(machine.slot(1, 2 ** 32 - MIB, 2 * MIB, high)).toBe(0);
    const data = Uint8Array.from({ length: size }, (_, i) => 1 + (i >> 11));
    expect(machine.write(address, size, { buf: data })).toBe(0);
    const there = new Uint8Array(size);
    machine.kernel.readMemory(high + Number(address - 0xfff0_0000n), there);
    expect(Buffer.compare(there, data)).toBe(0);
    for (const options of [{}, { key: 1, flags: SKEY }]) {
      const buf = new Uint8Array(size);
      expect(machine.read(address, size, { buf, ...options })).toBe(0);
      expect(Buffer.compare(buf, data)).toBe(0);
    }
    expect(machine.read(address, size, { flags: CHECK_ONLY })).toBe(0);
  });
});

describe.each(['6.12', '7.0'])('frames that no page table names, on %s', (release) => {
  const EDAT = 0x80_00e0n;

  const REAL: readonly [what: string, address: number, size: number, frames: readonly number[]][] = [
    ['to where the prefix area is', 0x6_2800, 0x1800, [0x62, 0x63]],
    ['across where the prefix area is', 0x6_2800, 0x5000, [0x62, 0x63, 0, 1, 0x66, 0x67]],
    ['from the prefix area', 0, 0x4000, [0x64, 0x65, 2, 3]],
    ['far from it', 0x8_0ff0, 0x1_0000, Array.from({ length: 17 }, (_, i) => 0x80 + i)],
    ['across a segment', 0xf_e000, 0x4000, [0xfe, 0xff, 0x100, 0x101]],
  ];

  /** Each frame has its number, or the lower byte of it, in all bytes. */
  function numbered(psw: bigint, cr: Readonly<Record<number, bigint>>, prefix: number): Machine {
    const machine = new Machine({ release });
    machine.addMemory(LOG);
    for (let frame = 0; frame < 0x400; frame++) machine.poke(frame << 12, new Uint8Array(4096).fill(frame));
    machine.latch(psw, cr, prefix);
    return machine;
  }

  /** Writes to pages whose frames are these, and finds what was written there and nowhere else, in storage and in what is kept of it. */
  function expectWrite(
    machine: Machine,
    [, address, size, frames]: (typeof REAL)[number],
    options: { readonly key?: number; readonly flags?: number } = {},
  ): void {
    const { s390x, vm } = machine;
    machine.dirtyPages();
    expect(s390x.setSkeys(vm, 0, 0x400, 0, new Uint8Array(0x400).fill(0x10))).toBe(0);
    machine.dirtyPages();
    const before = machine.peek(0, 4 * MIB);
    // What is behind the bytes that are written has nothing to do with it.
    const data = Uint8Array.from({ length: size + 0x3000 }, (_, i) => 1 + (i % 251));
    expect(machine.write(address, size, { buf: data, ...options })).toBe(0);
    for (const [page, frame] of frames.entries()) {
      const start = page === 0 ? address & 0xfff : 0;
      const done = page === 0 ? 0 : page * 4096 - (address & 0xfff);
      before.set(data.subarray(done, done + Math.min(4096 - start, size - done)), (frame << 12) + start);
    }
    expect(Buffer.compare(machine.peek(0, 4 * MIB), before)).toBe(0);
    const keys = machine.keys(0, 0x400) as Uint8Array;
    const marked = [...keys.keys()].filter((frame) => keys[frame] === 0x16);
    expect(marked).toEqual([...frames].sort((a, b) => a - b));
    expect(machine.dirtyPages()).toEqual(marked);
  }

  it.each(REAL)('are those of real addresses: %s', (...access) => {
    const machine = numbered(REAL64, {}, 0x6_4000);
    const [, address, size, frames] = access;
    expect(ends(machine, address, size)).toEqual(frames.map((frame) => frame & 0xff));
    expectWrite(machine, access);
    // With a key it goes page by page.
    expectWrite(machine, access, { key: 1, flags: SKEY });
  });

  it('are those of a real-space designation', () => {
    const machine = numbered(DAT64, { 0: 0xe0n, 1: 0x20n }, 0x6_4000);
    expect(ends(machine, 0x6_2800, 0x5000)).toEqual([0x62, 0x63, 0, 1, 0x66, 0x67]);
  });

  it('are those of a frame of 1 MiB, which the prefix area does not divide', () => {
    const machine = numbered(DAT64, { 0: EDAT, 1: 0x10_0000n }, 0x30_4000);
    machine.pokeDoubleword(0x10_0000, BigInt(3 * MIB) | 0x400n);
    machine.pokeDoubleword(0x10_0008, BigInt(2 * MIB) | 0x400n);
    expect(ends(machine, 0x2800, 0x4000)).toEqual([2, 3, 4, 5, 6]);
    // From one frame to the next.
    const last = Array.from({ length: 256 }, (_, i) => i);
    expect(ends(machine, 0xf_8000, 0x1_0000)).toEqual([...last.slice(0xf8), ...last.slice(0, 8)]);
  });

  it('keep what was written before one that may not be', () => {
    const machine = numbered(REAL64, {}, 0x7f00_0000);
    const data = new Uint8Array(0x3000).fill(0xaa);
    for (const write of ['write', 'absoluteWrite'] as const) {
      machine.poke(0x6_0000, new Uint8Array(0x3000));
      expect(machine.kernel.mprotect(machine.hva + 0x6_2000, 4096, PROT.READ)).toBe(0);
      const refused = release === '6.12' ? PROTECTION : -14;
      expect(machine[write](0x6_0800, 0x2000, { buf: data })).toBe(refused);
      const there = machine.peek(0x6_0000, 0x3000);
      expect([there.indexOf(0xaa), there.lastIndexOf(0xaa)]).toEqual([0x800, 0x1fff]);
      expect(machine[write](0x6_0800, 0x1800, { buf: data })).toBe(0);
      expect(machine.kernel.mprotect(machine.hva + 0x6_2000, 4096, PROT.READ | PROT.WRITE)).toBe(0);
    }
  });
});

describe('an interruption that is made pending', () => {
  /** What a KVM_RUN leaves in the prefix area. */
  function delivered(machine: Machine): { code: number; teid: bigint; accessId: number; exchanged: boolean } {
    machine.pokeDoubleword(PREFIX + LOWCORE.TEID, 0n);
    machine.poke(PREFIX + LOWCORE.CODE, new Uint8Array(2));
    machine.poke(PREFIX + LOWCORE.ACCESS_ID, Uint8Array.of(0xee));
    expect(machine.latch(REAL64, {}, PREFIX)).toBe(-4);
    const low = new DataView(machine.peek(PREFIX, 0x200).buffer);
    return {
      code: low.getUint16(LOWCORE.CODE),
      teid: low.getBigUint64(LOWCORE.TEID),
      accessId: low.getUint8(LOWCORE.ACCESS_ID),
      // The new PSW is all zeros.
      exchanged: machine.run.getBigUint64(KVM_RUN_S390X.psw_mask) !== REAL64,
    };
  }
  const NOTHING = { code: 0, teid: 0n, accessId: 0xee, exchanged: false };

  it('is so only where it is asked for, and where there is one', () => {
    const machine = mapped([0x60]);
    expect([machine.read(0x1000, 8), delivered(machine)]).toEqual([PAGE_TRANSLATION, NOTHING]);
    machine.latch(DAT64);
    expect([machine.read(0, 8, { flags: INJECT }), delivered(machine)]).toEqual([0, NOTHING]);
    machine.latch(DAT64);
    expect([machine.read(0, 8, { flags: INJECT, buf: null }), delivered(machine)]).toEqual([-14, NOTHING]);
    machine.latch(DAT64);
    expect(machine.read(0x1000, 8, { flags: INJECT, ar: 3 })).toBe(PAGE_TRANSLATION);
    expect(delivered(machine)).toEqual({ code: PAGE_TRANSLATION, teid: 0x1800n, accessId: 3, exchanged: true });
  });

  it('of storage that there is not has a code and nothing else', () => {
    const machine = mapped([0x7_0000]);
    expect(machine.read(0, 8, { flags: INJECT, ar: 3 })).toBe(ADDRESSING);
    expect(delivered(machine)).toEqual({ code: ADDRESSING, teid: 0n, accessId: 0xee, exchanged: true });
  });

  // z/Architecture Principles of Operation, chapter 6: the exception access identification is stored for these too.
  it.each<[what: string, alet: number, entry: [number, bigint] | undefined, code: number, accessId: number]>([
    ['ALET specification', ALET | 0x0200_0000, undefined, 0x28, 0xee],
    ['ALEN translation', 0x005a_1000, undefined, 0x29, 3],
    ['ALE sequence', ALET ^ 0x0001_0000, undefined, 0x2a, 3],
    ['ASTE validity', ALET, [0x1_2000, 0x8000_0000_0000_0000n], 0x2b, 3],
    ['ASTE sequence', ALET, [0x1_2010, 1n], 0x2c, 3],
  ])('of %s tells which access register it was, or has none', (_, alet, entry, code, accessId) => {
    const machine = new Machine();
    machine.latch(AR_MODE, { 0: 0xe0n, 2: DUCT, 8: EAX << 16n });
    machine.addMemory();
    for (const [at, value] of accessList().entries()) machine.pokeDoubleword(Number(at), value);
    if (entry !== undefined) machine.pokeDoubleword(...entry);
    machine.run.setUint32(KVM_RUN_S390X.acrs + 4 * 3, alet);
    for (const flags of [CHECK_ONLY, CHECK_ONLY | INJECT]) expect(machine.read(0, 8, { flags, ar: 3 })).toBe(code);
    expect(machine.read(0, 8, { flags: INJECT, ar: 3 })).toBe(code);
    expect(delivered(machine)).toEqual({ code, teid: 0n, accessId, exchanged: true });
  });
});
