import { describe, expect, it } from 'vitest';
import { aarch64Architecture } from '../../../lib/arch/aarch64/emulated/architecture.ts';
import { s390xArchitecture } from '../../../lib/arch/s390x/emulated/architecture.ts';
import { x86_64Architecture } from '../../../lib/arch/x86_64/emulated/architecture.ts';
import { DirtyLog } from '../../../lib/emulated/dirty-log.ts';
import type { Machine } from '../../../lib/emulated/machine.ts';
import { EmulatedMemslot, MemslotSet } from '../../../lib/emulated/memslots.ts';
import { ERRNO } from '../../../lib/raw.ts';
import { DIRTY_LOG, MEM } from '../../../lib/uapi/flags.ts';
import { parseRelease } from '../../../lib/uapi/release.ts';
import { slotWord } from '../../../lib/uapi/slot-word.ts';

const { EINVAL, ENOENT, EFAULT, ENOTTY, ENXIO } = ERRNO;
const release = parseRelease('6.12');
const x86 = (): Machine => x86_64Architecture(release).machine;
const s390 = (): Machine => s390xArchitecture(release).machine;
const arm = (): Machine => aarch64Architecture(release).machine;

const RING = 0x1000;
const MAX = 0x10_0000;
const { MANUAL_PROTECT_ENABLE, INITIALLY_SET } = DIRTY_LOG;

/** Slot 3 of 70 pages from frame 16 on, in one of two address spaces. */
function open(machine = x86(), asId = 1) {
  const spaces = [new MemslotSet(), new MemslotSet()];
  const log = new DirtyLog(machine, spaces);
  const slot = new EmulatedMemslot(3, asId, 0x7000_0000n, 70, 16, 0);
  spaces[asId]!.add(slot);
  const flags = (value: number): void => {
    slot.flags = value;
    log.flagsChanged(slot);
  };
  return { log, spaces, slot, flags, word: slotWord(asId, 3) };
}

const pagesOf = (bits: Uint8Array): number[] =>
  Array.from({ length: 8 * bits.length }, (_, page) => page).filter((page) => bits[page >> 3]! & (1 << (page & 7)));

/** GET_DIRTY_LOG: its pages, or −errno. */
const got = ({ log, word }: ReturnType<typeof open>, bytes = 16, sync: () => void = () => {}): number[] | number => {
  const bitmap = new Uint8Array(bytes);
  const result = log.get(word, bitmap, sync);
  return result === 0 ? pagesOf(bitmap) : result;
};
const { LOG_DIRTY_PAGES } = MEM;

