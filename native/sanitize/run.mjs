// Runs a command with the sanitized addon, which is built first:
//
//   node native/sanitize/run.mjs npx vitest run test/unit/native
//   node native/sanitize/run.mjs --leaks node some-program.mjs      every leak that begins in the addon is an error
//   node native/sanitize/run.mjs --threads npx vitest run test/unit/native/faults.test.ts
//       ThreadSanitizer, and only in the programs that the tests start (test/unit/native/real.ts): vitest would be too slow
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = dirname(fileURLToPath(import.meta.url));
const leaks = process.argv[2] === '--leaks';
const threads = process.argv[2] === '--threads';
const [program, ...args] = process.argv.slice(leaks || threads ? 3 : 2);
if (program === undefined) throw new Error('run.mjs needs a command');

const how = threads ? '--sanitize-threads' : '--sanitize';
const built = spawnSync(process.execPath, [join(folder, '..', 'install.mjs'), how], { stdio: 'inherit' });
if (built.status !== 0) process.exit(1);

const library = (name) => spawnSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' }).stdout.trim();
// Node itself isn't sanitized, so that the runtime must come before it.
const environment = threads
  ? {
      TSAN_RUNTIME: library('libtsan.so'),
      TSAN_ADDON: join(folder, 'threads', 'build', 'Release', 'kvm_bridge.node'),
      // What Node and V8 do among themselves cannot be seen. The addon's signal handler only ever interrupts KVM_RUN.
      TSAN_OPTIONS: 'ignore_noninstrumented_modules=1:report_signal_unsafe=0:halt_on_error=0:exitcode=66',
    }
  : {
      LD_PRELOAD: `${library('libasan.so')}:${library('libubsan.so')}`,
      ASAN_OPTIONS: `detect_leaks=${leaks ? 1 : 0}:handle_segv=1:abort_on_error=1:exitcode=99`,
      UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
      KVM_BRIDGE_ADDON: join(folder, 'build', 'Release', 'kvm_bridge.node'),
    };
const { status, signal, stderr } = spawnSync(program, args, {
  stdio: ['inherit', 'inherit', leaks ? 'pipe' : 'inherit'],
  encoding: 'utf8',
  env: { ...process.env, ...environment },
});

if (leaks) {
  // Node leaves a good deal of its own behind when it exits. Ours is what the addon's code itself allocated.
  const reports = stderr.split('\n\n').filter((block) => /leak of \d+ byte/.test(block));
  const ours = reports.filter((block) => /^ *#1 .*kvm_bridge\.node/m.test(block));
  for (const block of ours) console.error(`${block}\n`);
  console.log(`${ours.length} of ${reports.length} leaks were allocated by the addon`);
  if (reports.length === 0) {
    process.stderr.write(stderr);
    throw new Error('not even a leak of Node: the leak check did not run');
  }
  process.exit(ours.length === 0 ? 0 : 1);
}
if (signal !== null) console.error(`ended by ${signal}`);
process.exit(status ?? 1);
