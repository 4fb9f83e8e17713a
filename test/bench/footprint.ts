import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Bench, Benchmark } from './benchmark.ts';
import type { Case, Contender } from './measure.ts';

/** What a Node of its own prints. */
const node = (args: readonly string[]): string => execFileSync(process.execPath, args, { encoding: 'utf8' });

/** Processor time, in nanoseconds, of a process that imports a module, or none. */
function importing(name: string, specifier?: string): Contender {
  const load = specifier === undefined ? '' : `await import(${JSON.stringify(specifier)});`;
  const text = `${load} const { user, system } = process.cpuUsage(); console.log(1000 * (user + system));`;
  return { name, run: (n) => n * Number(node(['--input-type=module', '--eval', text])) };
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

const SLOT_BYTES = fileURLToPath(new URL('slot-bytes.js', import.meta.url));
const KVM_USERSPACE_MEMORY_REGION_BYTES = 32;

export const slotMemory: Benchmark = {
  name: 'slot-memory',
  needsKvm: false,
  *cases({ sizes }: Bench): Generator<Case> {
    for (const count of sizes([32764])) {
      yield {
        title: `JavaScript memory of a slot (region, mapping's pin, books), of ${count}`,
        meter: 'result',
        unit: 'bytes',
        per: 'slot',
        contenders: [
          { name: 'typed', run: (n) => n * Number(node(['--expose-gc', SLOT_BYTES, String(count)])) },
          { name: 'struct kvm_userspace_memory_region', run: (n) => n * KVM_USERSPACE_MEMORY_REGION_BYTES },
        ],
        comparisons: [{ of: 'typed', to: 'struct kvm_userspace_memory_region' }],
      };
    }
  },
};
