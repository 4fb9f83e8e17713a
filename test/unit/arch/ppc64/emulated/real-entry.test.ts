/**
 * What KVM's own entry has that the guest's view of it has not (`book3s_hv_rm_mmu.c` and `book3s_64_mmu_hv.c` of Linux 6.12). Since
 * POWER9 H_REMOVE leaves the second doubleword as it is, and H_READ of an empty slot shows it.
 */

import { describe, expect, it } from 'vitest';
import { HostPtes } from '../../../../../lib/arch/ppc64/emulated/real-entry.ts';
import { load, store } from '../../../../../lib/emulated/guest.ts';
import { EmulatedHostMemory } from '../../../../../lib/emulated/host-memory.ts';
import { CAP } from '../../../../../lib/uapi/capabilities.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { MADV, MAP, PROT } from '../../../../../lib/uapi/flags.ts';
import { TestVm, vrma } from './vm.ts';

const [REMOVE, ENTER, CLEAR_MOD, CLEAR_REF, PROTECT] = [4, 8, 0x10, 0x14, 0x18];
const EXACT = 0x80_0000_0000n;
const [PP0, KEY, RC, N] = [1n << 63n, 0x3000_0000_0000_0e00n, 0x180n, 4n];
const PAGE = 0x9000;
const [slot, [V, ENTRY_R]] = vrma(18, BigInt(PAGE), 0x10n);
/** WIMG and the page, without PP. */
const R = ENTRY_R & ~3n;

const withPp = (pp: number): bigint => R | (pp >= 4 ? PP0 : 0n) | BigInt(pp & 3);
const ppOf = (r: bigint): number => Number((r >> 61n) & 4n) + Number(r & 3n);

/** A VM whose host lets a page be accessed in some ways, with an entry for it. */
function entered(r: bigint, prot: number = PROT.READ | PROT.WRITE): TestVm {
  const vm = new TestVm({ order: 18 });
  vm.ok(vm.kernel.mprotect(vm.hva + PAGE, 4096, prot));
  expect(vm.hcall(ENTER, EXACT, BigInt(slot), V, r)).toEqual([0n, BigInt(slot)]);
  return vm;
}

/** The second doubleword of the real entry; the guest's is then gone. */
function realR(vm: TestVm): bigint {
  expect(vm.hcall(REMOVE, 0n, BigInt(slot), 0n)[0]).toBe(0n);
  const [v, r] = vm.guestView(slot);
  // B, and nothing else.
  expect(v).toBe(V & (3n << 62n));
  return r!;
}

const [WRITABLE, READ_ONLY] = [PROT.READ | PROT.WRITE, PROT.READ];
/** What PP lets nobody store any more, and as many load as before. */
const READ_ONLY_PP = [6, 3, 3, 3, 6, 6, 6, 6];

describe.each(READ_ONLY_PP.map((readOnly, pp) => [pp, readOnly]))('PP %i', (pp, readOnly) => {
  it('stays where the host’s page may be written, and becomes read-only where it may not', () => {
    expect(ppOf(realR(entered(withPp(pp), WRITABLE)))).toBe(pp);
    expect(ppOf(realR(entered(withPp(pp), READ_ONLY)))).toBe(readOnly);
  });

  it('is mapped the same by a fault', () => {
    for (const [prot, expected] of [
      [WRITABLE, pp],
      [READ_ONLY, readOnly],
    ] as const) {
      const vm = entered(withPp(pp), PROT.NONE);
      vm.ok(vm.kernel.mprotect(vm.hva + PAGE, 4096, prot));
      expect(vm.run(load(PAGE, 4))).toEqual([0n]);
      expect(ppOf(realR(vm))).toBe(expected);
    }
  });

  it('of H_PROTECT opens nothing that was read-only', () => {
    const flags = BigInt(pp & 3) | (pp >= 4 ? 0x100n : 0n);
    for (const [before, expected] of [
      [2, pp],
      [3, readOnly],
    ] as const) {
      const vm = entered(withPp(before));
      expect(vm.hcall(PROTECT, flags, BigInt(slot), 0n)).toEqual([0n]);
      expect(vm.guestView(slot)).toEqual([V, withPp(pp)]);
      expect(ppOf(realR(vm))).toBe(expected);
    }
  });
});

