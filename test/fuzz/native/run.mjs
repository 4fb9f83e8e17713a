// Coverage-guided fuzzing of the addon's C++ (libFuzzer, with AddressSanitizer and UndefinedBehaviorSanitizer):
//
//   npm run fuzz:native                  half a minute each, beginning with the corpus
//   npm run fuzz:native -- 600           so many seconds each
//   npm run fuzz:native -- 600 --keep    and what reached new code becomes part of the corpus
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const native = join(here, '..', '..', '..', 'native');
const headers = join(dirname(dirname(process.execPath)), 'include', 'node');
const seconds = Number(process.argv[2] ?? 30);
const keep = process.argv.includes('--keep');

const TARGETS = {
  codec: ['codec.cc', join(native, 'htab.cc'), join(native, 'arguments.cc')],
  arguments: ['arguments.cc', join(native, 'arguments.cc')],
};
const FLAGS = [
  '-std=c++17',
  '-g',
  '-O1',
  '-Wall',
  '-Wextra',
  '-Werror',
  '-DNAPI_VERSION=8',
  '-fsanitize=fuzzer,address,undefined,float-cast-overflow',
  '-fno-sanitize-recover=all',
  '-fno-omit-frame-pointer',
];

function run(program, args) {
  const { status, error } = spawnSync(program, args, { stdio: 'inherit', cwd: here });
  if (error !== undefined) throw new Error(`${program}: ${error.message} (Debian: apt install clang libclang-rt-dev)`);
  if (status !== 0) process.exit(1);
}

if (!Number.isInteger(seconds) || seconds < 1) throw new Error('how many seconds?');
if (!existsSync(join(headers, 'node_api.h'))) throw new Error(`Node's headers are not in ${headers}`);
const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-fuzz-'));
try {
  for (const [name, sources] of Object.entries(TARGETS)) {
    const program = join(folder, name);
    const found = join(folder, `${name}-found`);
    const corpus = join(here, 'corpus', name);
    mkdirSync(found);
    mkdirSync(corpus, { recursive: true });
    run('clang++', [...FLAGS, `-I${headers}`, `-I${native}`, '-o', program, ...sources, 'fake_node_api.cc']);
    console.log(`\n${name}: ${seconds} s`);
    const limits = ['-max_len=2048', '-timeout=10', '-rss_limit_mb=1024', `-artifact_prefix=${here}/${name}-`];
    run(program, [`-max_total_time=${seconds}`, '-print_final_stats=1', '-verbosity=1', ...limits, found, corpus]);
    // One input for each branch is enough to begin with; the rest is found again in seconds.
    if (keep) run(program, ['-set_cover_merge=1', '-use_counters=0', ...limits, corpus, found]);
  }
} finally {
  rmSync(folder, { recursive: true });
}
