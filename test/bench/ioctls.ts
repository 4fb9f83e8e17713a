import { CAP } from '../../lib/uapi/capabilities.ts';
import { MEM } from '../../lib/uapi/flags.ts';
import { requestNumber } from '../../lib/uapi/requests.ts';
import { type Bench, type Benchmark, openReal } from './benchmark.ts';
import { type Case, type Comparison, repeat } from './measure.ts';

const GPA = 0x1000_0000;
const PAGE = 4096;
const SLOT = 7;

const againstCAndKoffi = (goal = 1.25): readonly Comparison[] => [
  { of: 'typed', to: 'C', goal },
  { of: 'raw', to: 'C', goal },
  { of: 'typed', to: 'koffi', goal: 1 },
  { of: 'raw', to: 'koffi', goal: 1 },
];

export const checkExtension: Benchmark = {
  name: 'check-extension',
  needsKvm: true,
  *cases({ comparators: { c, koffiIoctl } }: Bench): Generator<Case> {
    using kvm = openReal();
    const { calls, fd } = kvm;
    const request = requestNumber('KVM_CHECK_EXTENSION', kvm.arch);
    yield {
      title: 'KVM_CHECK_EXTENSION, the cheapest ioctl of all',
      meter: 'cpu',
      per: 'call',
      contenders: [
        { name: 'typed', run: (n) => repeat(n, () => kvm.checkExtension('NR_MEMSLOTS')) },
        { name: 'raw', run: (n) => repeat(n, () => calls.checkExtension(fd, CAP.NR_MEMSLOTS)) },
        { name: 'koffi', run: (n) => repeat(n, () => koffiIoctl.value(fd, request, CAP.NR_MEMSLOTS)) },
        { name: 'C', run: (n) => c.checkExtension(fd, CAP.NR_MEMSLOTS, n) },
      ],
      comparisons: againstCAndKoffi(),
    };
  },
};

/** struct kvm_userspace_memory_region in a buffer that is used again and again: the fastest way with koffi. */
class RegionStructure {
  readonly bytes = new Uint8Array(32);
  readonly #view = new DataView(this.bytes.buffer);

  fill(slot: number, flags: number, gpa: number, size: number, hva: number): Uint8Array {
    const view = this.#view;
    view.setUint32(0, slot, true);
    view.setUint32(4, flags, true);
    this.#setU64(8, gpa);
    this.#setU64(16, size);
    this.#setU64(24, hva);
    return this.bytes;
  }

  #setU64(at: number, value: number): void {
    this.#view.setUint32(at, value >>> 0, true);
    this.#view.setUint32(at + 4, value / 2 ** 32, true);
  }
}

export const setUserMemoryRegion: Benchmark = {
  name: 'set-user-memory-region',
  needsKvm: true,
  *cases({ comparators: { c, koffiIoctl } }: Bench): Generator<Case> {
    using kvm = openReal();
    using vm = kvm.createVm();
    using ram = kvm.mapAnonymous(PAGE);
    const { calls, fd } = vm;
    const { hva } = ram;
    const request = requestNumber('KVM_SET_USER_MEMORY_REGION', kvm.arch);
    const structure = new RegionStructure();
    const place = { slot: SLOT, guestPhysAddr: GPA, memorySize: PAGE, userspaceAddr: hva };
    const logging = { ...place, flags: MEM.LOG_DIRTY_PAGES };
    const raw = (flags: number, size = PAGE) => calls.setUserMemoryRegion(fd, SLOT, flags, GPA, size, hva);
    const koffi = (flags: number, size = PAGE) =>
      koffiIoctl.structure(fd, request, structure.fill(SLOT, flags, GPA, size, hva));

    vm.setUserMemoryRegion(place);
    yield {
      title: 'KVM_SET_USER_MEMORY_REGION, LOG_DIRTY_PAGES on and off',
      meter: 'cpu',
      per: 'ioctl',
      times: 2,
      contenders: [
        {
          name: 'typed',
          run: (n) =>
            repeat(n, () => {
              vm.setUserMemoryRegion(logging);
              vm.setUserMemoryRegion(place);
            }),
        },
        { name: 'raw', run: (n) => repeat(n, () => raw(MEM.LOG_DIRTY_PAGES) + raw(0)) },
        { name: 'koffi', run: (n) => repeat(n, () => koffi(MEM.LOG_DIRTY_PAGES) + koffi(0)) },
        { name: 'C', run: (n) => c.toggleFlags(fd, SLOT, GPA, PAGE, hva, n) },
      ],
      comparisons: againstCAndKoffi(),
    };
    vm.setUserMemoryRegion({ ...place, memorySize: 0 });

    yield {
      title: 'slot create and delete (typed: addRam and remove of a region)',
      meter: 'cpu',
      per: 'ioctl',
      times: 2,
      contenders: [
        { name: 'typed', run: (n) => repeat(n, () => vm.memory.addRam(GPA, ram).remove()) },
        { name: 'raw', run: (n) => repeat(n, () => raw(0) + raw(0, 0)) },
        { name: 'koffi', run: (n) => repeat(n, () => koffi(0) + koffi(0, 0)) },
        { name: 'C', run: (n) => c.createDelete(fd, SLOT, GPA, PAGE, hva, n) },
      ],
      comparisons: againstCAndKoffi(),
    };
  },
};

export const getDirtyLog: Benchmark = {
  name: 'get-dirty-log',
  needsKvm: true,
  *cases({ comparators: { c, koffiIoctl }, sizes }: Bench): Generator<Case> {
    using kvm = openReal();
    const request = requestNumber('KVM_GET_DIRTY_LOG', kvm.arch);
    for (const mebibytes of sizes([16, 128, 4096])) {
      using vm = kvm.createVm();
      const { calls, fd } = vm;
      using ram = kvm.mapAnonymous(mebibytes * 2 ** 20);
      vm.memory.addRam(GPA, ram);
      using dirty = vm.dirtyPages.start();
      const { word } = [...vm.memslots][0]!;
      const bitmap = new Uint8Array(ram.size / PAGE / 8);
      // struct kvm_dirty_log points to the bitmap, which an address is needed for: that of a mapping does.
      using memory = kvm.mapAnonymous(bitmap.length);
      const log = new BigUint64Array([BigInt(word), BigInt(memory.hva)]);
      yield {
        title: `KVM_GET_DIRTY_LOG of ${mebibytes} MiB, ${bitmap.length / 1024} KiB of bitmap`,
        meter: 'cpu',
        per: 'call',
        contenders: [
          { name: 'typed', run: (n) => repeat(n, () => dirty.collect()) },
          { name: 'raw', run: (n) => repeat(n, () => calls.getDirtyLog(fd, word, bitmap)) },
          { name: 'koffi', run: (n) => repeat(n, () => koffiIoctl.structure(fd, request, log)) },
          { name: 'C', run: (n) => c.getDirtyLog(fd, word, bitmap, n) },
        ],
        comparisons: againstCAndKoffi(1.1),
      };
    }
  },
};