it('the guest sees its own where the host’s page is read-only, and cannot store', () => {
  const vm = entered(withPp(2), READ_ONLY);
  expect(vm.guestView(slot)).toEqual([V, withPp(2)]);
  expect(vm.run(load(PAGE, 4))).toEqual([0n]);
  vm.run(store(PAGE, 4, 1n));
  expect(vm.exit).toBe(-ERRNO.EFAULT);
});

describe('R and C', () => {
  it('are not those that the guest wrote, but those that the processor and gone entries have noted', () => {
    const vm = entered(withPp(2) | RC);
    expect(realR(vm) & RC).toBe(0n);
    vm.hcall(ENTER, EXACT, BigInt(slot), V, withPp(2) | RC);
    vm.run(load(PAGE, 4));
    expect(realR(vm) & RC).toBe(0x100n);
    // The page is known to have been referenced now, and not to have been changed.
    vm.hcall(ENTER, EXACT, BigInt(slot), V, withPp(2) | RC);
    expect(realR(vm) & RC).toBe(0x100n);
    vm.hcall(ENTER, EXACT, BigInt(slot), V, withPp(2) | 0x80n);
    vm.run(store(PAGE, 4, 1n));
    expect(realR(vm) & RC).toBe(RC);
    vm.hcall(ENTER, EXACT, BigInt(slot), V, withPp(2));
    expect(realR(vm) & RC).toBe(0n);
    vm.hcall(ENTER, EXACT, BigInt(slot), V, withPp(2) | 0x80n);
    expect(realR(vm) & RC).toBe(0x80n);
  });

  it('are not known of a page by H_CLEAR_REF and H_CLEAR_MOD of an entry that says so by itself', () => {
    const vm = entered(withPp(2) | RC);
    for (const nr of [CLEAR_REF, CLEAR_MOD]) {
      vm.ok(vm.kernel.enableCap(vm.vm, CAP.PPC_ENABLE_HCALL, 0, [nr, 1]));
      vm.hcall(nr, 0n, BigInt(slot));
    }
    expect(vm.dirty()).toEqual([]);
    expect(realR(vm) & RC).toBe(0n);
    vm.hcall(ENTER, EXACT, BigInt(slot), V, withPp(2) | RC);
    expect(realR(vm) & RC).toBe(0n);
  });

  it('survive a fault that makes the entry writable', () => {
    const vm = entered(withPp(2), READ_ONLY);
    vm.run(load(PAGE, 4));
    vm.ok(vm.kernel.mprotect(vm.hva + PAGE, 4096, WRITABLE));
    vm.run(store(PAGE, 4, 1n));
    expect([vm.exit, vm.dirty()]).toEqual([-ERRNO.EINTR, [PAGE / 4096]]);
    expect(vm.guestView(slot)[1]).toBe(withPp(2) | RC);
    expect(realR(vm)).toBe(withPp(2) | 0x100n);
  });
});

