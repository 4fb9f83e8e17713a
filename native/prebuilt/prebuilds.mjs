// The prebuilt addons of the package, and whether they are what they say.
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The oldest glibc that they load with; those for musl load with 1.1.20 and later, which has memfd_create. */
export const GLIBC = '2.28';

/** Node's name for a platform, and Debian's for the compiler, for musl, and for the packages that bring both. */
export const TARGETS = [
  { platform: 'linux-x64', triplet: 'x86_64-linux-gnu', debian: 'g++' },
  { platform: 'linux-x64-musl', triplet: 'x86_64-linux-gnu', musl: 'x86_64-linux-musl', debian: 'g++ musl-dev' },
  { platform: 'linux-arm64', triplet: 'aarch64-linux-gnu', debian: 'g++-aarch64-linux-gnu' },
  {
    platform: 'linux-arm64-musl',
    triplet: 'aarch64-linux-gnu',
    musl: 'aarch64-linux-musl',
    debian: 'g++-aarch64-linux-gnu musl-dev:arm64',
  },
  { platform: 'linux-s390x', triplet: 's390x-linux-gnu', debian: 'g++-s390x-linux-gnu' },
  { platform: 'linux-ppc64', triplet: 'powerpc64le-linux-gnu', debian: 'g++-powerpc64le-linux-gnu' },
  { platform: 'linux-riscv64', triplet: 'riscv64-linux-gnu', debian: 'g++-riscv64-linux-gnu' },
];

/** The platform of this process, as the addons' folders are named: with the C library, where that isn't glibc. */
export function platformHere() {
  const platform = `${process.platform}-${process.arch}`;
  if (process.platform !== 'linux') return platform;
  process.report.excludeNetwork = true;
  return process.report.getReport().header.glibcVersionRuntime === undefined ? `${platform}-musl` : platform;
}

export const addonOf = (root, platform) => join(root, 'prebuilds', platform, 'kvm_bridge.node');
export const recordOf = (root, platform) => join(root, 'prebuilds', platform, 'made-from.json');

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** A digest of everything in a package (or checkout) that an addon is compiled from. */
export function digestOfSources(root) {
  const hash = createHash('sha256');
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  hash.update(`node-addon-api ${dependencies['node-addon-api']}\0`);
  for (const folder of ['native', 'native/prebuilt']) {
    for (const name of readdirSync(join(root, folder)).sort()) {
      if (!/\.(cc|h|gypi?|map)$/.test(name)) continue;
      hash
        .update(`${folder}/${name}\0`)
        .update(readFileSync(join(root, folder, name)))
        .update('\0');
    }
  }
  return hash.digest('hex');
}

/** What is kept beside an addon. */
export function describe(root, addon, compiler) {
  return { sources: digestOfSources(root), addon: sha256(readFileSync(addon)), compiler };
}

/**
 * Why a prebuilt addon is not to be used, or undefined where it is whole and was made from the sources that lie beside it.
 * @param {string} root of the package
 * @param {string} platform
 * @returns {string | undefined}
 */
export function whyNot(root, platform) {
  if (!TARGETS.some((target) => target.platform === platform)) return `none is made for ${platform}`;
  if (!existsSync(addonOf(root, platform)) || !existsSync(recordOf(root, platform))) {
    return `this package holds none for ${platform}`;
  }
  const made = JSON.parse(readFileSync(recordOf(root, platform), 'utf8'));
  if (made.sources !== digestOfSources(root)) return 'it was made from other sources than those in native/';
  if (made.addon !== sha256(readFileSync(addonOf(root, platform)))) return 'its bytes are not those that were made';
  return undefined;
}
