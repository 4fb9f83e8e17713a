// Runs a command with the sanitized addon, which is built first:
//
//   node native/sanitize/run.mjs npx vitest run test/unit/native
//   node native/sanitize/run.mjs --leaks node some-program.mjs      every leak that begins in the addon is an error
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = dirname(fileURLToPath(import.meta.url));
const leaks = process.argv[2] === '--leaks';
const [program, ...args] = process.argv.slice(leaks ? 3 : 2);
if (program === undefined) throw new Error('run.mjs needs a command');

const built = spawnSync(process.execPath, [join(folder, '..', 'install.mjs'), '--sanitize'], { stdio: 'inherit' });
if (built.status !== 0) process.exit(1);

const library = (name) => spawnSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' }).stdout.trim();
const { status, signal, stderr } = spawnSync(program, args, {
  stdio: ['inherit', 'inherit', leaks ? 'pipe' : 'inherit'],
  encoding: 'utf8',
  env: {
    ...process.env,
    // Node itself isn't sanitized, so that the runtime must come before it.
    LD_PRELOAD: `${library('libasan.so')}:${library('libubsan.so')}`,
    ASAN_OPTIONS: `detect_leaks=${leaks ? 1 : 0}:handle_segv=1:abort_on_error=1:exitcode=99`,
    UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
    KVM_BRIDGE_ADDON: join(folder, 'build', 'Release', 'kvm_bridge.node'),
  },
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
