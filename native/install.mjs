// Builds the addon. As the package's install script it never fails: without the addon there is the emulated kernel.
//
//   node native/install.mjs              build; on failure say what is missing, in one sentence, and exit with 0
//   node native/install.mjs --strict     warnings are errors, and failure is failure
//   node native/install.mjs --sanitize   a second addon with AddressSanitizer and UndefinedBehaviorSanitizer, strictly
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const packageRoot = dirname(dirname(fileURLToPath(import.meta.url)));
const sanitize = process.argv.includes('--sanitize');
const strict = sanitize || process.argv.includes('--strict');
const buildRoot = sanitize ? join(packageRoot, 'native', 'sanitize') : packageRoot;
const addon = join(buildRoot, 'build', 'Release', 'kvm_bridge.node');

/**
 * @param {string} reason why there is no addon
 * @param {string} [mend] what to do about it
 */
function giveUp(reason, mend) {
  const remedy = mend === undefined ? '' : `; ${mend}`;
  console.log(`kvm-bridge: only the emulated kernel is available, because ${reason}${remedy}.`);
  process.exit(strict ? 1 : 0);
}

/** node-gyp's script: the one npm names, one on the PATH, or the one inside the npm beside this node. */
function findNodeGyp() {
  const onPath = (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, 'node-gyp'));
  const prefix = dirname(dirname(process.execPath));
  const besideNode = join(prefix, 'lib', 'node_modules', 'npm', 'node_modules', 'node-gyp', 'bin', 'node-gyp.js');
  return [process.env.npm_config_node_gyp, ...onPath, besideNode].find((path) => path && existsSync(path));
}

/** Where this node's own headers are installed; node-gyp would download them otherwise. */
function findHeaders() {
  const prefix = dirname(dirname(process.execPath));
  const header = join(prefix, 'include', 'node', 'node_version.h');
  if (process.env.npm_config_nodedir || !existsSync(header)) return undefined;
  const text = readFileSync(header, 'utf8');
  const version = ['MAJOR', 'MINOR', 'PATCH'].map((part) => text.match(`NODE_${part}_VERSION (\\d+)`)?.[1]).join('.');
  return version === process.versions.node ? prefix : undefined;
}

/** @param {string} output what node-gyp printed */
function explain(output) {
  if (/ERR! find Python/.test(output)) return 'Python 3, which node-gyp needs, was not found';
  if (/not found: make|make: not found|spawn make ENOENT/i.test(output)) return '`make` was not found';
  if (/g\+\+: (not found|No such file)|c\+\+: (not found|No such file)|command not found/i.test(output)) {
    return 'a C++ compiler was not found';
  }
  if (/linux\/kvm\.h: No such file/.test(output)) return 'the header linux/kvm.h was not found';
  if (/getaddrinfo|ECONNREFUSED|ETIMEDOUT|ENOTFOUND|response downloading/.test(output)) {
    return "the headers of this Node.js could not be downloaded (set npm_config_nodedir to Node's prefix)";
  }
  const error = output
    .split('\n')
    .find((line) => /\berror\b/i.test(line) && !/gyp ERR! (stack|build error)/.test(line));
  return `compiling failed (${error?.trim() ?? 'node-gyp said no more'})`;
}

const arches = ['x64', 's390x', 'ppc64', 'arm64'];
if (process.platform !== 'linux') giveUp(`KVM is a part of Linux, and this is ${process.platform}`);
if (!arches.includes(process.arch)) giveUp(`the addon knows ${arches.join(', ')}, and this is ${process.arch}`);

const nodeGyp = findNodeGyp();
if (nodeGyp === undefined) giveUp('node-gyp was not found', 'run this through npm: `npm rebuild kvm-bridge`');

const headers = findHeaders();
const where = [`--directory=${buildRoot}`, ...(headers === undefined ? [] : [`--nodedir=${headers}`])];

/** @param {string[]} args */
function runNodeGyp(...args) {
  // What is on the PATH may be a shell script.
  const command = nodeGyp.endsWith('.js') ? [process.execPath, nodeGyp] : [nodeGyp];
  const [program, ...before] = command;
  // binding.gyp asks `node` for a path.
  const PATH = [dirname(process.execPath), process.env.PATH].join(delimiter);
  return spawnSync(program, [...before, ...args, ...where], {
    cwd: packageRoot,
    encoding: 'utf8',
    env: { ...process.env, PATH },
  });
}

let status = 0;
let output = '';
for (const step of [['configure', `--warnings_are_errors=${strict ? 1 : 0}`], ['build']]) {
  const result = runNodeGyp(...step);
  status = result.status;
  output += `${result.stdout}${result.stderr}`;
  if (status !== 0) break;
}
if (status !== 0) {
  if (strict) process.stderr.write(output);
  const packages = 'Debian, Ubuntu: `apt-get install g++ make python3`; Fedora: `dnf install gcc-c++ make python3`';
  giveUp(explain(output), `install what is missing (${packages}) and run \`npm rebuild kvm-bridge\``);
}
if (strict && /warning:/.test(output)) {
  process.stderr.write(output);
  giveUp('the addon compiles only with warnings');
}
console.log(`kvm-bridge: built ${addon}`);
