import { execFileSync } from 'node:child_process';
import type { Bench, Benchmark } from './benchmark.ts';
import type { Case, Contender } from './measure.ts';

/** Runs a module's text in a Node of its own: what it prints. */
function inNode(options: readonly string[], text: string): string {
  return execFileSync(process.execPath, [...options, '--input-type=module', '--eval', text], { encoding: 'utf8' });
}

/** Processor time, in nanoseconds, of a process that imports a module, or none. */
function importing(name: string, specifier?: string): Contender {
  const load = specifier === undefined ? '' : `await import(${JSON.stringify(specifier)});`;
  const text = `${load} const { user, system } = process.cpuUsage(); console.log(1000 * (user + system));`;
  return { name, run: (n) => n * Number(inNode([], text)) };
}

export const importTime: Benchmark = {
  name: 'import-time',
  needsKvm: false,
  *cases(_bench: Bench): Generator<Case> {
    yield {
      title: 'processor time of a process that only imports the package',
      meter: 'result',
      per: 'process',
      contenders: [
        importing('kvm-bridge', import.meta.resolve('kvm-bridge')),
        importing('koffi', import.meta.resolve('koffi')),
        importing('nothing'),
      ],
      comparisons: [
        { of: 'kvm-bridge', to: 'nothing' },
        { of: 'kvm-bridge', to: 'koffi' },
      ],
    };
  },
};

const moduleOf = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href);

/** Bytes of memory that one slot costs in JavaScript, in a VM that has so many of them. What the kernel has is not in it: it says yes to all. */
const SLOT_BYTES = `
  import { Mapping } from ${moduleOf('../../lib/memory/mapping.js')};
  import { Memslots } from ${moduleOf('../../lib/memory/memslots.js')};
  import { SpaceSlots } from ${moduleOf('../../lib/memory/space-slots.js')};
  import { AddressSpace } from ${moduleOf('../../lib/sharing/address-space.js')};
  import { nativeCalls } from ${moduleOf('./benchmark.js')};
  const calls = Object.assign(Object.create(nativeCalls()), { setUserMemoryRegion: () => 0 });
  const ram = Mapping.anonymous(calls, 4096);
  const used = () => {
    gc();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  const makeSpace = () => {
    const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
    const slots = new SpaceSlots(new Memslots({ calls, fd: 0, closed: false, noun: 'VM' }), 0, () => {});
    space.addUser(slots);
    return { space, slots };
  };
  const fill = (space, count) => {
    for (let i = 0; i < count; i++) space.addRam(i * 8192, ram);
    space.readU32(0);
  };
  const first = makeSpace();
  fill(first.space, 10);
  const { space, slots } = makeSpace();
  const before = used();
  fill(space, COUNT);
  console.log((used() - before) / COUNT);
  if (slots.memslots.size !== COUNT) throw new Error(slots.memslots.size + ' slots');
`;

const KVM_USERSPACE_MEMORY_REGION_BYTES = 32;

export const slotMemory: Benchmark = {
  name: 'slot-memory',
  needsKvm: false,
  *cases({ sizes }: Bench): Generator<Case> {
    for (const count of sizes([32764])) {
      const text = SLOT_BYTES.replaceAll('COUNT', String(count));
      yield {
        title: `JavaScript memory of a slot (region, mapping's pin, books), of ${count}`,
        meter: 'result',
        unit: 'bytes',
        per: 'slot',
        contenders: [
          { name: 'typed', run: (n) => n * Number(inNode(['--expose-gc'], text)) },
          { name: 'struct kvm_userspace_memory_region', run: (n) => n * KVM_USERSPACE_MEMORY_REGION_BYTES },
        ],
        comparisons: [{ of: 'typed', to: 'struct kvm_userspace_memory_region' }],
      };
    }
  },
};
