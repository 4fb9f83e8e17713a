/** The rings that KVM shares with user space, as its uAPI has them, of a host of either byte order. */

import { describe, expect, it } from 'vitest';
import { CoalescedMmioRing, type CoalescedWrite } from '../../../lib/memory/coalesced-mmio.ts';
import { DirtyRing } from '../../../lib/memory/dirty-ring.ts';

const [DIRTY, RESET] = [1, 2];

describe.each([
  ['x86_64', true],
  ['s390x', false],
] as const)('of %s', (arch, little) => {
  /** struct kvm_dirty_gfn: u32 flags, u32 slot, u64 offset. */
  function fill(view: DataView, at: number, flags: number, slot: number, offset: bigint): void {
    view.setUint32(16 * at, flags, little);
    view.setUint32(16 * at + 4, slot, little);
    view.setBigUint64(16 * at + 8, offset, little);
  }

  it('dirty pages are harvested up to the first entry that is not dirty, around the end', () => {
    const view = new DataView(new ArrayBuffer(16 * 4));
    const ring = new DirtyRing(view.buffer, arch, 2);
    const harvested: [number, number][] = [];
    const harvest = (): number => ring.harvest((slot, offset) => harvested.push([slot, offset]));
    expect(harvest()).toBe(0);
    fill(view, 2, DIRTY, 0x1_0002, 0x12_3456_789an);
    fill(view, 3, DIRTY, 7, 1n);
    fill(view, 0, DIRTY, 8, 2n);
    fill(view, 1, RESET, 9, 3n);
    expect(harvest()).toBe(3);
    expect(harvested).toEqual([
      [0x1_0002, 0x12_3456_789a],
      [7, 1],
      [8, 2],
    ]);
    expect([0, 1, 2, 3].map((at) => view.getUint32(16 * at, little))).toEqual([RESET, RESET, RESET, RESET]);
    expect(ring.next).toBe(1);
    expect(harvest()).toBe(0);
  });

  it('a full ring is harvested once around', () => {
    const view = new DataView(new ArrayBuffer(16 * 4));
    for (let at = 0; at < 4; at++) fill(view, at, DIRTY, at, 0n);
    const slots: number[] = [];
    const ring = new DirtyRing(view.buffer, arch);
    expect(ring.harvest((slot) => slots.push(slot))).toBe(4);
    expect([slots, ring.next]).toEqual([[0, 1, 2, 3], 0]);
  });

  it('no more is harvested at once than a ring holds, whatever comes meanwhile', () => {
    const view = new DataView(new ArrayBuffer(16 * 4));
    for (let at = 0; at < 4; at++) fill(view, at, DIRTY, at, 0n);
    const ring = new DirtyRing(view.buffer, arch);
    expect(ring.harvest((slot) => fill(view, slot, DIRTY, slot, 1n))).toBe(4);
    expect([ring.next, ring.harvest(() => {})]).toEqual([0, 4]);
  });

  /** struct kvm_coalesced_mmio_ring: u32 first, last, then {u64 phys_addr, u32 len, u32 pio, u8 data[8]}. */
  const SIZE = 8 + 3 * 24 + 5;
  function store(view: DataView, at: number, gpa: bigint, pio: number, data: readonly number[]): void {
    const place = 8 + 24 * at;
    view.setBigUint64(place, gpa, little);
    view.setUint32(place + 8, data.length, little);
    view.setUint32(place + 12, pio, little);
    for (const [i, byte] of data.entries()) view.setUint8(place + 16 + i, byte);
  }
  function drained(view: DataView, first: number, last: number): CoalescedWrite[] {
    view.setUint32(0, first, little);
    view.setUint32(4, last, little);
    const writes: CoalescedWrite[] = [];
    new CoalescedMmioRing(view.buffer, arch).drain((write) => writes.push(write));
    return writes;
  }

  it('coalesced stores are taken in order, around the end, and the ring is empty then', () => {
    const view = new DataView(new ArrayBuffer(SIZE));
    store(view, 2, 0x12_3456_789an, 0, [1, 2, 3, 4]);
    store(view, 0, 0xfedc_ba98_7654_3210n, 0, [5]);
    store(view, 1, 0x60n, 1, [6, 7]);
    expect(drained(view, 2, 1)).toEqual([
      { pio: false, gpa: 0x12_3456_789a, data: Uint8Array.of(1, 2, 3, 4) },
      { pio: false, gpa: 0xfedc_ba98_7654_3210n, data: Uint8Array.of(5) },
    ]);
    expect([view.getUint32(0, little), view.getUint32(4, little)]).toEqual([1, 1]);
    expect(drained(view, 1, 2)).toEqual([{ pio: true, gpa: 0x60, data: Uint8Array.of(6, 7) }]);
    expect(drained(view, 2, 2)).toEqual([]);
  });

  it('an address is a number as long as that is exact', () => {
    const view = new DataView(new ArrayBuffer(SIZE));
    store(view, 0, 2n ** 53n - 1n, 0, [1]);
    store(view, 1, 2n ** 53n, 0, [1]);
    expect(drained(view, 0, 2).map(({ gpa }) => gpa)).toEqual([2 ** 53 - 1, 2n ** 53n]);
  });

  it('no more is taken than a ring holds, though more are put into it meanwhile', () => {
    const view = new DataView(new ArrayBuffer(SIZE));
    for (const entry of [0, 1, 2]) store(view, entry, BigInt(entry), 0, [1]);
    view.setUint32(4, 1, little);
    let taken = 0;
    new CoalescedMmioRing(view.buffer, arch).drain(() => {
      taken++;
      // One more, as long as anybody takes them.
      view.setUint32(4, (taken + 1) % 3, little);
    });
    expect(taken).toBe(3);
  });

  it('nothing is taken of a ring that no kernel writes, and no more than eight bytes of a store', () => {
    const view = new DataView(new ArrayBuffer(SIZE));
    // There are three entries.
    for (const [first, last] of [
      [3, 0],
      [0, 3],
      [0xffff_ffff, 1],
      [1, 0x100_0000],
    ] as const) {
      expect(drained(view, first, last)).toEqual([]);
    }
    store(view, 0, 0n, 0, [1, 2, 3, 4, 5, 6, 7, 8]);
    view.setUint32(8 + 8, 0xffff, little);
    expect(drained(view, 0, 1)[0]!.data).toEqual(Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  });
});
