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

/** Bytes of memory that one slot costs in JavaScript, in a VM that has so many of them. */
const SLOT_BYTES = `
  import { Kvm } from ${JSON.stringify(new URL('../../lib/index.js', import.meta.url).href)};
  const kvm = Kvm.open({ backend: 'native' });
  const ram = kvm.mapAnonymous(4096);
  const used = () => {
    gc();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  const fill = (vm, count) => {
    for (let i = 0; i < count; i++) vm.memory.addRam(i * 8192, ram);
    vm.memory.readU32(0);
  };
  fill(kvm.createVm(), 10);
  const vm = kvm.createVm();
  const before = used();
  fill(vm, COUNT);
  console.log((used() - before) / COUNT);
  vm.close();
`;

const KVM_USERSPACE_MEMORY_REGION_BYTES = 32;

export const slotMemory: Benchmark = {
  name: 'slot-memory',
  needsKvm: true,
  *cases({ sizes }: Bench): Generator<Case> {
    for (const count of sizes([1000, 32764])) {
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
