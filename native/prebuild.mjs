// Makes the prebuilt addons of the package, with Debian's cross compilers: prebuilds/PLATFORM/kvm_bridge.node, and beside
// each what it was made from. Those that are up to date stay. `npm pack` and `npm publish` do this first.
//
//   node native/prebuild.mjs [PLATFORM…]    linux-x64, linux-x64-musl, linux-arm64, …: all by default
//
// linux-arm64-musl takes the headers of another architecture: dpkg --add-architecture arm64
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { findNodeGyp, packageRoot, runNodeGyp } from './node-gyp.mjs';
import { muslFlags, muslVersion } from './prebuilt/musl.mjs';
import { addonOf, describe, recordOf, TARGETS, whyNot } from './prebuilt/prebuilds.mjs';

/** A copy of what the addon is made from, so that several may be made at once. */
const work = mkdtempSync(join(tmpdir(), 'kvm-bridge-prebuild-'));
process.on('exit', () => rmSync(work, { recursive: true, force: true }));

function fail(message) {
  console.error(`prebuild: ${message}`);
  process.exit(1);
}

/** What the compiler, and musl, say of themselves, or undefined where one of them isn't there. */
function versionOf({ triplet, musl }) {
  const { status, stdout } = spawnSync(`${triplet}-g++`, ['--version'], { encoding: 'utf8' });
  if (status !== 0) return undefined;
  const [compiler] = stdout.split('\n', 1);
  if (musl === undefined) return compiler;
  const version = muslVersion(musl);
  return version && `${compiler}, ${version}`;
}

function make(nodeGyp, { platform, triplet, musl }, compiler) {
  const [, arch] = platform.split('-');
  const folder = join(work, 'native', 'prebuilt');
  const tools = { CC: `${triplet}-gcc`, CXX: `${triplet}-g++`, AR: `${triplet}-ar`, LINK: `${triplet}-g++` };
  if (musl !== undefined) tools.CXXFLAGS = muslFlags(tools.CXX, musl, folder, work);
  const args = ['rebuild', '-j', 'max', `--arch=${arch}`, '--warnings_are_errors=1', `--musl=${musl ? 1 : 0}`];
  const { status, output } = runNodeGyp(nodeGyp, folder, args, tools);
  if (status !== 0 || /warning:/.test(output)) {
    process.stderr.write(output);
    fail(`the addon for ${platform} does not compile, or only with warnings`);
  }
  const addon = addonOf(packageRoot, platform);
  mkdirSync(dirname(addon), { recursive: true });
  // Whoever has the old one loaded keeps it.
  copyFileSync(join(folder, 'build', 'Release', 'kvm_bridge.node'), `${addon}.${process.pid}`);
  renameSync(`${addon}.${process.pid}`, addon);
  const record = JSON.stringify(describe(packageRoot, addon, compiler), null, 2);
  writeFileSync(recordOf(packageRoot, platform), `${record}\n`);
  console.log(`${platform}: ${Math.round(statSync(addon).size / 1024)} KiB, by ${compiler}`);
}

const wanted = process.argv.slice(2);
const unknown = wanted.find((name) => !TARGETS.some(({ platform }) => platform === name));
if (unknown !== undefined) {
  fail(`there is no platform ${unknown}; there are ${TARGETS.map(({ platform }) => platform).join(', ')}`);
}
const targets = TARGETS.filter(({ platform }) => wanted.length === 0 || wanted.includes(platform));
const stale = targets.filter(({ platform }) => whyNot(packageRoot, platform) !== undefined);
const lacking = stale.filter((target) => versionOf(target) === undefined);
if (lacking.length > 0) {
  fail(`the compilers are not here: sudo apt-get install ${lacking.map(({ debian }) => debian).join(' ')}`);
}
const nodeGyp = findNodeGyp();
if (nodeGyp === undefined) fail('node-gyp was not found; run this through npm: `npm run build:prebuilds`');
cpSync(join(packageRoot, 'native'), join(work, 'native'), { recursive: true });
symlinkSync(join(packageRoot, 'node_modules'), join(work, 'node_modules'));
for (const target of stale) make(nodeGyp, target, versionOf(target));
if (stale.length === 0) console.log('The prebuilt addons are up to date.');