describe('a bitmap', () => {
  it('has the pages that were changed since it was asked for', () => {
    const on = open();
    const { log, slot, flags } = on;
    expect(got(on)).toBe(-ENOENT);
    log.mark(slot, 17);
    flags(LOG_DIRTY_PAGES);
    expect(got(on)).toEqual([]);
    log.mark(slot, 16);
    log.mark(slot, 85);
    for (const gfn of [20, 21, 22]) log.mark(slot, gfn);
    expect([got(on), got(on)]).toEqual([[0, 4, 5, 6, 69], []]);
    log.mark(slot, 30);
    flags(0);
    log.mark(slot, 31);
    flags(LOG_DIRTY_PAGES);
    expect(got(on)).toEqual([]);
    // What the architecture knows comes to it before it is read.
    expect(got(on, 16, () => log.mark(slot, 18))).toEqual([2]);
    expect(log.get(3, new Uint8Array(16), () => {})).toBe(-ENOENT);
  });

  it('that doesn’t fit is lost, but on s390x', () => {
    for (const [machine, left] of [
      [x86(), []],
      [s390(), [2]],
    ] as const) {
      const on = open(machine, 0);
      on.flags(LOG_DIRTY_PAGES);
      on.log.mark(on.slot, 18);
      expect([got(on, 15), got(on), got(on)]).toEqual([-EFAULT, left, []]);
    }
  });

  it('is all set from the beginning where that was asked for, and cleared by hand', () => {
    const on = open();
    const { log, slot, flags, word } = on;
    expect(log.clear(word, 0n, 64, new Uint8Array(8))).toBe(-ENOENT);
    expect(log.enableManualProtect(0, BigInt(MANUAL_PROTECT_ENABLE | INITIALLY_SET))).toBe(0);
    flags(LOG_DIRTY_PAGES);
    const all = Array.from({ length: 70 }, (_, page) => page);
    expect([got(on), got(on)]).toEqual([all, all]);
    const some = Uint8Array.of(0xff, 0, 0, 0, 0, 0, 0, 0x80, 0xff);
    expect(log.clear(word, 0n, 64, some)).toBe(0);
    expect(got(on)).toEqual(all.filter((page) => page >= 8 && page !== 63));
    expect(log.clear(word, 64n, 6, Uint8Array.of(0xff, 0, 0, 0, 0, 0, 0, 0))).toBe(0);
    expect(got(on)).toEqual(all.filter((page) => page >= 8 && page < 63));
    // A whole number of words is read.
    for (const bits of [null, new Uint8Array(7)]) expect(log.clear(word, 0n, 64, bits)).toBe(-EFAULT);
    expect(log.clear(word, 64n, 6, new Uint8Array(7))).toBe(-EFAULT);
    expect([log.clear(word, 0n, 0, null), log.clear(word, 0n, 63, new Uint8Array(8))]).toEqual([0, -EINVAL]);
    expect([log.clear(word, 8n, 64, new Uint8Array(8)), log.clear(word, 64n, 7, new Uint8Array(8))]).toEqual([
      -EINVAL,
      -EINVAL,
    ]);
    log.mark(slot, 16);
    expect(got(on)).toEqual([0, ...all.filter((page) => page >= 8 && page < 63)]);
    expect(open(s390()).log.clear(3, 0n, 64, new Uint8Array(8))).toBe(-ENOTTY);
  });

  it('is cleared by hand where that was enabled with what there is', () => {
    const enabled = (machine: Machine, ...wanted: readonly number[]): number[] => {
      const { log } = open(machine);
      return wanted.map((bits) => log.enableManualProtect(0, BigInt(bits)));
    };
    expect(enabled(x86(), 1, 2, 3, 4, 5, 0)).toEqual([0, -EINVAL, 0, -EINVAL, -EINVAL, 0]);
    expect(enabled(s390(), 1, 0)).toEqual([-EINVAL, -EINVAL]);
    const on = open();
    expect(on.log.enableManualProtect(1, 1n)).toBe(-EINVAL);
    on.log.enableManualProtect(0, 1n);
    on.flags(LOG_DIRTY_PAGES);
    on.log.mark(on.slot, 20);
    expect([got(on), got(on)]).toEqual([[4], [4]]);
    on.log.enableManualProtect(0, 0n);
    expect([got(on), got(on)]).toEqual([[4], []]);
  });
});

