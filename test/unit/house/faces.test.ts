import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { importsIn } from './imports.ts';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

/** What the package exports. */
const FACES = [
  'lib/index.ts',
  'lib/raw.ts',
  'lib/arch/s390x/model/index.ts',
  'lib/arch/ppc64/model/index.ts',
  'lib/vhost-user/index.ts',
];

/** What the tests of a folder may import beside that, and why. */
const INNER: Readonly<Record<string, readonly string[]>> = {
  // What another thread writes into memory that is a kernel's.
  handles: ['lib/handles/kvm-run.ts', 'lib/memory/coalesced-mmio.ts', 'lib/memory/dirty-ring.ts'],
  // Rings of a host of the other byte order, parts of bitmaps, addresses at the ends of what doubles hold, sets and tables against plain searches.
  memory: [
    'lib/memory/address-loops.ts',
    'lib/memory/bitmap-loops.ts',
    'lib/memory/coalesced-mmio.ts',
    'lib/memory/dirty-bitmap.ts',
    'lib/memory/dirty-ring.ts',
    'lib/memory/gpa.ts',
    'lib/memory/page-set.ts',
    'lib/memory/slot-aliases.ts',
    'lib/memory/undo.ts',
    'lib/memory/values.ts',
    'lib/memory/written-pages.ts',
  ],
  'arch/s390x/handles': [],
  'arch/ppc64/handles': [],
  native: [],
  // A table that lies is written by hand, and C has its layout once more.
  sharing: [
    'lib/sharing/table/layout.ts',
    // The binding that a vCPU's thread has, on machines without a KVM.
    'lib/sharing/address-space.ts',
    'lib/sharing/guest-binding.ts',
    // What comes between two steps of an owner in another process.
    'lib/sharing/table/given-memory.ts',
  ],
  // Peers that break the protocol are written by hand; message.test.ts is the codec's.
  'vhost-user': [
    'lib/vhost-user/channel.ts',
    'lib/vhost-user/message.ts',
    'lib/vhost-user/protocol.ts',
    'lib/vhost-user/virtqueue/layout.ts',
    // What happens between two microtasks no message can bring about.
    'lib/sharing/descriptor.ts',
    'lib/vhost-user/back-end/served-queue.ts',
    'lib/vhost-user/memory-table.ts',
  ],
  // Its face are commands, and they are given a terminal, a host, a session or a trace here.
  cli: [
    'lib/cli/',
    'lib/calls/trace-recorder.ts',
    'lib/calls/format.ts',
    'lib/backends/emulation.ts',
    'lib/base/u64.ts',
  ],
};

it.each(Object.entries(INNER))('tests of %s see what users see', (room, inner) => {
  const imports = importsIn(ROOT, `test/unit/${room}`);
  expect(imports.size).toBeGreaterThan(0);
  const mayImport = (to: string) =>
    !to.startsWith('lib/') ||
    [...FACES, ...inner].some((face) => to === face || (face.endsWith('/') && to.startsWith(face)));
  const hidden = [...imports].flatMap(([file, targets]) =>
    targets.filter((to) => !mayImport(to)).map((to) => `${file} imports ${to}`),
  );
  expect(hidden).toEqual([]);
});
