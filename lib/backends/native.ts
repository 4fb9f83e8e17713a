import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { HtabLoops } from '../arch/ppc64/model/htab-loops.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';

/** The addon, or why there is none. */
export type NativeLoad =
  | {
      readonly calls: KvmCalls;
      /** The loops over HTAB streams in C++, for the `loops` of kvm-bridge/ppc64. */
      readonly htab: HtabLoops;
    }
  | {
      /** Whole sentences: what is wrong, and what mends it. */
      readonly reason: string;
      /** Every path that was looked at, in order. */
      readonly tried: readonly string[];
      /** The last error. */
      readonly error: Error;
    };

/** What the addon exports: the calls, and what needs no kernel. */
type Addon = KvmCalls & { readonly htab: HtabLoops };

/** The `bindings` package, of which only the search for the path is used. */
type FindAddon = (options: { bindings: string; module_root: string; path: true }) => string;

const require = createRequire(import.meta.url);

/** The nearest folder above that holds the addon or what it is built from: this file lies in lib/, dist/ or out/lib/. */
function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  const isRoot = () => ['build', 'binding.gyp'].some((name) => existsSync(resolve(folder, name)));
  while (!isRoot() && dirname(folder) !== folder) folder = dirname(folder);
  return folder;
}

const HOW_TO_BUILD =
  'Build it with `npm rebuild kvm-bridge` (in a checkout: `npm run build:addon`); that needs g++, make and python3. ' +
  'Where npm does not run install scripts of dependencies (npm 11.19 and later may not), allow this one first: `npm install-scripts approve kvm-bridge`.';

function asError(value: unknown): Error {
  return value instanceof Error ? value : new Error(String(value));
}

function failure(error: Error, tried: readonly string[]): NativeLoad {
  if (process.platform !== 'linux') {
    return { reason: `KVM is a part of Linux, and this is ${process.platform}.`, tried, error };
  }
  const found = !('tries' in error) && !/cannot find module/i.test(error.message);
  const what = found
    ? `The addon ${tried.at(-1)} is there, but Node ${process.version} cannot load it: ${error.message}.`
    : 'The addon was not built.';
  return { reason: `${what} ${HOW_TO_BUILD}`, tried, error };
}

function loadFrom(path: string): NativeLoad {
  try {
    const addon = require(path) as Addon;
    return { calls: addon, htab: addon.htab };
  } catch (thrown) {
    return failure(asError(thrown), [path]);
  }
}

function loadNamed(path: string): NativeLoad {
  if (existsSync(path)) return loadFrom(path);
  const reason = `The environment variable KVM_BRIDGE_ADDON names ${path}, and there is no such file.`;
  return { reason, tried: [path], error: new Error(reason) };
}

/**
 * Loads the addon: `build/Release/kvm_bridge.node` of this package, or the one that the environment variable
 * `KVM_BRIDGE_ADDON` names by its path. Never throws. May be called in any number of workers; each has its own
 * descriptors and mappings.
 */
export function loadNative(): NativeLoad {
  const override = process.env.KVM_BRIDGE_ADDON;
  if (override) return loadNamed(resolve(override));
  let path: string;
  try {
    const bindings = require('bindings') as FindAddon;
    path = bindings({ bindings: 'kvm_bridge', module_root: packageRoot(), path: true });
  } catch (thrown) {
    const error = asError(thrown);
    const tried = 'tries' in error && Array.isArray(error.tries) ? error.tries.map(String) : [];
    return failure(error, tried);
  }
  return loadFrom(path);
}
