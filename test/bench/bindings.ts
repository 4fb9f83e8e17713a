import { Mapping } from '../../lib/memory/mapping.ts';
import { AddressSpace } from '../../lib/sharing/address-space.ts';
import { Binding } from '../../lib/sharing/binding.ts';
import { Descriptor } from '../../lib/sharing/descriptor.ts';
import { AttachedSpace } from '../../lib/sharing/table/attached-space.ts';
import { type Bench, type Benchmark, nativeCalls, randomU32, requireEqual } from './benchmark.ts';
import type { Case } from './measure.ts';

const PAGE = 4096;
const MIB = 2 ** 20;
const REGIONS = 64;
/** Addresses that are used, over and over again. */
const ADDRESSES = 0x1000;
const PIECE = 64;

interface Bound extends Disposable {
  readonly space: AddressSpace;
  readonly local: Binding;
  /** Through the table, as in another process. */
  readonly attached: Binding;
  readonly gpas: Float64Array;
}

/** A shared space of regions of a MiB in one memfd, with a binding of either kind. */
function bind(): Bound {
  const calls = nativeCalls();
  const space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
  const ram = Mapping.memfd(calls, REGIONS * MIB);
  for (let i = 0; i < REGIONS; i++) space.addRam(2 * i * MIB, ram, { offset: i * MIB, size: MIB });
  space.share({ calls });
  const local = space.bind({ name: 'local' });
  const descriptors = space.descriptors.map((fd) => Descriptor.duplicate(calls, fd));
  const [table, ...memories] = descriptors as [Descriptor, ...Descriptor[]];
  const attached = new AttachedSpace(calls, table, memories, { name: 'attached' }, Binding).binding;
  const random = randomU32();
  const gpas = Float64Array.from(
    { length: ADDRESSES },
    () => (random() % REGIONS) * 2 * MIB + (random() % (MIB / PIECE)) * PIECE,
  );
  for (const gpa of gpas) space.writeU32(gpa, random());
  const close = (): void => {
    attached.release();
    local.release();
    space.close();
    ram.close();
  };
  return { space, local, attached, gpas, [Symbol.dispose]: close };
}

/** Sums what is at the addresses. */
function readsOf(gpas: Float64Array, read: (gpa: number) => number): (n: number) => number {
  return (n) => {
    let sum = 0;
    for (let i = 0; i < n; i++) sum = (sum + read(gpas[i % ADDRESSES]!)) | 0;
    return sum;
  };
}

export const bindingReads: Benchmark = {
  name: 'binding-reads',
  needsKvm: false,
  *cases(): Generator<Case> {
    using bound = bind();
    const { local, attached, gpas } = bound;
    const remembered = readsOf(gpas, (gpa) => local.readU32(gpa));
    const remembered2 = readsOf(gpas, (gpa) => attached.readU32(gpa));
    const lookedUp = readsOf(gpas, (gpa) => {
      const { region, offset } = local.translate(gpa)!;
      return region.mapping.window(0)!.view.getUint32(offset, true);
    });
    requireEqual(remembered(ADDRESSES), lookedUp(ADDRESSES), 'the sum of what was read');
    requireEqual(remembered2(ADDRESSES), lookedUp(ADDRESSES), 'the sum of what was read through the table');
    yield {
      title: `random reads through a binding over ${REGIONS} regions`,
      meter: 'cpu',
      per: 'read',
      contenders: [
        { name: 'readU32', run: remembered },
        { name: 'readU32 through the table', run: remembered2 },
        { name: 'translate each time', run: lookedUp },
      ],
      comparisons: [
        { of: 'readU32', to: 'translate each time', goal: 1 },
        { of: 'readU32 through the table', to: 'translate each time', goal: 1 },
      ],
    };
  },
};

export const bindingCopies: Benchmark = {
  name: 'binding-copies',
  needsKvm: false,
  *cases({ comparators: { c } }: Bench): Generator<Case> {
    using bound = bind();
    const { space, local, attached, gpas } = bound;
    const bytes = new Uint8Array(PIECE);
    const guest = space.slice(0, PIECE);
    const loop = (use: (gpa: number) => void) => (n: number) => {
      for (let i = 0; i < n; i++) use(gpas[i % ADDRESSES]!);
    };
    yield {
      title: `copies of ${PIECE} bytes through a binding over ${REGIONS} regions`,
      meter: 'cpu',
      per: 'copy',
      contenders: [
        { name: 'copyFrom', run: loop((gpa) => local.copyFrom(gpa, bytes)) },
        { name: 'copyTo', run: loop((gpa) => local.copyTo(gpa, bytes)) },
        { name: 'copyFrom through the table', run: loop((gpa) => attached.copyFrom(gpa, bytes)) },
        { name: 'copyTo through the table', run: loop((gpa) => attached.copyTo(gpa, bytes)) },
        { name: 'memcpy', run: (n) => c.memcpy(bytes, guest, PIECE, n) },
      ],
      comparisons: [
        { of: 'copyFrom', to: 'memcpy' },
        { of: 'copyTo', to: 'memcpy' },
        { of: 'copyTo through the table', to: 'memcpy' },
      ],
    };
  },
};
