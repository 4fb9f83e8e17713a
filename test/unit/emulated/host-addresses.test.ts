import { describe, expect, it } from 'vitest';
import { EmulatedHostMemory } from '../../../lib/emulated/host-memory.ts';
import { ERRNO, MAP, PROT } from '../../../lib/raw.ts';

describe('what is known of an address', () => {
  const PAGE = 4096;
  const RW = PROT.READ | PROT.WRITE;
  const anonymous = (memory: EmulatedHostMemory, pages: number, flags: number, prot: number = RW): number =>
    memory.map({ length: pages * PAGE, prot, flags: flags | MAP.ANONYMOUS }, 0, 0, undefined);

  it('is that of its mapping, up to the end and no further', () => {
    const memory = new EmulatedHostMemory(PAGE);
    const hva = anonymous(memory, 2, MAP.SHARED);
    const end = hva + 2 * PAGE;
    expect([hva - 1, hva, end - 1, end, end + 8].map((at) => memory.mappedBytes(at))).toEqual([0, 2 * PAGE, 1, 0, 0]);
    expect([hva - 1, hva, end - 1, end].map((at) => memory.isShared(at))).toEqual([false, true, true, false]);
    expect([hva - 1, hva, end - 1, end].map((at) => memory.canAccess(at, true))).toEqual([false, true, true, false]);
    expect([hva, end].map((at) => memory.isViewed(at))).toEqual([false, false]);
    expect(memory.window(hva, 2 * PAGE)).toBeInstanceOf(ArrayBuffer);
    expect([hva, end - 1, end].map((at) => memory.isViewed(at))).toEqual([true, true, false]);
    const around = (at: number, length: number): unknown => memory.mappingAround(at, length)?.hva;
    expect([
      around(hva, 2 * PAGE),
      around(end - 1, 1),
      around(hva, 2 * PAGE + 1),
      around(hva, 0),
      around(end, 1),
    ]).toEqual([hva, hva, undefined, undefined, undefined]);
    expect([memory.hasBytes(hva), memory.hasBytes(end)]).toEqual([true, false]);
    expect(memory.hasBytes(anonymous(memory, 1, MAP.PRIVATE))).toBe(false);
  });

  it('is whether a range lies beside all mappings, inside one, or across its ends', () => {
    const memory = new EmulatedHostMemory(PAGE);
    const hva = anonymous(memory, 4, MAP.PRIVATE);
    const crossed = (first: number, pages: number): boolean => memory.isCrossed(hva + first * PAGE, pages * PAGE);
    expect([crossed(0, 4), crossed(1, 2), crossed(-2, 2), crossed(4, 2), crossed(-9, 3)]).toEqual(Array(5).fill(false));
    expect([crossed(-1, 2), crossed(3, 2), crossed(-1, 6), crossed(0, 5)]).toEqual(Array(4).fill(true));
  });

  it('is whether others may have what is there', () => {
    const memory = new EmulatedHostMemory(PAGE);
    const [own, shared] = [anonymous(memory, 4, MAP.PRIVATE), anonymous(memory, 4, MAP.SHARED)];
    const hasPrivate = (hva: number, first: number, end: number): boolean =>
      memory.hasPrivate(hva + first * PAGE, hva + end * PAGE);
    expect([hasPrivate(own, 1, 2), hasPrivate(shared, 0, 4), hasPrivate(shared, 1, 2)]).toEqual([true, false, false]);
    // Nobody else can have what is reserved where something was unmapped.
    expect(memory.unmap(shared + 2 * PAGE, PAGE)).toBe(0);
    const around = [
      hasPrivate(shared, 0, 2),
      hasPrivate(shared, 1, 3),
      hasPrivate(shared, 2, 4),
      hasPrivate(shared, 3, 4),
    ];
    expect(around).toEqual([false, true, true, false]);
    expect(hasPrivate(0x1000, 0, 1)).toBe(true);
    expect([memory.hasFile(own, own + PAGE), memory.hasFile(0x1000, 0x2000)]).toEqual([false, false]);
    const huge = (flags: number): boolean => {
      const hva = memory.map(
        { length: 0x20_0000, prot: RW, flags: flags | MAP.ANONYMOUS | MAP.HUGETLB },
        0,
        0,
        undefined,
      );
      return memory.hasSharedHuge(hva, hva + 0x20_0000);
    };
    expect([huge(MAP.SHARED), huge(MAP.PRIVATE), memory.hasSharedHuge(shared, shared + PAGE)]).toEqual([
      true,
      false,
      false,
    ]);
  });

  it('is whether a part of it is memory that others can’t have', () => {
    const memory = new EmulatedHostMemory(PAGE);
    const hva = anonymous(memory, 3, MAP.PRIVATE, PROT.NONE);
    const put = (page: number, flags: number): number =>
      memory.mapFixed(hva + page * PAGE, { length: PAGE, prot: RW, flags: flags | MAP.ANONYMOUS }, () => undefined);
    expect([put(0, MAP.SHARED), put(1, MAP.PRIVATE), put(2, MAP.SHARED)]).toEqual([0, 0, 0]);
    const hasPrivate = (first: number, end: number): boolean => memory.hasPrivate(hva + first * PAGE, hva + end * PAGE);
    expect([hasPrivate(0, 1), hasPrivate(0, 2), hasPrivate(0, 3), hasPrivate(1, 3), hasPrivate(2, 3)]).toEqual([
      false,
      true,
      true,
      true,
      false,
    ]);
  });

  it('is that views of it were taken away, after which there may be others, if there may be any', () => {
    const memory = new EmulatedHostMemory(PAGE);
    const [plain, readable] = [anonymous(memory, 1, MAP.PRIVATE), anonymous(memory, 1, MAP.PRIVATE, PROT.READ)];
    const window = memory.window(plain, PAGE) as ArrayBuffer;
    for (const hva of [plain, readable]) memory.hideViews(memory.mappingAround(hva, PAGE)!);
    expect(window.byteLength).toBe(0);
    expect(memory.window(plain, PAGE)).toBeInstanceOf(ArrayBuffer);
    expect(memory.window(readable, PAGE)).toBe(-ERRNO.EACCES);
  });

  it('is what a page was filled with, however it may be accessed', () => {
    for (const prot of [PROT.READ, PROT.WRITE, RW]) {
      const memory = new EmulatedHostMemory(PAGE);
      const hva = anonymous(memory, 2, MAP.PRIVATE, prot);
      memory.fill(hva, new Uint8Array(PAGE).fill(7));
      const found = new Uint8Array(2 * PAGE);
      expect([memory.protect(hva, 2 * PAGE, PROT.READ), memory.read(hva, found)]).toEqual([0, 2 * PAGE]);
      expect([found[0], found[PAGE - 1], found[PAGE]], String(prot)).toEqual([7, 7, 0]);
    }
    // Where nothing may be accessed nothing is filled.
    const memory = new EmulatedHostMemory(PAGE);
    const none = anonymous(memory, 1, MAP.PRIVATE, PROT.NONE);
    memory.fill(none, new Uint8Array(PAGE).fill(7));
    expect(memory.hasBytes(none)).toBe(false);
  });

  it('is nothing once it is unmapped: the next mapping is elsewhere', () => {
    const memory = new EmulatedHostMemory(PAGE);
    const seen = new Set<number>();
    for (let i = 0; i < 5; i++) {
      const hva = anonymous(memory, 1, MAP.PRIVATE);
      expect(seen.has(hva)).toBe(false);
      seen.add(hva);
      expect([memory.unmap(hva, PAGE), memory.canAccess(hva, false)]).toEqual([0, false]);
    }
  });

  it('is one that nobody had for as long as there are any, up to the last', () => {
    const END = 2 ** 47;
    for (const [beyond, isFresh] of [
      [0, true],
      [PAGE, false],
    ] as const) {
      const memory = new EmulatedHostMemory(PAGE);
      const first = anonymous(memory, 1, MAP.PRIVATE);
      expect(memory.unmap(first, PAGE)).toBe(0);
      // A page stays free behind each.
      const next = first + 2 * PAGE;
      const rest = anonymous(memory, (END - next + beyond) / PAGE, MAP.PRIVATE, PROT.NONE);
      expect(rest).toBe(isFresh ? next : first);
    }
  });

  it('is whether all of a range may be written', () => {
    const memory = new EmulatedHostMemory(PAGE);
    const hva = anonymous(memory, 4, MAP.PRIVATE);
    const unwritable = (first: number, pages: number): boolean =>
      memory.hasUnwritable(hva + first * PAGE, pages * PAGE);
    expect([unwritable(0, 4), unwritable(0, 5), unwritable(-1, 1)]).toEqual([false, true, true]);
    expect(memory.protect(hva + PAGE, PAGE, PROT.READ)).toBe(0);
    expect([unwritable(0, 1), unwritable(0, 2), unwritable(1, 1), unwritable(2, 2)]).toEqual([
      false,
      true,
      true,
      false,
    ]);
    expect(memory.unmap(hva + 2 * PAGE, PAGE)).toBe(0);
    expect([unwritable(2, 1), unwritable(3, 1), unwritable(2, 2)]).toEqual([true, false, true]);
  });

  it('is why it can’t be had: it is not there, or somebody serves it', () => {
    const memory = new EmulatedHostMemory(PAGE);
    const hva = anonymous(memory, 2, MAP.PRIVATE);
    expect([memory.whyNot(0x1000, false), memory.whyNot(hva, false)]).toEqual([-ERRNO.EFAULT, -ERRNO.EFAULT]);
    const agreed = { resolvesStores: false, protectsMissing: false };
    memory.served.register({ faulted: () => {} }, hva, hva + PAGE, 1, agreed);
    expect([memory.whyNot(hva, false), memory.whyNot(hva + PAGE, false)]).toEqual([-ERRNO.EAGAIN, -ERRNO.EFAULT]);
    expect(memory.protect(hva, PAGE, PROT.READ)).toBe(0);
    expect([memory.whyNot(hva, true), memory.whyNot(hva, false)]).toEqual([-ERRNO.EFAULT, -ERRNO.EAGAIN]);
  });
});
