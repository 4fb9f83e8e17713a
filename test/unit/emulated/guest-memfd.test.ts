import { describe, expect, it } from 'vitest';
import { EmulatedGuestMemfd } from '../../../lib/emulated/guest-memfd.ts';
import { ERRNO, MAP } from '../../../lib/raw.ts';
import { FALLOC, GUEST_MEMFD_FLAG } from '../../../lib/uapi/flags.ts';

const PAGE = 4096;
const { MMAP, INIT_SHARED } = GUEST_MEMFD_FLAG;
const memfdOf = (flags: number, pages = 4) => new EmulatedGuestMemfd('vm', pages * PAGE, flags, PAGE);

describe('a guest_memfd', () => {
  it('is mapped shared where it was made so, and shows its pages where those are', () => {
    expect(memfdOf(0).mmap(0, MAP.SHARED)).toBe(-ERRNO.ENODEV);
    const closed = memfdOf(MMAP);
    expect(closed.mmap(0, MAP.PRIVATE)).toBe(-ERRNO.EINVAL);
    // Behind every address is the end of the file.
    const nothing = closed.mmap(PAGE, MAP.SHARED);
    expect(nothing).toMatchObject({ offset: PAGE, guarded: true });
    expect((nothing as { backing: { size(): number } }).backing.size()).toBe(0);
    const shared = memfdOf(MMAP | INIT_SHARED);
    const shown = shared.mmap(PAGE, MAP.SHARED) as { backing: unknown };
    expect(shown).toMatchObject({ offset: PAGE, guarded: true });
    expect([shown.backing === shared.backing, shared.backing.size(), shared.size]).toEqual([true, 4 * PAGE, 4 * PAGE]);
    expect([memfdOf(0).mappable, closed.mappable, memfdOf(INIT_SHARED).mappable]).toEqual([false, true, false]);
    expect([shared.vm, shared.bindings, shared.kind]).toEqual(['vm', [], 'guest_memfd']);
  });

  it('is gone with its descriptor, unless something maps it', () => {
    const [first, second] = [memfdOf(MMAP), memfdOf(MMAP)];
    expect([first.closed, second.closed]).toEqual([false, false]);
    second.mmap(0, MAP.SHARED);
    first.released();
    second.released();
    expect([first.closed, second.closed]).toEqual([true, false]);
    const refused = memfdOf(MMAP);
    refused.mmap(0, MAP.PRIVATE);
    refused.released();
    expect(refused.closed).toBe(true);
  });

  it('keeps its size, and gets holes of whole pages, as far as it reaches', () => {
    const memfd = memfdOf(0);
    const { KEEP_SIZE, PUNCH_HOLE } = FALLOC;
    const HOLE = KEEP_SIZE | PUNCH_HOLE;
    for (const mode of [0, PUNCH_HOLE, KEEP_SIZE | 0x10, HOLE | 8]) {
      expect(memfd.fallocate(mode, 0, PAGE), `${mode}`).toBe(-ERRNO.EOPNOTSUPP);
    }
    for (const mode of [KEEP_SIZE, HOLE]) {
      expect([memfd.fallocate(mode, 8, PAGE), memfd.fallocate(mode, 0, PAGE + 8)]).toEqual([
        -ERRNO.EINVAL,
        -ERRNO.EINVAL,
      ]);
    }
    expect([memfd.fallocate(KEEP_SIZE, 0, 4 * PAGE), memfd.fallocate(KEEP_SIZE, PAGE, 4 * PAGE)]).toEqual([
      0,
      -ERRNO.EINVAL,
    ]);
    const bytes = new Uint8Array(memfd.backing.window(0));
    const left = (): number[] =>
      [0, 1, 2, 3].filter((page) => bytes[page * PAGE] !== 0 && bytes[page * PAGE + PAGE - 1] !== 0);
    bytes.fill(7);
    expect([memfd.fallocate(HOLE, PAGE, PAGE), left()]).toEqual([0, [0, 2, 3]]);
    expect([memfd.fallocate(HOLE, 3 * PAGE, 9 * PAGE), left()]).toEqual([0, [0, 2]]);
    expect([memfd.fallocate(HOLE, 4 * PAGE, PAGE), memfd.fallocate(HOLE, 8 * PAGE, PAGE), left()]).toEqual([
      0,
      0,
      [0, 2],
    ]);
  });
});
