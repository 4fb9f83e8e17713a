import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { LabError } from './lab-error.ts';
import type { Machine } from './variants.ts';

/** A program (or, with a slash in it, a file) that a lab needs on this machine, and the Debian packages that bring it. */
export interface HostTool {
  readonly needs: string;
  readonly packages: readonly string[];
}

export const DEBIAN_KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** Everything that a lab on this machine needs from the host. */
export function toolsFor(machine: Machine): readonly HostTool[] {
  return [
    { needs: machine.qemu, packages: [machine.qemuPackage] },
    { needs: 'dpkg-deb', packages: ['dpkg'] },
    { needs: 'apt-get', packages: ['apt'] },
    { needs: 'curl', packages: ['curl'] },
    { needs: 'xz', packages: ['xz-utils'] },
    ...(machine.maxInitramfsBytes === undefined ? [] : [{ needs: 'zstd', packages: ['zstd'] }]),
    { needs: 'setpriv', packages: ['util-linux'] },
    { needs: 'flock', packages: ['util-linux'] },
    { needs: DEBIAN_KEYRING, packages: ['debian-archive-keyring'] },
  ];
}

/** The sentence for missing tools, with the command that installs them; undefined if all are there. */
export function describeMissing(tools: readonly HostTool[], isPresent: (needs: string) => boolean): string | undefined {
  const missing = tools.filter((tool) => !isPresent(tool.needs));
  if (missing.length === 0) return undefined;
  const packages = [...new Set(missing.flatMap((tool) => tool.packages))];
  const names = missing.map((tool) => tool.needs).join(', ');
  return `This machine lacks ${names}; install with: sudo apt-get install --no-install-recommends ${packages.join(' ')}`;
}

/** Whether a program is on PATH, or a file given with its folder exists. */
export function isPresent(needs: string): boolean {
  const candidates = needs.includes('/')
    ? [needs]
    : (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, needs));
  const mode = needs.includes('/') ? constants.R_OK : constants.X_OK;
  return candidates.some((path) => {
    try {
      accessSync(path, mode);
      return true;
    } catch {
      return false;
    }
  });
}

/** Throws, naming the command that helps, unless this machine has what the lab needs of it. */
export function checkHost(machine: Machine, more: readonly HostTool[] = []): void {
  const missing = describeMissing([...toolsFor(machine), ...more], isPresent);
  if (missing !== undefined) throw new LabError(missing);
}
