import { accessSync, constants, readdirSync, readFileSync, statSync } from 'node:fs';
import { release, userInfo } from 'node:os';
import { loadNative, type NativeLoad } from '../../backends/native.ts';
import { isPresent } from '../../lab/host-tools.ts';

/** What `stat` says of a file, as far as the doctor looks. */
export interface FileFacts {
  readonly isCharacterDevice: boolean;
  /** Permission bits. */
  readonly mode: number;
  readonly gid: number;
}

/** The machine, as the doctor examines it; tests make up others. */
export interface Host {
  readonly platform: string;
  /** As `process.arch`. */
  readonly nodeArch: string;
  readonly nodeVersion: string;
  /** Kernel release. */
  readonly release: string;
  readonly env: NodeJS.ProcessEnv;
  /** Name of the user, for the commands that are proposed. */
  readonly user: string;
  /** Contents of a text file; undefined when it cannot be read. */
  read(path: string): string | undefined;
  /** Names in a directory; none when it cannot be read. */
  list(path: string): readonly string[];
  stat(path: string): FileFacts | undefined;
  canReadAndWrite(path: string): boolean;
  /** Whether a program is on the PATH, or a file given with its folder can be read. */
  has(needs: string): boolean;
  loadAddon(): NativeLoad;
}

function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}

/** The machine this process runs on. */
export const thisHost: Host = {
  platform: process.platform,
  nodeArch: process.arch,
  nodeVersion: process.version,
  release: release(),
  env: process.env,
  user: attempt(() => userInfo().username) ?? '$USER',
  read: (path) => attempt(() => readFileSync(path, 'utf8').trim()),
  list: (path) => attempt(() => readdirSync(path)) ?? [],
  stat: (path) =>
    attempt(() => {
      const stats = statSync(path);
      return { isCharacterDevice: stats.isCharacterDevice(), mode: stats.mode & 0o7777, gid: stats.gid };
    }),
  canReadAndWrite: (path) =>
    attempt(() => {
      accessSync(path, constants.R_OK | constants.W_OK);
      return true;
    }) ?? false,
  has: isPresent,
  loadAddon: loadNative,
};
