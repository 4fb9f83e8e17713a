// Sees that there is an addon: the prebuilt one of the package where it is of use here, or else one compiled here. As the
// package's install script it never fails: without the addon there is the emulated kernel.
//
//   node native/install.mjs              as described; where there is none in the end, say why, and exit with 0
//   node native/install.mjs --strict     compile; warnings are errors, and failure is failure
//   node native/install.mjs --sanitize   a second addon with AddressSanitizer and UndefinedBehaviorSanitizer, strictly
//
// npm_config_build_from_source=true (npm install --build-from-source) compiles in any case.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { findNodeGyp, packageRoot, runNodeGyp } from './node-gyp.mjs';
import { addonOf, GLIBC, whyNot } from './prebuilt/prebuilds.mjs';

const sanitize = process.argv.includes('--sanitize');
const strict = sanitize || process.argv.includes('--strict');
const buildRoot = sanitize ? join(packageRoot, 'native', 'sanitize') : packageRoot;
const addon = join(buildRoot, 'build', 'Release', 'kvm_bridge.node');
const platform = `${process.platform}-${process.arch}`;

const say = (text) => console.log(`kvm-bridge: ${text}`);

/**
 * @param {string} reason why there is no addon
 * @param {string} [mend] what to do about it
 */
function giveUp(reason, mend) {
  const remedy = mend === undefined ? '' : `; ${mend}`;
  say(`only the emulated kernel is available, because ${reason}${remedy}.`);
  process.exit(strict ? 1 : 0);
}

/** Why the addon is compiled here, or undefined where the prebuilt one will do. */
function whyCompile() {
  if (strict) return 'that was asked for';
  const { npm_config_build_from_source: fromSource } = process.env;
  if (fromSource === 'true' || fromSource === 'kvm-bridge') return 'that was asked for (build_from_source)';
  // It would be found before the prebuilt one.
  if (existsSync(join(packageRoot, 'build'))) return 'there is a build/ to bring up to date';
  const flaw = whyNot(packageRoot, platform);
  if (flaw !== undefined) return `there is no prebuilt one to use: ${flaw}`;
  const path = addonOf(packageRoot, platform);
  const { status, stderr } = spawnSync(process.execPath, ['-e', 'require(process.argv[1])', path], {
    encoding: 'utf8',
  });
  if (status === 0) return undefined;
  const error = stderr.split('\n').find((line) => /Error/.test(line)) ?? stderr.trim();
  return `the prebuilt one (for glibc ${GLIBC} and later) does not load here: ${error.replace(`${path}: `, '')}`;
}

/** @param {string} output what node-gyp printed */
function explain(output) {
  if (/ERR! find Python/.test(output)) return 'Python 3, which node-gyp needs, was not found';
  if (/not found: make|make: not found|spawn make ENOENT/i.test(output)) return '`make` was not found';
  if (
    /[gc]\+\+: (not found|No such file)|command not found|No such file or directory: '[^']*(cc|\+\+)'/i.test(output)
  ) {
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

const why = whyCompile();
if (why === undefined) {
  say(`the prebuilt addon for ${platform} is used; it was made from the sources in native/, and loads.`);
  process.exit(0);
}

const nodeGyp = findNodeGyp();
if (nodeGyp === undefined) giveUp('node-gyp was not found', 'run this through npm: `npm rebuild kvm-bridge`');
if (!strict) say(`compiling the addon with node-gyp (half a minute), since ${why}.`);

let status = 0;
let output = '';
for (const step of [
  ['configure', `--warnings_are_errors=${strict ? 1 : 0}`],
  ['build', '-j', 'max'],
]) {
  const result = runNodeGyp(nodeGyp, buildRoot, step);
  status = result.status;
  output += result.output;
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
say(`built ${addon}`);