describe('the key', () => {
  it.each([
    ['is the guest’s where there is memory', PAGE, WRITABLE, 0x1000_0000_0000_0400n],
    ['is cleared where the host has no page', PAGE, PROT.NONE, 0n],
    ['is 31 where there is no memslot', 0x4000_0000_0000, WRITABLE, KEY],
  ])('%s', (_, address, prot, key) => {
    const r = BigInt(address) | 0x1000_0000_0000_0412n;
    const vm = entered(r, prot);
    expect(vm.guestView(slot)).toEqual([V, r]);
    // H_PROTECT does not get at that of an entry that isn't valid.
    const valid = key !== 0n && key !== KEY;
    vm.hcall(PROTECT, 0x2206n, BigInt(slot), 0n);
    expect(vm.guestView(slot)[1]! & KEY).toBe(0x2000_0000_0000_0200n);
    const left = realR(vm);
    expect(left & KEY).toBe(valid ? 0x2000_0000_0000_0200n : key);
    expect(left & N).toBe(valid ? N : 0n);
  });

  it('is cleared when the host takes the page', () => {
    const vm = entered(withPp(2) | KEY);
    vm.ok(vm.kernel.mprotect(vm.hva + PAGE, 4096, PROT.NONE));
    vm.run(load(PAGE, 4));
    expect(vm.exit).toBe(-ERRNO.EFAULT);
    expect(vm.guestView(slot)[1]! & KEY).toBe(KEY);
    expect(realR(vm) & KEY).toBe(0n);
  });
});

describe('VALID', () => {
  const [ABSENT_BIT, VALID_BIT] = [0x20n, 1n];
  const ANDCOND = 0x4000_0000n;

  it.each([
    ['there is no memslot', 0x4000_0000_0010n, WRITABLE, false],
    ['the host lets nobody access the page', BigInt(PAGE) | 0x10n, PROT.NONE, false],
    ['the page may only be read', BigInt(PAGE) | 0x10n, READ_ONLY, true],
  ])('is for the guest even what is ABSENT, which H_REMOVE lets it know: %s', (_, r, prot, valid) => {
    const vm = entered(r, prot);
    const remove = (flags: bigint): bigint => vm.hcall(REMOVE, ANDCOND, BigInt(slot), flags)[0]!;
    expect(vm.guestView(slot)).toEqual([V, r]);
    expect(remove(valid ? VALID_BIT : ABSENT_BIT)).toBe(-7n);
    expect(remove(valid ? ABSENT_BIT : VALID_BIT)).toBe(0n);
  });
});

describe('pages of the host’s in its own tables', () => {
  const TABLE = 0x20_0000;

  it('are there where one of the same 2 MiB was written, and looked for whenever somebody asks', () => {
    const memory = new EmulatedHostMemory(4096);
    const request = { length: 2 * TABLE, prot: PROT.READ | PROT.WRITE, flags: MAP.PRIVATE | MAP.ANONYMOUS };
    const hva = memory.map(request, TABLE, 0, undefined);
    const ptes = new HostPtes(memory);
    const there = (): boolean[] => [0, TABLE - 4096, TABLE, 2 * TABLE - 1].map((at) => ptes.has(hva + at));
    expect(there()).toEqual([false, false, false, false]);
    expect(memory.write(hva + TABLE - 1, Uint8Array.of(1))).toBe(1);
    expect(there()).toEqual([true, true, false, false]);
    expect(memory.write(hva + TABLE, Uint8Array.of(1))).toBe(1);
    expect(there()).toEqual([true, true, true, true]);
  });

  it('are looked for once while nobody stores', () => {
    const memory = new EmulatedHostMemory(4096);
    const request = { length: TABLE, prot: PROT.READ | PROT.WRITE, flags: MAP.PRIVATE | MAP.ANONYMOUS };
    const hva = memory.map(request, TABLE, 0, undefined);
    const ptes = new HostPtes(memory);
    const found = ptes.during(() => {
      const before = ptes.has(hva);
      memory.write(hva, Uint8Array.of(1));
      return [before, ptes.has(hva + 4096)];
    });
    expect([...found, ptes.has(hva)]).toEqual([false, false, true]);
    // Also where what was done meanwhile failed.
    memory.advise(hva, TABLE, MADV.DONTNEED);
    const failed = new Error('in the middle');
    expect(() =>
      ptes.during(() => {
        ptes.has(hva);
        throw failed;
      }),
    ).toThrow(failed);
    memory.write(hva, Uint8Array.of(1));
    expect(ptes.has(hva)).toBe(true);
  });
});
