import { expect, it } from 'vitest';

import { checked, EmulatedKernel, type KvmCalls, MADV, MAP, PROT } from '../../../lib/raw.ts';
import { UFFD_FEATURE, UFFDIO_REGISTER_MODE } from '../../../lib/uapi/userfaultfd.ts';
import { trackingKernel } from '../memory/uffd-host.ts';
import { numbers } from './numbers.ts';

const PAGES = 6;
const { WP } = UFFDIO_REGISTER_MODE;

/** What can be asked for without that anybody has to wait: pages of `served` are never touched, and `tracked` is only protected. */
function world(calls: KvmCalls) {
  const { pageSize } = calls;
  const uffd = calls.uffd!;
  const open = (features: number): number => {
    const fd = uffd.userfaultfd(1);
    expect(uffd.uffdApi(fd, BigUint64Array.of(BigInt(features), 0n))).toBe(0);
    return fd;
  };
  const map = (length = PAGES * pageSize): number =>
    calls.mmap(length, PROT.READ | PROT.WRITE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, 0, 0);
  const [waiting, tracking, another] = [
    UFFD_FEATURE.WP_UNPOPULATED,
    UFFD_FEATURE.WP_ASYNC,
    UFFD_FEATURE.WP_UNPOPULATED,
  ].map(open) as [number, number, number];
  const unagreed = uffd.userfaultfd(1);
  const eventfd = calls.eventfd(0);
  const [served, tracked] = [map(), map()];
  const close = (): void => {
    for (const hva of [served, tracked]) calls.munmap(hva, PAGES * pageSize);
  };
  return {
    calls,
    pageSize,
    uffd,
    fds: [waiting, another, tracking, unagreed, eventfd, 0x7fff_fff0],
    served,
    tracked,
    close,
  };
}

type World = ReturnType<typeof world>;

it.for([1, 2, 3, 4])(
  'registrations, protections, pages that are brought and what is told of them are as on the real kernel, seed %i',
  (seed, test) => {
    const real = trackingKernel(test);
    const { below, pick } = numbers(seed);
    const worlds = [
      world(real),
      world(checked(new EmulatedKernel({ arch: real.arch, release: real.release }))),
    ] as const;
    /** One that has agreed on the interface most of the time. */
    const anyFd = (): number => (below(8) === 0 ? 3 + below(3) : below(2));
    for (let i = 0; i < 300; i++) {
      const isTracked = below(2) === 1;
      const [page, pages] = [below(PAGES - 2), 1 + below(3)];
      const which = isTracked ? 2 : anyFd();
      const off = below(12) === 0 ? pick([8, 0x800]) : 0;
      const [start, length] = pick([
        [off, 0],
        [0, off],
      ] as const);
      /** One page, as the kernel's neighbours that were touched before they were registered alike may be two to it. */
      const onePage = (on: World): [number, number] => [range(on)[0], on.pageSize + length];
      const range = ({ served, tracked, pageSize }: World): [number, number] => [
        (isTracked ? tracked : served) + page * pageSize + start,
        pages * pageSize + length,
      ];
      const mode = below(5);
      const [flags, value] = [below(4), 1 + below(200)];
      const fdOf = ({ fds }: World): number => fds[which]!;
      const asked: readonly (readonly [string, (on: World) => unknown])[] = [
        ['register', (on) => on.uffd.uffdRegister(fdOf(on), ...range(on), isTracked ? WP : mode)],
        ['register all', (on) => on.uffd.uffdRegister(fdOf(on), on.served, PAGES * on.pageSize, isTracked ? WP : mode)],
        ['unregister', (on) => on.uffd.uffdUnregister(fdOf(on), ...range(on))],
        ['protect', (on) => on.uffd.uffdWriteprotect(fdOf(on), ...range(on), mode)],
        ['wake', (on) => on.uffd.uffdWake(fdOf(on), ...range(on))],
        ['zeros', (on) => on.uffd.uffdZeropage(fdOf(on), ...onePage(on), flags)],
        [
          'copy',
          (on) => {
            const [hva, size] = onePage(on);
            return on.uffd.uffdCopy(fdOf(on), hva, new Uint8Array(size).fill(value), mode);
          },
        ],
        [
          'scan',
          (on) => {
            const bitmap = new Uint8Array(1);
            return [on.uffd.pagemapScan(...range(on), flags, 0, 2, 0, bitmap), ...bitmap];
          },
        ],
        ['give back', (on) => on.calls.madvise(...range(on), MADV.DONTNEED)],
        ['store', (on) => on.calls.writeMemory(on.tracked + page * on.pageSize + 8, Uint8Array.of(value))],
      ];
      const [name, ask] = pick(asked);
      const [theirs, ours] = worlds.map(ask);
      const what = `${name} of ${isTracked ? 'tracked' : 'served'} ${page}+${pages} (+${start}, ${length}), descriptor ${which}, mode ${mode}, flags ${flags}`;
      expect(ours, `call ${i}: ${what}`).toEqual(theirs);
    }
    // Who is gone serves nobody, and all that was brought is there.
    const contents = worlds.map((on) => {
      for (const fd of on.fds) on.calls.close(fd);
      return [on.served, on.tracked].map((hva) => {
        const bytes = Buffer.alloc(PAGES * on.pageSize);
        expect(on.calls.readMemory(hva, bytes)).toBe(bytes.length);
        return bytes.toString('base64');
      });
    });
    expect(contents[1]).toEqual(contents[0]);
    for (const on of worlds) on.close();
  },
);
