import { createHash } from 'node:crypto';
import { copyFile, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkRoom } from './cache.ts';
import { runCommand } from './command.ts';
import { type Entry, readTree, writeCpio } from './cpio.ts';
import { findDebianMirror } from './debian-mirror.ts';
import { canonicalModuleName, dependenciesOf, withoutSignature } from './kernel-module.ts';
import { LabError } from './lab-error.ts';
import { type Package, PrivateApt } from './packages.ts';
import { patchS390xKvm } from './s390x-kvm-patch.ts';
import { NODE_SUITE, type Variant } from './variants.ts';

/** What a lab boots: a kernel, and the initramfs with busybox, Node and the kernel's modules. */
export interface BaseImage {
  readonly kernel: string;
  readonly initramfs: string;
  readonly packages: readonly string[];
}

interface Manifest {
  readonly recipe: string;
  readonly packages: readonly string[];
  readonly bytes: { readonly kernel: number; readonly initramfs: number };
}

export interface BaseImageOptions {
  readonly cache: string;
  /** Ask the archive for newer packages even if there is an image already. */
  readonly refresh: boolean;
  readonly onProgress: (line: string) => void;
  readonly signal?: AbortSignal | undefined;
}

/** Room for the packages, what is unpacked of them, and the image. */
const ROOM_TO_BUILD = 1500 * 1024 ** 2;

/** The sources of this file's own work: a change in any of them makes a cached image out of date. */
const RECIPE_SOURCES = ['base-image', 'cpio', 'elf', 'kernel-module', 's390x-kvm-patch'];

/** Where the modules lie in the initramfs, named so that their order is that of loading. */
export const MODULES_FOLDER = 'lab/modules';

/**
 * The variant's base image: the one in the cache, or a new one from Debian's current packages. Must be called with the
 * cache's lock held.
 */
export async function prepareBaseImage(variant: Variant, options: BaseImageOptions): Promise<BaseImage> {
  const recipe = await recipeOf(variant);
  const folder = join(options.cache, 'base', variant.id);
  const cached = options.refresh ? undefined : await readImage(folder, recipe);
  if (cached !== undefined) return cached;

  await checkRoom(options.cache, ROOM_TO_BUILD);
  const packages = await fetchPackages(variant, options);
  const names = [...packages.root, packages.kernel].map((each) => each.file).sort();
  const current = await readImage(folder, recipe);
  if (current !== undefined && current.packages.join() === names.join()) return current;

  options.onProgress(`building the initramfs of ${variant.id}`);
  const work = `${folder}.building`; // The lock makes it ours; what is there was left by a lab that was killed.
  await rm(work, { recursive: true, force: true });
  await mkdir(work, { recursive: true });
  try {
    const image = await buildImage(variant, packages, work, options);
    const manifest: Manifest = { recipe, packages: names, bytes: image };
    await writeFile(join(work, 'image/manifest.json'), `${JSON.stringify(manifest, undefined, 2)}\n`);
    await rm(folder, { recursive: true, force: true });
    await rename(join(work, 'image'), folder);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  const built = await readImage(folder, recipe);
  if (built === undefined) throw new LabError(`The image of ${variant.id} could not be read back from ${folder}.`);
  return built;
}

/** A digest of everything in our own sources that the image depends on. */
async function recipeOf(variant: Variant): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(variant.machine.modules)).update(variant.kernel.series);
  const own = fileURLToPath(import.meta.url);
  const extension = own.slice(own.lastIndexOf('.'));
  for (const name of RECIPE_SOURCES) hash.update(await readFile(join(own, '..', `${name}${extension}`)));
  return hash.digest('hex').slice(0, 16);
}

async function readImage(folder: string, recipe: string): Promise<BaseImage | undefined> {
  const image = { kernel: join(folder, 'kernel'), initramfs: join(folder, 'initramfs.cpio') };
  try {
    const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8')) as Manifest;
    const whole =
      manifest.recipe === recipe &&
      (await stat(image.kernel)).size === manifest.bytes.kernel &&
      (await stat(image.initramfs)).size === manifest.bytes.initramfs;
    return whole ? { ...image, packages: manifest.packages } : undefined;
  } catch {
    return undefined; // Not there, or not whole: to be built.
  }
}

interface Packages {
  readonly root: readonly Package[];
  readonly kernel: Package;
  readonly folder: string;
}

