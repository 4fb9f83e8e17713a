import { closeSync, existsSync, openSync, readSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { HtabLoops } from '../arch/ppc64/model/htab-loops.ts';
import { type KeyLoops, useKeyLoops } from '../arch/s390x/emulated/key-loops.ts';
import { createRequire } from '../base/create-require.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { type AddressLoops, useAddressLoops } from '../memory/address-loops.ts';
import { type BitmapLoops, plainBitmapLoops } from '../memory/bitmap-loops.ts';
import { archOfNode } from '../uapi/arch.ts';
import { packageRoot, thisFile } from './package-root.ts';

/** What of the addon needs no kernel. */
interface AddonLoops {
  /** The loops over HTAB streams in C++, for the `loops` of kvm-bridge/ppc64. */
  readonly htab: HtabLoops;
  /** The loops over bitmaps in C++. */
  readonly bitmaps: BitmapLoops;
  /** The loop over addresses in C++, which memory uses by itself. */
  readonly addresses: AddressLoops;
  /** The loop over storage keys in C++, which the emulated kernel uses by itself. */
  readonly storageKeys: KeyLoops;
}

/** The addon, or why there is none. */
export type NativeLoad =
  | (AddonLoops & {
      readonly calls: KvmCalls;
      /** The file that was loaded. */
      readonly path: string;
    })
  | {
      /** Whole sentences: what is wrong, and what mends it. */
      readonly reason: string;
      /** Every path that was looked at, in order. */
      readonly tried: readonly string[];
      /** The last error. */
      readonly error: Error;
      /** What mends it, where that is not to build an addon. */
      readonly mend?: string;
    };

type Addon = KvmCalls & AddonLoops;

/** The `bindings` package, of which only the search for the path is used. */
type FindAddon = (options: {
  readonly bindings: string;
  readonly module_root: string;
  readonly path: true;
  readonly try: readonly (readonly string[])[];
}) => string;

/** One that was built here comes before the one that came with the package. */
const placesFor = (platform: string) => [
  ['module_root', 'build', 'Release', 'bindings'],
  ['module_root', 'build', 'Debug', 'bindings'],
  ['module_root', 'prebuilds', platform, 'bindings'],
];

/** The head of an ELF program has the name of its dynamic linker, and that says which C library it is for. */
function hasMusl(program: string): boolean {
  const head = Buffer.alloc(4096);
  let fd: number | undefined;
  try {
    fd = openSync(program, 'r');
    return head.subarray(0, readSync(fd, head)).includes('/ld-musl-');
  } catch {
    return false;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** The folder of prebuilt addons for a Node: with the C library, where that isn't glibc. */
export function prebuiltPlatform(program = process.execPath): string {
  const platform = `${process.platform}-${process.arch}`;
  return hasMusl(program) ? `${platform}-musl` : platform;
}

const HOW_TO_BUILD =
  'Build one with `npm rebuild kvm-bridge` (in a checkout: `npm run build:addon`); that needs g++, make and python3. ' +
  'Where npm does not run install scripts of dependencies (npm 11.19 and later may not), allow this one first: `npm install-scripts approve kvm-bridge`.';

function asError(value: unknown): Error {
  return value instanceof Error ? value : new Error(String(value));
}

function failed(reason: string, tried: readonly string[] = [], error = new Error(reason)): NativeLoad {
  return { reason, tried, error };
}

const codeOf = (error: unknown): unknown => (error instanceof Error && 'code' in error ? error.code : undefined);

/** A file that cannot be opened for want of a descriptor is missing to Node's loader: opening any other tells. */
function descriptorShortage(): Error | undefined {
  try {
    closeSync(openSync('/dev/null', 'r'));
    return undefined;
  } catch (error) {
    return codeOf(error) === 'EMFILE' || codeOf(error) === 'ENFILE' ? asError(error) : undefined;
  }
}

/** What mends that Node may not load addons, or not look for them. */
function mendOf(error: Error): string | undefined {
  const isDisabled = codeOf(error) === 'ERR_DLOPEN_DISABLED';
  if (isDisabled && 'permission' in process) return 'start Node with `--allow-addons` beside `--permission`';
  if (isDisabled) return 'start Node without `--no-addons`';
  return codeOf(error) === 'ERR_ACCESS_DENIED' ? 'let Node read this package (`--allow-fs-read`)' : undefined;
}

const SHORTAGE = 'The addon cannot be looked for: the process has no descriptor left to open a file';
const MORE_FILES = 'close files, or let the process have more of them (`ulimit -n`)';

/**
 * @param what went wrong, without a full stop
 * @param cure of it, unless it is another than it seems
 */
function unloaded(what: string, tried: readonly string[], thrown: Error, cure = HOW_TO_BUILD): NativeLoad {
  const shortage = descriptorShortage();
  const mend = shortage === undefined ? mendOf(thrown) : MORE_FILES;
  if (mend === undefined) return failed(`${what}. ${cure}`.trimEnd(), tried, thrown);
  const reason = `${shortage === undefined ? what : SHORTAGE}. ${mend[0]!.toUpperCase()}${mend.slice(1)}.`;
  return { reason, tried, error: shortage ?? thrown, mend };
}

/** What an error says, as a part of a sentence of ours. */
const saidBy = ({ message }: Error): string => message.replace(/\.$/, '');

const quickCalls = new WeakMap<Addon, KvmCalls>();

/**
 * The same calls in an object whose members V8 finds at fixed places: it keeps what an addon exports, one by one, in a hash table.
 * One for each addon, since whoever has mappings knows them by their calls.
 */
function quick(addon: Addon): KvmCalls {
  let calls = quickCalls.get(addon);
  if (calls === undefined) {
    calls = { ...addon };
    quickCalls.set(addon, calls);
  }
  return calls;
}

function loadFrom(path: string): NativeLoad {
  try {
    const addon = createRequire(path)(path) as Addon;
    const { htab, bitmaps, addresses, storageKeys } = addon;
    useAddressLoops(addresses);
    useKeyLoops(storageKeys);
    return { calls: quick(addon), htab, bitmaps, addresses, storageKeys, path };
  } catch (thrown) {
    const error = asError(thrown);
    const what = `The addon ${path} is there, but Node ${process.version} cannot load it: ${saidBy(error)}`;
    return unloaded(what, [path], error);
  }
}

function loadNamed(path: string): NativeLoad {
  if (existsSync(path)) return loadFrom(path);
  return failed(`The environment variable KVM_BRIDGE_ADDON names ${path}, and there is no such file.`, [path]);
}

function loadOwn(): NativeLoad {
  if (process.platform !== 'linux') return failed(`KVM is a part of Linux, and this is ${process.platform}.`);
  if (archOfNode(process.arch) === undefined) return failed(`There is no addon for ${process.arch}.`);
  const root = packageRoot();
  if (root === undefined) {
    const what =
      `This code was bundled into ${thisFile()}, from where the package with its addon cannot be found: mark kvm-bridge ` +
      'as external, so that it stays in node_modules, or let the environment variable KVM_BRIDGE_ADDON name the file kvm_bridge.node';
    return unloaded(what, [], new Error(what), '');
  }
  const platform = prebuiltPlatform();
  let path: string;
  try {
    // By its file: a package.json that could not be read for want of a descriptor is none to Node for ever.
    const bindings = createRequire(join(root, 'package.json'))('bindings/bindings.js') as FindAddon;
    path = bindings({ bindings: 'kvm_bridge', module_root: root, path: true, try: placesFor(platform) });
  } catch (thrown) {
    const error = asError(thrown);
    if (!('tries' in error && Array.isArray(error.tries))) return unloaded(saidBy(error), [], error);
    const none = `No addon was built here, and the package holds no prebuilt one for ${platform}`;
    return unloaded(none, error.tries.map(String), error);
  }
  return loadFrom(path);
}

/**
 * Loads the addon: the one that the environment variable `KVM_BRIDGE_ADDON` names by its path, or else
 * `build/Release/kvm_bridge.node` of this package, if one was built here, or else the prebuilt one that came with it. Never
 * throws. May be called in any number of workers; each has its own descriptors and mappings.
 */
export function loadNative(): NativeLoad {
  const override = process.env.KVM_BRIDGE_ADDON;
  try {
    return override ? loadNamed(resolve(override)) : loadOwn();
  } catch (thrown) {
    // Whether a file is there is what `--permission` forbids to ask, too.
    const error = asError(thrown);
    return unloaded(saidBy(error), [], error);
  }
}

let loops: BitmapLoops | undefined;

/** The addon's loops over bitmaps, or those in TypeScript where there is no addon. */
export function bitmapLoops(): BitmapLoops {
  if (loops === undefined) {
    const native = loadNative();
    loops = 'bitmaps' in native ? native.bitmaps : plainBitmapLoops;
  }
  return loops;
}
