import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Koffi, loadKoffi, packageFolder } from './comparators.ts';

/** Where Debian's librust-*-dev packages put crates: nothing is downloaded. */
const DISTRIBUTION_CRATES = '/usr/share/cargo/registry';

/** rust-vmm's vm-memory, compiled here: guest memory as VMMs in Rust read it. */
export interface VmMemory {
  /** Regions of `size` bytes at the addresses, each a mapping of its own; `content` is that of all, one after the other. */
  open(gpas: BigUint64Array, size: number, content: Uint8Array): VmMemoryRegions;
}

export interface VmMemoryRegions extends Disposable {
  /** `read_obj::<u64>` at `n` of the addresses, over and over again; the sum, modulo 2^64, goes into `sum`. */
  readU64(gpas: BigUint64Array, n: number, sum: BigUint64Array): void;
}

/** Compiles and loads it. @returns a sentence when something is missing */
export async function loadVmMemory(): Promise<VmMemory | string> {
  const koffi = await loadKoffi();
  if (typeof koffi === 'string') return koffi;
  if (!existsSync(join(DISTRIBUTION_CRATES, 'vm-memory-0.10.0'))) {
    return 'vm-memory is not here to compare with (apt-get install cargo librust-vm-memory-dev).';
  }
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-vm-memory-'));
  try {
    // Cargo writes a lock file beside the sources.
    cpSync(join(packageFolder(), 'test/bench/vm-memory'), folder, { recursive: true });
    const source = 'source.crates-io.replace-with="distribution"';
    const directory = `source.distribution.directory="${DISTRIBUTION_CRATES}"`;
    const env = {
      // A toolchain that rustup manages is found by way of its own folder, not of the one that is empty here.
      RUSTUP_HOME: join(homedir(), '.rustup'),
      ...process.env,
      CARGO_TARGET_DIR: join(folder, 'target'),
      CARGO_HOME: join(folder, 'home'),
    };
    const options = ['build', '--release', '--offline', '--quiet', '--config', source, '--config', directory];
    execFileSync('cargo', options, { cwd: folder, env, stdio: 'pipe' });
    return bind(koffi.load(join(folder, 'target/release/libvm_memory_comparator.so')));
  } catch (error) {
    return `vm-memory cannot be built to compare with: ${(error as Error).message}`;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function bind(library: ReturnType<Koffi['load']>): VmMemory {
  const make = library.func('void *vm_memory_new(void *gpas, uint32_t count, uint64_t size, void *content)');
  const read = library.func(
    'int vm_memory_read_u64(void *memory, void *gpas, uint32_t gpa_count, int64_t n, void *sum)',
  );
  const free = library.func('int vm_memory_free(void *memory)');
  return {
    open(regions, size, content) {
      const memory: unknown = make(regions, regions.length, size, content);
      if (memory === null) throw new Error('vm-memory could not make the regions');
      return {
        readU64(gpas, n, sum) {
          if (read(memory, gpas, gpas.length, n, sum) < 0) throw new Error('vm-memory could not read');
        },
        [Symbol.dispose]: () => void free(memory),
      };
    },
  };
}
