import { describe, expect, it } from 'vitest';
import { unmapDropped, viewsOutlive } from '../../../lib/calls/dropped.ts';
import { Mapping } from '../../../lib/index.ts';
import { EmulatedKernel, ERRNO, type KvmCalls, MAP, PROT, traced } from '../../../lib/raw.ts';
import { collected } from '../collect-garbage.ts';

const SIZE = 0x10_0000;
const emulated = (): KvmCalls => new EmulatedKernel({ arch: 'x86_64' });

/** New memory, a view of it with a byte in it, and another mapping that must not notice what happens to that. */
function lookAt(calls: KvmCalls, fd: number) {
  const map = () => calls.mmap(SIZE, PROT.READ | PROT.WRITE, fd < 0 ? 0x22 : MAP.SHARED, fd, 0, 0, 0);
  const [hva, neighbour] = [map(), map()];
  const view = new Uint8Array(calls.view(hva, SIZE) as ArrayBuffer);
  view[3] = 0x42;
  return { hva, neighbour, view };
}

describe.each([
  ['an emulated kernel', emulated],
  ['what an emulated kernel was wrapped in', () => traced(emulated(), () => {})],
])('%s', (_what, make) => {
  it.each([
    ['anonymous', () => -1],
    ['of a memfd', (calls: KvmCalls) => calls.memfdCreate('memory', SIZE, 0)],
  ])('leaves the views of memory that was dropped, and nothing at its address: %s', (_kind, fdOf) => {
    const calls = make();
    const { hva, neighbour, view } = lookAt(calls, fdOf(calls));
    expect(viewsOutlive(calls)).toBe(true);
    unmapDropped(calls, hva, SIZE);
    expect(view[3]).toBe(0x42);
    expect([calls.window(hva, SIZE), calls.readMemory(hva, new Uint8Array(1))]).toEqual([-ERRNO.EINVAL, -ERRNO.EFAULT]);
    expect(calls.window(neighbour, SIZE)).toBeInstanceOf(ArrayBuffer);
  });

  it('takes the views of memory that is unmapped', () => {
    const calls = make();
    const { hva, view } = lookAt(calls, -1);
    expect(calls.munmap(hva, SIZE)).toBe(0);
    expect(view.length).toBe(0);
  });
});

it('calls that nobody knows are asked for munmap alone, and a view of theirs keeps its mapping', () => {
  const kernel = emulated();
  const calls: KvmCalls = new Proxy(kernel, {
    get:
      (_, name) =>
      (...args: unknown[]) =>
        (Reflect.get(kernel, name) as (...args: unknown[]) => unknown).apply(kernel, args),
  });
  const { hva, view } = lookAt(calls, -1);
  expect(viewsOutlive(calls)).toBe(false);
  unmapDropped(calls, hva, SIZE);
  expect(view.length).toBe(0);
});

it('a kernel gets back what was dropped with what it was wrapped in', async () => {
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  const hva = (() =>
    Mapping.anonymous(
      traced(kernel, () => {}),
      SIZE,
    ).hva)();
  expect(await collected(() => kernel.window(hva, SIZE) === -ERRNO.EINVAL)).toBe(true);
});