async function fetchPackages(variant: Variant, { cache, onProgress, signal }: BaseImageOptions): Promise<Packages> {
  const { machine, kernel } = variant;
  const mirror = findDebianMirror();
  const folder = join(cache, 'packages', machine.debianArch);
  const open = async (suite: string) => {
    onProgress(`reading the index of Debian ${suite} for ${machine.debianArch}`);
    const apt = new PrivateApt(
      join(cache, 'apt', `${machine.debianArch}-${suite}`),
      machine.debianArch,
      suite,
      mirror,
      signal,
    );
    await apt.update();
    return apt;
  };
  const nodeApt = await open(NODE_SUITE);
  const kernelApt = kernel.suite === NODE_SUITE ? nodeApt : await open(kernel.suite);

  const root = await nodeApt.closureOf(['nodejs', 'busybox-static']);
  const image = await kernelApt.dependencyOf(machine.kernelPackage, `linux-image-${kernel.series}.`);
  const [kernelPackage] = await kernelApt.describe([image]);
  if (kernelPackage === undefined || root.length === 0) {
    throw new LabError(
      `The archive lists no ${kernelPackage === undefined ? image : 'nodejs'} for ${machine.debianArch}.`,
    );
  }
  const bytes = [...root, kernelPackage].reduce((sum, each) => sum + each.bytes, 0);
  onProgress(`fetching ${root.length + 1} packages (${Math.round(bytes / 1024 ** 2)} MiB) unless they are cached`);
  await nodeApt.download(root, folder);
  await kernelApt.download([kernelPackage], folder);
  return { root, kernel: kernelPackage, folder };
}

async function buildImage(
  variant: Variant,
  packages: Packages,
  work: string,
  { signal }: BaseImageOptions,
): Promise<Manifest['bytes']> {
  const unpack = async (files: readonly Package[], into: string) => {
    await mkdir(into);
    for (const each of files) {
      await runCommand('dpkg-deb', ['-x', join(packages.folder, each.file), into], { signal, timeoutMs: 300_000 });
    }
  };
  const root = join(work, 'root');
  const kernelRoot = join(work, 'kernel');
  await unpack(packages.root, root);
  await unpack([packages.kernel], kernelRoot);
  await mkdir(join(work, 'image'));

  const prefix = `${variant.machine.kernelFile}-`;
  const kernelFile = (await readdir(join(kernelRoot, 'boot'))).find((name) => name.startsWith(prefix));
  if (kernelFile === undefined) throw new LabError(`${packages.kernel.file} has no /boot/${prefix}… in it.`);
  const kernel = join(work, 'image/kernel');
  await copyFile(join(kernelRoot, 'boot', kernelFile), kernel);

  const entries: Entry[] = [
    ...['dev', 'proc', 'sys', 'tmp', 'root', MODULES_FOLDER].map((path): Entry => ({ path, kind: 'folder' })),
    ...['bin', 'sbin', 'lib', 'lib64'].map((path): Entry => ({ path, kind: 'link', target: `usr/${path}` })),
    ...(await readTree(root, belongsInGuest)).filter((entry) => !/^(s?bin|lib|lib64)\//.test(entry.path)),
    ...(await modulesOf(variant, kernelRoot, signal)),
  ];
  const initramfs = await writeCpio(join(work, 'image/initramfs.cpio'), entries);
  return { kernel: (await stat(kernel)).size, initramfs };
}

/** What Node and busybox need at run time, of all that the packages contain. */
function belongsInGuest(path: string): boolean {
  if (path === 'usr/bin/node' || path === 'usr/bin/busybox') return true;
  if (/^usr\/lib(64)?\//.test(path)) return /\.so(\.|$)/.test(path) && !path.includes('/gconv/');
  return (
    /^usr\/share\/nodejs\//.test(path) && /\.(js|cjs|json|wasm)$/.test(path) && !/\/(@types|corepack)\//.test(path)
  );
}

/** The kernel's modules that the variant loads, numbered in the order of loading. */
async function modulesOf(variant: Variant, kernelRoot: string, signal: AbortSignal | undefined): Promise<Entry[]> {
  const found = await readdir(kernelRoot, { recursive: true, withFileTypes: true });
  const files = new Map<string, string>();
  const builtIn = new Set<string>();
  for (const each of found) {
    const path = join(each.parentPath, each.name);
    const module = /^(.+)\.ko(\.xz)?$/.exec(each.name);
    if (module !== null) files.set(canonicalModuleName(module[1]!), path);
    if (each.name !== 'modules.builtin') continue;
    for (const line of (await readFile(path, 'utf8')).split('\n')) {
      builtIn.add(canonicalModuleName(basename(line, '.ko')));
    }
  }

  const loaded = new Map<string, Uint8Array>();
  const load = async (name: string): Promise<void> => {
    const key = canonicalModuleName(name);
    if (loaded.has(key) || builtIn.has(key)) return;
    const file = files.get(key);
    if (file === undefined) throw new LabError(`The kernel of ${variant.id} has no module ${name}.`);
    const raw = file.endsWith('.xz') ? await runCommand('xz', ['-dc', file], { signal }) : await readFile(file);
    const module = withoutSignature(raw);
    for (const dependency of dependenciesOf(module)) await load(dependency);
    const patch = key === 'kvm' && variant.machine.patchKvm === 's390x-without-sie';
    loaded.set(key, patch ? patchS390xKvm(module) : module);
  };
  for (const name of variant.machine.modules) await load(name);
  return [...loaded].map(([name, content], index) => {
    const path = `${MODULES_FOLDER}/${String(index).padStart(2, '0')}-${name}.ko`;
    return { path, kind: 'file', content };
  });
}