describe('rings', () => {
  it('are of whole pages, up to a size, asked for once and before the vCPUs', () => {
    const asked = (bytes: number | bigint, vcpus = 0): number => open().log.enableRings(BigInt(bytes), MAX, vcpus);
    expect([RING, 2 * RING, MAX].map((bytes) => asked(bytes))).toEqual([0, 0, 0]);
    expect([0, RING / 2, 3 * RING, RING + 16].map((bytes) => asked(bytes))).toEqual(Array(4).fill(-EINVAL));
    expect(asked(2 * MAX)).toBe(-ERRNO.E2BIG);
    expect(asked(RING, 1)).toBe(-EINVAL);
    const { log } = open();
    expect([log.usesRings, log.newRing(), log.enableRings(BigInt(RING), MAX, 0), log.usesRings]).toEqual([
      false,
      undefined,
      0,
      true,
    ]);
    expect(log.enableRings(BigInt(2 * RING), MAX, 0)).toBe(-EINVAL);
    const none = open().log;
    expect([none.enableRings(BigInt(3 * RING), MAX, 0), none.usesRings]).toEqual([-EINVAL, false]);
    expect(log.newRing()!.area.view.byteLength).toBe(RING);
  });

  it('have each page once, until it is reset; what no vCPU changes is in none', () => {
    const { log, slot, flags, word } = open();
    expect(log.resetRings([])).toBe(-EINVAL);
    log.enableRings(BigInt(RING), MAX, 0);
    const ring = log.newRing()!;
    const pushed = (): unknown[] => {
      const entries: unknown[] = [];
      for (let at = 0; ring.area.view.getUint32(at, true) !== 0; at += 16) {
        entries.push([ring.area.view.getUint32(at + 4, true), Number(ring.area.view.getBigUint64(at + 8, true))]);
      }
      return entries;
    };
    log.mark(slot, 16, ring);
    flags(LOG_DIRTY_PAGES);
    for (const gfn of [17, 17, 85, 17]) log.mark(slot, gfn, ring);
    log.mark(slot, 20);
    expect(pushed()).toEqual([
      [word, 1],
      [word, 69],
    ]);
    const bitmap = new Uint8Array(16);
    expect(log.get(word, bitmap, () => {})).toBe(-ENXIO);
    ring.area.view.setUint32(0, 2, true);
    expect([log.resetRings([ring]), log.resetRings([ring])]).toEqual([1, 0]);
    log.mark(slot, 85, ring);
    log.mark(slot, 17, ring);
    expect(ring.area.view.getUint32(32, true)).toBe(1);
    expect(Number(ring.area.view.getBigUint64(40, true))).toBe(1);
    expect(ring.area.view.getUint32(48, true)).toBe(0);
    // Pages that became others are noticed again.
    log.pagesChanged(slot, 69, 70);
    log.mark(slot, 85, ring);
    expect(Number(ring.area.view.getBigUint64(56, true))).toBe(69);
    // Entries of what is gone count.
    for (const at of [16, 32, 48]) ring.area.view.setUint32(at, 2, true);
    ring.area.view.setUint32(20, 0x7_0007, true);
    expect(log.resetRings([undefined, ring].slice(1))).toBe(3);
  });

  it('have each store where KVM itself carries it out', () => {
    const { log, slot, flags } = open({ ...x86(), emulatesGuestCode: true });
    log.enableRings(BigInt(RING), MAX, 0);
    flags(LOG_DIRTY_PAGES);
    const ring = log.newRing()!;
    for (let i = 0; i < 3; i++) log.mark(slot, 17, ring);
    expect([0, 16, 32, 48].map((at) => ring.area.view.getUint32(at, true))).toEqual([1, 1, 1, 0]);
  });

  it('have a bitmap beside them for what no vCPU changes, where there is that and was no memslot', () => {
    const empty = (machine = arm()) => new DirtyLog(machine, [new MemslotSet(), new MemslotSet()]);
    const log = empty();
    expect(log.enableRingWithBitmap(0, true)).toBe(-EINVAL);
    log.enableRings(BigInt(RING), MAX, 0);
    expect([
      log.enableRingWithBitmap(0, false),
      log.enableRingWithBitmap(1, true),
      log.enableRingWithBitmap(0, true),
    ]).toEqual([-EINVAL, -EINVAL, 0]);
    const { log: late } = open(arm());
    late.enableRings(BigInt(RING), MAX, 0);
    expect(late.enableRingWithBitmap(0, true)).toBe(-EINVAL);
    // Without memslots first, and some afterwards.
    const spaces = [new MemslotSet()];
    const both = new DirtyLog(arm(), spaces);
    both.enableRings(BigInt(RING), MAX, 0);
    expect(both.enableRingWithBitmap(0, true)).toBe(0);
    const slot = new EmulatedMemslot(3, 0, 0x7000_0000n, 70, 16, LOG_DIRTY_PAGES);
    spaces[0]!.add(slot);
    both.flagsChanged(slot);
    const ring = both.newRing()!;
    both.mark(slot, 17, ring);
    both.mark(slot, 18);
    const bitmap = new Uint8Array(16);
    expect([both.get(3, bitmap, () => {}), pagesOf(bitmap)]).toEqual([0, [2]]);
    expect(Number(ring.area.view.getBigUint64(8, true))).toBe(1);
  });
});
