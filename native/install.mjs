// Sees that there is an addon: the prebuilt one of the package where it is of use here, or else one compiled here. As the
// package's install script it never fails: without the addon there is the emulated kernel.
//
//   node native/install.mjs              as described; where there is none in the end, say why, and exit with 0
//   node native/install.mjs --strict     compile; warnings are errors, and failure is failure
//   node native/install.mjs --sanitize   a second addon with AddressSanitizer and UndefinedBehaviorSanitizer, strictly
//   node native/install.mjs --sanitize-threads   a third one with ThreadSanitizer, strictly
//
// npm_config_build_from_source=true (npm install --build-from-source) compiles in any case.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { explainFailure } from './build-failure.mjs';
import { attempt, findNodeGyp, packageRoot, runNodeGyp } from './node-gyp.mjs';
import { addonOf, GLIBC, platformHere, TARGETS, whyNot } from './prebuilt/prebuilds.mjs';

const folders = { '--sanitize': 'native/sanitize', '--sanitize-threads': 'native/sanitize/threads' };
const sanitize = Object.keys(folders).find((option) => process.argv.includes(option));
const strict = sanitize !== undefined || process.argv.includes('--strict');
const buildRoot = sanitize === undefined ? packageRoot : join(packageRoot, folders[sanitize]);
const log = join(buildRoot, 'build', 'install.log');
const addon = join(buildRoot, 'build', 'Release', 'kvm_bridge.node');
const platform = platformHere();

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
  return `the prebuilt one (${platform.endsWith('-musl') ? 'for musl' : `for glibc ${GLIBC} and later`}) does not load here: ${error.replace(`${path}: `, '')}`;
}

/**
 * Keeps what node-gyp printed, since npm shows nothing of it: in the package, or where that cannot be written, elsewhere.
 * @param {string} output
 * @returns {string | undefined} where it is
 */
function keepLog(output) {
  const write = (path) => {
    writeFileSync(path, output);
    return path;
  };
  const inPackage = attempt(() => {
    mkdirSync(dirname(log), { recursive: true });
    return write(log);
  });
  return inPackage ?? attempt(() => write(join(mkdtempSync(join(tmpdir(), 'kvm-bridge-')), 'install.log')));
}

const arches = [...new Set(TARGETS.map((target) => target.platform.split('-')[1]))];
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

attempt(() => rmSync(log));
let output = '';
for (const step of [
  ['configure', `--warnings_are_errors=${strict ? 1 : 0}`],
  ['build', '-j', 'max'],
]) {
  const result = runNodeGyp(nodeGyp, buildRoot, step);
  output += result.output;
  if (result.status === 0) continue;
  if (strict) process.stderr.write(output);
  const { reason, mend } = explainFailure(output);
  const kept = keepLog(output);
  giveUp(reason, kept === undefined ? mend : `${mend}. What was printed is in ${kept}`);
}
if (strict && /warning:/.test(output)) {
  process.stderr.write(output);
  giveUp('the addon compiles only with warnings');
}
say(`built ${addon}`);
