import { beforeEach, describe, expect, it } from 'vitest';
import { MemoryBacking } from '../../../lib/emulated/backing.ts';
import { EmulatedHostMemory } from '../../../lib/emulated/host-memory.ts';
import { EmulatedKernel, ERRNO, MAP, PROT } from '../../../lib/raw.ts';

const PAGE = 4096;
const GIB = 2 ** 30;
const RW = PROT.READ | PROT.WRITE;
const { EACCES, EBUSY, EINVAL } = ERRNO;

let memory: EmulatedHostMemory;
beforeEach(() => {
  memory = new EmulatedHostMemory(PAGE);
});
const map = (length: number, prot: number = RW): number =>
  memory.map({ length, prot, flags: MAP.PRIVATE | MAP.ANONYMOUS }, 0, 0, undefined);

describe('a view of memory', () => {
  it('keeps its protection, and one that is refused does not', () => {
    const hva = map(2 * PAGE);
    expect([memory.view(hva + PAGE, PAGE), memory.view(hva, PAGE), memory.view(0x1000, PAGE)]).toEqual(
      Array(3).fill(-EINVAL),
    );
    expect(memory.protect(hva, PAGE, RW)).toBe(0);
    const other = map(2 * PAGE);
    expect(memory.view(other, 2 * PAGE)).toBeInstanceOf(ArrayBuffer);
    expect(memory.protect(other, PAGE, PROT.READ)).toBe(-EBUSY);
    expect(memory.canAccess(other, true)).toBe(true);
  });

  it('is of nothing nowhere, not even behind a whole window', () => {
    const hva = map(GIB);
    expect([memory.window(hva, 0), memory.window(hva + GIB, 0), memory.window(hva + 2 * GIB, 0)]).toEqual(
      Array(3).fill(-EINVAL),
    );
  });

  it('is of all of a memfd, or there is none', () => {
    const calls = new EmulatedKernel({ arch: 'x86_64' });
    const memfd = calls.memfdCreate('two pages', 2 * PAGE, 0);
    const windowOf = (length: number, offset: number): unknown =>
      calls.window(calls.mmap(length, RW, MAP.SHARED, memfd, offset, 0, 0), length);
    expect([windowOf(PAGE, 0), windowOf(PAGE, PAGE), windowOf(2 * PAGE, PAGE)]).toEqual(Array(3).fill(-EACCES));
    expect(windowOf(2 * PAGE, 0)).toBeInstanceOf(ArrayBuffer);
  });

  it('of a memfd may go, and the memfd keeps its bytes', () => {
    const calls = new EmulatedKernel({ arch: 'x86_64' });
    const memfd = calls.memfdCreate('kept', 2 * PAGE, 0);
    const show = (): number => calls.mmap(2 * PAGE, RW, MAP.SHARED, memfd, 0, 0, 0);
    const first = show();
    expect(calls.writeMemory(first + PAGE, Uint8Array.of(7))).toBe(1);
    expect([calls.munmap(first, PAGE), calls.munmap(first + PAGE, PAGE)]).toEqual([0, 0]);
    const into = new Uint8Array(1);
    expect([calls.readMemory(show() + PAGE, into), into[0]]).toEqual([1, 7]);
  });

  it('of a GiB is where its bytes are, and accesses go from one to the next', () => {
    const hva = map(GIB + PAGE);
    const last = memory.view(hva + GIB, PAGE) as ArrayBuffer;
    expect([memory.hasBytes(hva), memory.hasBytes(hva + GIB), memory.hasBytes(hva + GIB + PAGE - 1)]).toEqual([
      false,
      true,
      true,
    ]);
    expect(memory.write(hva + GIB - 2, Uint8Array.of(1, 2, 3, 4))).toBe(4);
    expect([...new Uint8Array(last, 0, 3)]).toEqual([3, 4, 0]);
    const back = new Uint8Array(4);
    expect([memory.read(hva + GIB - 2, back), ...back]).toEqual([4, 1, 2, 3, 4]);
  });

  it('that goes with its memory takes nobody’s who has registered other pages', () => {
    const [hva, other] = [map(PAGE), map(PAGE)];
    const owner = { faulted: () => {} };
    const agreed = { resolvesStores: true, protectsMissing: true };
    memory.served.register(owner, hva, hva + PAGE, 2, agreed);
    memory.served.register(owner, other, other + PAGE, 2, agreed);
    expect(memory.unmap(hva, PAGE)).toBe(0);
    expect([memory.served.modeAt(hva), memory.served.modeAt(other)]).toEqual([undefined, 2]);
    // What a call writes is written, though it is what was there.
    memory.served.protect(other, other + PAGE, true);
    const written = (): number[] => {
      const found: number[] = [];
      memory.served.written(other, other + PAGE, false, false, (page) => void found.push(page - other));
      return found;
    };
    expect(written()).toEqual([]);
    expect([memory.read(other, new Uint8Array(1)), written()]).toEqual([1, []]);
    expect([memory.write(other, Uint8Array.of(0)), written()]).toEqual([1, [0]]);
  });
});

describe('an array over memory', () => {
  it('is in one view, of memory that has them', () => {
    const hva = map(GIB + PAGE);
    expect([memory.vmap(hva + GIB - 8, 16), memory.vmap(hva + GIB - 8, GIB)]).toEqual([-EACCES, -EINVAL]);
    const [before, behind] = [memory.vmap(hva + GIB - 8, 8), memory.vmap(hva + GIB, 8)] as [Uint8Array, Uint8Array];
    expect([before.length, before.byteOffset, behind.length, behind.byteOffset]).toEqual([8, GIB - 8, 8, 0]);
    expect(memory.vmap(map(PAGE, PROT.READ), 8)).toBe(-EACCES);
    expect(memory.vmap(map(PAGE, PROT.NONE), 8)).toBe(-EACCES);
  });

  it('is given back where it was given, and what is only looked at is not', () => {
    // Those that have nothing, or nothing that is handed out.
    map(PAGE, PROT.NONE);
    map(PAGE, PROT.READ);
    const [looked, given] = [map(PAGE), map(PAGE)];
    const window = new Uint8Array(memory.window(looked, PAGE) as ArrayBuffer);
    const array = memory.vmap(given, PAGE) as Uint8Array;
    array[0] = 7;
    expect([memory.vunmap(window), window.length]).toEqual([-EINVAL, PAGE]);
    expect(memory.vunmap(new Uint8Array(new MemoryBacking(PAGE).window(0)))).toBe(-EINVAL);
    expect([memory.vunmap(array), array.length]).toEqual([0, 0]);
    // The memory has its bytes.
    expect((memory.vmap(given, PAGE) as Uint8Array)[0]).toBe(7);
  });
});
