import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Clock } from './measure.ts';

type CFunction = (...args: readonly unknown[]) => number;

/** What of koffi is used. */
export interface Koffi {
  load(path: string | null): { func(prototype: string): CFunction };
}

/** What the benchmarks compare with: C compiled here, and koffi as a Node user would use it. */
export interface Comparators {
  /** ioctl(2) as koffi calls it, with a number or a structure. */
  readonly koffiIoctl: { readonly value: CFunction; readonly structure: CFunction };
  /** The functions of the C files; each throws when it returned less than 0. */
  readonly c: Readonly<Record<CName, (...args: readonly unknown[]) => void>>;
  readonly threadTime: Clock;
}

const PROTOTYPES = {
  checkExtension: 'int bench_check_extension(int fd, uint64_t cap, int64_t n)',
  toggleFlags: 'int bench_toggle_flags(int vm, uint32_t slot, uint64_t gpa, uint64_t size, uint64_t hva, int64_t n)',
  createDelete: 'int bench_create_delete(int vm, uint32_t slot, uint64_t gpa, uint64_t size, uint64_t hva, int64_t n)',
  getDirtyLog: 'int bench_get_dirty_log(int vm, uint32_t slot, void *bitmap, int64_t n)',
  readU64: 'int bench_read_u64(void *slots, uint32_t count, void *gpas, uint32_t gpa_count, int64_t n, void *sum)',
  gather:
    'int bench_gather(void *slots, uint32_t count, void *gpas, uint32_t gpa_count, uint32_t size, void *into, int64_t n)',
  memcpy: 'int bench_memcpy(void *to, void *from, uint64_t size, int64_t n)',
  dirtyPages: 'int bench_dirty_pages(void *words, uint64_t count, int64_t n, void *sum)',
  dirtyRuns: 'int bench_dirty_runs(void *words, uint64_t count, int64_t n, void *sum)',
  htabDecode: 'int bench_htab_decode(void *stream, uint64_t length, void *table, uint64_t entries, int64_t n)',
  htabEncode: 'int bench_htab_encode(void *table, uint64_t entries, void *stream, int64_t n, void *length)',
  htabEncodeNew: 'int bench_htab_encode_new(void *table, uint64_t entries, int64_t n, void *length)',
  hptTranslate:
    'int bench_hpt_translate(void *table, uint64_t groups, uint64_t vsid, void *eas, uint32_t count, int64_t n, void *sum)',
  hptEnter: 'int bench_hpt_enter(void *table, uint64_t groups, int64_t n)',
  s390xRead:
    'int bench_s390x_read(void *memory, uint64_t size, uint64_t asce, void *vas, uint32_t count, uint32_t bytes, void *into, int64_t n)',
  vhostOpen: 'int bench_vhost_open(const char *path)',
  vhostRead: 'int bench_vhost_read(uint32_t depth, int64_t n)',
  oneProcessor: 'int bench_one_processor(int stay)',
  doorbellStart: 'int bench_doorbell_start(int there, int back)',
  doorbell: 'int bench_doorbell(int there, int back, int64_t n)',
  doorbellEnd: 'int bench_doorbell_end()',
  bareIoctl: 'int bench_bare_ioctl(int64_t n)',
  runUntilHlt: 'int bench_run_until_hlt(int vcpu, void *run, uint64_t base, uint64_t size, void *accesses)',
} as const;

type CName = keyof typeof PROTOTYPES;

/** The package's own folder: this file may lie in test/bench or in out/bench. */
export function packageFolder(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder);
  return folder;
}

/** @returns a sentence when it can't be loaded */
export async function loadKoffi(): Promise<Koffi | string> {
  try {
    return ((await import('koffi')) as { default: Koffi }).default;
  } catch (error) {
    return `koffi, a development dependency, cannot be loaded: ${(error as Error).message}`;
  }
}

/**
 * Compiles the C files of this folder into one library and loads it into this process, where C has the same
 * descriptors, the same memory and the same threads beside it as we have.
 * @returns a sentence when there is no compiler, or no koffi to load the library with
 */
export async function loadComparators(): Promise<Comparators | string> {
  const koffi = await loadKoffi();
  if (typeof koffi === 'string') return koffi;
  const compiler = process.env.CC ?? 'gcc';
  const sources = join(packageFolder(), 'test', 'bench');
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-bench-'));
  try {
    const library = join(folder, 'comparators.so');
    const files = readdirSync(sources).filter((name) => name.endsWith('.c'));
    const options = ['-O2', '-Wall', '-shared', '-fPIC', '-o', library];
    execFileSync(compiler, [...options, ...files.map((name) => join(sources, name))], { stdio: 'pipe' });
    const loaded = koffi.load(library);
    const throwing = (name: string, prototype: string) => {
      const call = loaded.func(prototype);
      return (...args: readonly unknown[]): void => {
        if (call(...args) < 0) throw new Error(`${name} failed in C`);
      };
    };
    const c = Object.fromEntries(Object.entries(PROTOTYPES).map(([name, text]) => [name, throwing(name, text)]));
    const libc = koffi.load(null);
    return {
      koffiIoctl: {
        value: libc.func('int ioctl(int fd, unsigned long request, unsigned long argument)'),
        structure: libc.func('int ioctl(int fd, unsigned long request, void *argument)'),
      },
      c: c as Comparators['c'],
      threadTime: loaded.func('double bench_thread_time()'),
    };
  } catch (error) {
    return `The C comparators cannot be built: ${compiler} says ${(error as Error).message}`;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
