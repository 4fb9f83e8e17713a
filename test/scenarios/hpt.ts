import { HTAB, MEM } from '../../lib/uapi/flags.ts';
import { BOLTED, chunk, type Entry, HptVm, MEMORY_SIZE, PLAIN, SECONDARY, tableAllocated, vrma } from './hpt-vm.ts';
import type { Scenario, ScenarioHost } from './scenario.ts';

function scenario(name: string, run: (s: ScenarioHost) => void | Promise<void>): Scenario {
  return { name: `hpt/${name}`, arches: ['ppc64'], run };
}

/** The hashed page table of Book3S HV through its ioctls and its file descriptor. */
export const hptScenarios: readonly Scenario[] = [
  scenario('allocate', (s) => {
    const { vm, ppc } = new HptVm(s);
    for (const order of [1, 17, 18, 19, 20, 24, 47, 60, 0xffff_ffff, 18, 18]) ppc.allocateHtab(vm, order);
  }),
  scenario('smmu-info', (s) => {
    const { vm, ppc } = new HptVm(s);
    ppc.getSmmuInfo(vm, new Uint8Array(592));
  }),
  scenario('empty-streams', (s) => {
    for (const order of [18, 24]) {
      const hpt = new HptVm(s, order);
      const slots = 2 ** (order - 4);
      for (const start of [0, 0x1000, slots - 1, slots, 2 ** 32, 2 ** 53 - 1]) hpt.drain(hpt.reader(0, start));
      hpt.drain(hpt.reader(HTAB.BOLTED_ONLY));
    }
  }),
  scenario('descriptors', (s) => {
    const hpt = new HptVm(s, 18);
    for (const flags of [4, 7, 2n ** 63n]) hpt.ppc.getHtabFd(hpt.vm, flags, 0);
    const reader = hpt.reader();
    s.calls.write(reader, chunk(0, [BOLTED]));
    const writer = hpt.reader(HTAB.WRITE | HTAB.BOLTED_ONLY, 5);
    hpt.read(writer);
    s.calls.write(writer, chunk(0, [BOLTED]));
    s.calls.close(hpt.vm);
    hpt.drain(reader);
  }),
  scenario('passes', (s) => {
    const hpt = new HptVm(s, 18);
    const early = hpt.reader();
    hpt.drain(early);
    hpt.write(chunk(0, [BOLTED]));
    hpt.write(chunk(9, [PLAIN]));
    hpt.write(chunk(16, [SECONDARY]));
    for (let i = 0; i < 3; i++) hpt.read(early);
    const late = hpt.reader();
    const bolted = hpt.reader(HTAB.BOLTED_ONLY);
    hpt.drain(late);
    hpt.drain(bolted);
    for (const start of [9, 10]) hpt.drain(hpt.reader(0, start));
    const steps: readonly Uint8Array[][] = [
      [chunk(17, [PLAIN])],
      [chunk(9, [], 1)],
      [chunk(100, [], 10)],
      [chunk(0, [BOLTED])],
      [chunk(9, [PLAIN]), chunk(9, [], 1)],
      [chunk(32, [PLAIN, BOLTED, PLAIN, SECONDARY], 2)],
      [chunk(0, [], 40)],
    ];
    for (const chunks of steps) {
      for (const one of chunks) hpt.write(one);
      for (const fd of [late, late, bolted, early]) hpt.read(fd);
    }
  }),
  scenario('marks-without-readers', (s) => {
    const hpt = new HptVm(s, 18);
    const first = hpt.reader();
    hpt.drain(first);
    hpt.write(chunk(3, [PLAIN]));
    s.calls.close(first);
    hpt.write(chunk(3, [PLAIN]));
    hpt.write(chunk(4, [BOLTED]));
    const second = hpt.reader();
    hpt.drain(second);
    hpt.write(chunk(4, [BOLTED]));
    const third = hpt.reader();
    hpt.drain(third);
    hpt.drain(second);
  }),
  scenario('small-buffers', (s) => {
    const hpt = new HptVm(s, 18);
    hpt.write(chunk(0, [BOLTED]));
    hpt.write(chunk(9, [PLAIN, PLAIN, PLAIN]));
    for (let count = 0; count <= 80; count += 8) {
      const fd = hpt.reader();
      for (let i = 0; i < 3; i++) hpt.read(fd, count);
      s.calls.close(fd);
    }
    const fd = hpt.reader();
    for (const count of [25, 33, 40, 41, 1000]) hpt.read(fd, count);
    for (const slot of [20, 21, 40]) hpt.write(chunk(slot, [PLAIN]));
    for (const count of [24, 25, 25, 25, 25, 25]) hpt.read(fd, count);
  }),
  scenario('bad-writes', (s) => {
    const hpt = new HptVm(s, 18);
    const reader = hpt.reader();
    hpt.drain(reader);
    const invalid: Entry = [PLAIN[0] & ~1n, PLAIN[1]];
    const all = 2n ** 64n - 1n;
    const writes: readonly Uint8Array[] = [
      chunk(0x4000, [BOLTED]),
      chunk(0xffff_ffff, [BOLTED]),
      chunk(0x3fff, [BOLTED, BOLTED]),
      chunk(0x3fff, [], 2),
      chunk(0x3fff, [], 1),
      chunk(0x4000, []),
      chunk(5, []),
      chunk(50, [BOLTED]).subarray(0, 8),
      chunk(53, [BOLTED]).subarray(0, 7),
      Buffer.alloc(0),
      chunk(51, [BOLTED], 0, 2),
      Buffer.concat([chunk(53, []), Buffer.alloc(4)]),
      Buffer.concat([chunk(54, [], 3), chunk(0x5000, [], 1)]),
      chunk(56, [invalid]),
      chunk(56, [BOLTED, invalid]),
      chunk(57, [[0n, 0n]]),
      chunk(58, [[PLAIN[0], PLAIN[1] | 0x3000_0000_0000_0e00n]]),
      chunk(59, [[PLAIN[0], 0x1ff0_0000_0192n]]),
      chunk(60, [[PLAIN[0], BigInt(MEMORY_SIZE) | 0x192n]]),
      chunk(61, [[PLAIN[0], 0x0fff_ffff_ffff_f192n]]),
      chunk(62, [[all, all]]),
      chunk(62, [[all & ~4n, all]]),
      chunk(63, [[PLAIN[0], 0x2038n]]),
      chunk(63, [[PLAIN[0], 0x2028n]]),
      chunk(64, [[PLAIN[0], 0x10_0000_002an]]),
      chunk(65, [[PLAIN[0] | 0x60n, PLAIN[1]]]),
      chunk(66, [[PLAIN[0] | 0x8n, PLAIN[1]]]),
      chunk(71, [[PLAIN[0] | 4n, 0x2192n]]),
      chunk(72, [[PLAIN[0] | 4n, 0x400_0192n]]),
      chunk(73, [[0x8000_0001_2345_8001n, PLAIN[1]]]),
      chunk(74, [[PLAIN[0], 0xc000_0000_0000_0000n | PLAIN[1]]]),
    ];
    for (const bytes of writes) hpt.write(bytes);
    hpt.drain(reader);
    hpt.drain(hpt.reader());
  }),
  scenario('page-sizes', (s) => {
    const hpt = new HptVm(s, 18);
    // A page that the host never touched, in the third 16 MiB of the slot.
    hpt.write(chunk(67, [[PLAIN[0] | 4n, 0x200_0192n]]));
    hpt.write(chunk(68, [[PLAIN[0] | 4n, 0x203_8192n]]));
    s.calls.setUserMemoryRegion(hpt.vm, 1, 0, 0x1000_0000 + s.unit, 0x100_0000, hpt.hva);
    hpt.write(chunk(69, [[PLAIN[0] | 4n, 0x1100_0192n]]));
    hpt.drain(hpt.reader(0, 60));
  }),
  scenario('two-chunks-in-one-write', (s) => {
    const hpt = new HptVm(s, 18);
    hpt.write(chunk(5, [PLAIN]));
    const reader = hpt.reader();
    hpt.drain(reader);
    // The kernel takes the entry's doublewords for headers: {5, 0, 0x1100} and {0, 0, 0x1020}.
    const tricky: Entry = [0x0500_0000_0000_0011n, 0x2010n];
    hpt.write(chunk(8000, [tricky]), chunk(700, [tricky]));
    hpt.drain(reader);
    hpt.write(chunk(8, [], 3), chunk(20, [], 4));
    hpt.write(chunk(8, [], 3), chunk(700, [PLAIN]));
    hpt.drain(reader);
  }),
  scenario('memslot-life', (s) => {
    const hpt = new HptVm(s, 18, MEM.LOG_DIRTY_PAGES);
    const reader = hpt.reader();
    hpt.drain(reader);
    hpt.write(chunk(50, [[PLAIN[0] | 0x10n, 0x2192n]]));
    hpt.drain(reader);
    s.dirtyLog(hpt.vm, 0, MEMORY_SIZE / s.calls.pageSize);
    hpt.slot(0);
    hpt.drain(reader);
    hpt.drain(hpt.reader());
    hpt.write(chunk(51, [[PLAIN[0], 0x2012n]]));
    hpt.slot(MEMORY_SIZE);
    hpt.drain(reader);
    hpt.write(chunk(50, [], 2));
    hpt.drain(reader);
  }),
  scenario('allocate-again', (s) => {
    const hpt = new HptVm(s, 18);
    const reader = hpt.reader();
    hpt.drain(reader);
    hpt.write(chunk(3, [PLAIN, BOLTED]));
    hpt.ppc.allocateHtab(hpt.vm, 18);
    hpt.drain(reader);
    hpt.drain(hpt.reader());
    hpt.write(chunk(3, [PLAIN]));
    hpt.ppc.allocateHtab(hpt.vm, 19);
    hpt.drain(reader);
    hpt.drain(hpt.reader());
    hpt.ppc.allocateHtab(hpt.vm, 17);
    hpt.drain(reader);
    hpt.write(chunk(3, [PLAIN]));
    hpt.ppc.allocateHtab(hpt.vm, 18);
    hpt.write(chunk(3, [PLAIN]));
    hpt.drain(reader);
  }),
  scenario('radix-and-back', (s) => {
    const hpt = new HptVm(s);
    const { vm, ppc } = hpt;
    const GR = 1n << 63n;
    hpt.drain(hpt.reader());
    hpt.write(chunk(0, [PLAIN]));
    for (const [flags, table] of [
      [8, 0n],
      [1, 0n],
      [0, GR],
      [3, GR | 25n],
    ] as const) {
      ppc.configureV3Mmu(vm, flags, table);
    }
    ppc.allocateHtab(vm, 18);
    hpt.write(chunk(0, [PLAIN]));
    const reader = hpt.reader();
    hpt.drain(reader);
    ppc.configureV3Mmu(vm, 0, 0n);
    hpt.drain(hpt.reader());
    ppc.configureV3Mmu(vm, 3, GR | 12n);
    hpt.drain(reader);
    hpt.write(chunk(0, [PLAIN]));
    ppc.resizeHptPrepare(vm, 0, 19);
    ppc.configureV3Mmu(vm, 0, 0n);
    hpt.drain(reader);
    hpt.write(chunk(0, [PLAIN]));
    ppc.allocateHtab(vm, 18);
    hpt.write(chunk(0, [PLAIN]));
    hpt.drain(reader);
  }),
  scenario('resize-refused', (s) => {
    const hpt = new HptVm(s, 18);
    const { vm, ppc } = hpt;
    for (const [flags, shift] of [
      [1, 20],
      [0, 17],
      [0, 47],
      [0, 0],
    ] as const) {
      ppc.resizeHptPrepare(vm, flags, shift);
    }
    hpt.write(chunk(vrma(18, 0x1000n, 0)[0], [vrma(18, 0x1000n, 0)[1]]));
    for (const [flags, shift] of [
      [1, 20],
      [0, 17],
      [0, 47],
      [0, 0],
      [0, 20],
    ] as const) {
      ppc.resizeHptCommit(vm, flags, shift);
    }
    ppc.resizeHptPrepare(vm, 0, 20);
    ppc.resizeHptPrepare(vm, 0, 0);
    ppc.resizeHptCommit(vm, 0, 20);
  }),
  scenario('resize', async (s) => {
    const hpt = new HptVm(s, 18, MEM.LOG_DIRTY_PAGES);
    const { vm, ppc } = hpt;
    for (const ea of [0x1000n, 0x2000n, 0x123_4000n]) {
      const [slot, entry] = vrma(18, ea, 2);
      hpt.write(chunk(slot, [entry]));
    }
    // One that isn't bolted, one that is but stands where no hash leads, and MMIO.
    hpt.write(chunk(9, [PLAIN]));
    hpt.write(chunk(17, [BOLTED]));
    hpt.write(chunk(27, [[SECONDARY[0] | 0x10n, SECONDARY[1]]]));
    hpt.write(chunk(37, [[PLAIN[0] | 0x10n, 0x1ff0_0000_0192n]]));
    const reader = hpt.reader();
    hpt.drain(reader);
    for (const order of [21, 19, 18]) {
      ppc.resizeHptPrepare(vm, 0, order);
      await tableAllocated(s);
      ppc.resizeHptPrepare(vm, 0, order);
      ppc.resizeHptCommit(vm, 0, order);
      hpt.drain(reader);
      hpt.drain(hpt.reader());
      ppc.resizeHptCommit(vm, 0, order);
    }
  }),
  scenario('resize-collision', async (s) => {
    const hpt = new HptVm(s, 22);
    const { vm, ppc } = hpt;
    // Eight MiB apart: the same group in a table of order 18.
    for (const ea of [0x1000n, 0x80_1000n]) {
      const [slot, entry] = vrma(22, ea, 2);
      hpt.write(chunk(slot, [entry]));
    }
    ppc.resizeHptPrepare(vm, 0, 18);
    await tableAllocated(s);
    ppc.resizeHptPrepare(vm, 0, 18);
    ppc.resizeHptCommit(vm, 0, 18);
    hpt.drain(hpt.reader());
  }),
];
