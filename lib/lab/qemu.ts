import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type ObtainedPackage, type ObtainOptions, obtainPart } from './archive/obtain.ts';
import type { Part } from './archive/parts.ts';
import { unpack } from './base-image.ts';
import { runCommand } from './command.ts';
import { LabError } from './lab-error.ts';
import type { QemuVersion, Variant } from './variants.ts';

/** The oldest QEMU that the labs were tried with. */
const OLDEST_QEMU: QemuVersion = [7, 2];

/** A QEMU to start machines with. */
export interface Qemu {
  readonly command: string;
  /** Options that come before all others. */
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/**
 * This machine's QEMU, or where that is too old for the lab's kernel, a newer one, unpacked into the cache without being
 * installed.
 *
 * @throws LabError if there is none that is new enough
 */
export async function prepareQemu(variant: Variant, options: ObtainOptions): Promise<Qemu> {
  const { machine, kernel, qemu } = variant;
  const oldest = kernel.oldestQemu ?? OLDEST_QEMU;
  const installed: Qemu = { command: machine.qemu, args: [], env: {} };
  const version = await versionOf(installed, options.signal);
  if (version !== undefined && isAtLeast(version, oldest)) return installed;
  const found = version?.join('.') ?? 'of unknown version';
  const sentence = `${machine.qemu} is ${found}; ${variant.id} needs QEMU ${oldest.join('.')} or later`;
  if (qemu === undefined) throw new LabError(`${sentence}.`);
  options.onProgress(`${sentence}: taking one of Debian's`);
  return unpackedQemu(variant, qemu, options);
}

async function unpackedQemu({ machine }: Variant, part: Part, options: ObtainOptions): Promise<Qemu> {
  const packages = await obtainPart(part, options);
  const folder = join(options.cache, 'qemu', identify(packages));
  const qemu: Qemu = {
    command: join(folder, 'usr/bin', machine.qemu),
    args: ['-L', join(folder, 'usr/share/qemu')],
    // Not the modules of the one that is installed, which it refuses with a line for each.
    env: { QEMU_MODULE_DIR: folder },
  };
  if (!existsSync(folder)) {
    const work = `${folder}.${process.pid}`; // Another lab may do the same.
    await mkdir(join(options.cache, 'qemu'), { recursive: true });
    try {
      await unpack(packages, work, options.signal);
      await rename(work, folder).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error; // The other one was first.
      });
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }
  if ((await versionOf(qemu, options.signal)) !== undefined) return qemu;
  throw new LabError(`${packages[0]!.path} does not run on this machine; install a newer ${machine.qemuPackage}.`);
}

/** The names of the packages with their versions, as the name of a folder. */
function identify(packages: readonly ObtainedPackage[]): string {
  return packages.map(({ sha256 }) => sha256.slice(0, 12)).join('-');
}

async function versionOf(
  { command, args, env }: Qemu,
  signal: AbortSignal | undefined,
): Promise<QemuVersion | undefined> {
  try {
    const text = await runCommand(command, [...args, '--version'], { env, signal, timeoutMs: 30_000 });
    return parseQemuVersion(text.toString());
  } catch (error) {
    if (error instanceof LabError && !signal?.aborted) return undefined;
    throw error;
  }
}

/** The version in the first line of `qemu-system-… --version`, as numbers. */
export function parseQemuVersion(text: string): QemuVersion | undefined {
  const match = /version (\d+)\.(\d+)/.exec(text);
  return match === null ? undefined : [Number(match[1]), Number(match[2])];
}

function isAtLeast([major, minor]: QemuVersion, [oldestMajor, oldestMinor]: QemuVersion): boolean {
  return major > oldestMajor || (major === oldestMajor && minor >= oldestMinor);
}
