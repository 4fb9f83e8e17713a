import { createHash } from 'node:crypto';
import { appendFile, copyFile, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { lockDigest, type ObtainedPackage, obtainPart } from './archive/obtain.ts';
import { checkRoom } from './cache.ts';
import { runCommand } from './command.ts';
import { type Entry, readTree, writeCpio } from './cpio.ts';
import { guestModules, MODULES_FOLDER } from './guest-modules.ts';
import { LabError } from './lab-error.ts';
import { LOCKS_FOLDER, PROJECT_ROOT } from './project.ts';
import type { Machine, Variant } from './variants.ts';

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

/** For what a run appends to the initramfs, where the firmware limits its size. */
const ROOM_FOR_A_RUN = 24 * 1024 ** 2;

/** The sources of this file's own work, which are in the package too: a change in any of them makes a cached image out of date. */
const RECIPE_SOURCES = ['base-image', 'cpio', 'elf', 'guest-modules', 'kernel-module', 's390x-kvm-patch'];

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
  const node = await obtainPart(variant.node, { ...options, locks: LOCKS_FOLDER });
  const kernel = await obtainPart(variant.kernelPart, { ...options, locks: LOCKS_FOLDER });
  const names = [...node, ...kernel].map((each) => basename(each.path)).sort();
  const current = await readImage(folder, recipe);
  if (current !== undefined && current.packages.join() === names.join()) return current;

  options.onProgress(`building the initramfs of ${variant.id}`);
  const work = `${folder}.building`; // The lock makes it ours; what is there was left by a lab that was killed.
  await rm(work, { recursive: true, force: true });
  await mkdir(work, { recursive: true });
  try {
    const image = await buildImage(variant, { node, kernel }, work, options);
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

/** A digest of everything in our own sources, and in the locks, that the image depends on. */
async function recipeOf(variant: Variant): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(variant.machine.modules)).update(variant.kernel.series);
  for (const part of [variant.node, variant.kernelPart]) hash.update(await lockDigest(part, LOCKS_FOLDER));
  for (const name of RECIPE_SOURCES) hash.update(await readFile(join(PROJECT_ROOT, `lib/lab/${name}.ts`)));
  return hash.digest('hex').slice(0, 16);
}

async function readImage(folder: string, recipe: string): Promise<BaseImage | undefined> {
  const image = { kernel: join(folder, 'kernel'), initramfs: join(folder, 'initramfs') };
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
  readonly node: readonly ObtainedPackage[];
  readonly kernel: readonly ObtainedPackage[];
}

async function buildImage(
  variant: Variant,
  packages: Packages,
  work: string,
  { signal }: BaseImageOptions,
): Promise<Manifest['bytes']> {
  const root = join(work, 'root');
  const kernelRoot = join(work, 'kernel');
  await unpack(packages.node, root, signal);
  await unpack(packages.kernel, kernelRoot, signal);
  await mkdir(join(work, 'image'));
  const kernel = join(work, 'image/kernel');
  await copyFile(await findKernel(variant, kernelRoot), kernel);

  const entries: Entry[] = [
    ...['dev', 'proc', 'sys', 'tmp', 'root', MODULES_FOLDER].map((path): Entry => ({ path, kind: 'folder' })),
    ...['bin', 'sbin', 'lib', 'lib64'].map((path): Entry => ({ path, kind: 'link', target: `usr/${path}` })),
    ...(await readTree(root, belongsInGuest)).filter((entry) => !/^(s?bin|lib|lib64)\//.test(entry.path)),
    ...(await guestModules(variant, kernelRoot, signal)),
  ];
  const archive = join(work, 'initramfs.cpio');
  const initramfs = join(work, 'image/initramfs');
  const bytes = await writeCpio(archive, entries);
  if (fits(variant.machine, bytes)) await rename(archive, initramfs);
  else await compress(archive, initramfs, signal);
  return { kernel: (await stat(kernel)).size, initramfs: (await stat(initramfs)).size };
}

function fits({ maxInitramfsBytes }: Machine, bytes: number): boolean {
  return maxInitramfsBytes === undefined || bytes + ROOM_FOR_A_RUN <= maxInitramfsBytes;
}

/** As a frame of zstd, which the kernels can read, filled up so that the run's archive after it starts where one must: at a multiple of 4. */
async function compress(archive: string, into: string, signal: AbortSignal | undefined): Promise<void> {
  await runCommand('zstd', ['-q', '-1', archive, '-o', into], { signal, timeoutMs: 300_000 });
  const { size } = await stat(into);
  await appendFile(into, Buffer.alloc((4 - (size % 4)) % 4));
}

/** Unpacks packages into a new folder; nothing of them is run. */
export async function unpack(
  packages: readonly ObtainedPackage[],
  into: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  await mkdir(into);
  for (const { path } of packages) {
    await runCommand('dpkg-deb', ['-x', path, into], { signal, timeoutMs: 300_000 });
  }
}

/** The kernel's file: in /boot, or from 7.2 on beside the modules. */
export async function findKernel({ id }: Variant, root: string): Promise<string> {
  const found = await readdir(root, { recursive: true, withFileTypes: true });
  const files = found.filter((each) => each.isFile()).map((each) => join(each.parentPath, each.name));
  const kernel = files.find((path) => /\/(boot\/vmlinu[xz]-[^/]+|usr\/lib\/modules\/[^/]+\/vmlinu[xz])$/.test(path));
  if (kernel === undefined) throw new LabError(`The packages of ${id} have no kernel in them.`);
  return kernel;
}

/** What Node and busybox need at run time, of all that the packages contain. */
function belongsInGuest(path: string): boolean {
  if (path === 'usr/bin/node' || path === 'usr/bin/busybox') return true;
  if (/^usr\/lib(64)?\//.test(path)) return /\.so(\.|$)/.test(path) && !path.includes('/gconv/');
  return (
    /^usr\/share\/nodejs\//.test(path) && /\.(js|cjs|json|wasm)$/.test(path) && !/\/(@types|corepack)\//.test(path)
  );
}
