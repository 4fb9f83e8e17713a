import type { Wish } from './closure.ts';
import type { SuiteIndex } from './suite-index.ts';
import { compareVersions } from './version.ts';

/** Packages that a lab needs together, and where they come from. */
export interface Part {
  /** Such as `node-s390x`: the name of its lock. */
  readonly id: string;
  /** The architecture's name in Debian's archive. */
  readonly debianArch: string;
  /** The first package, for people. */
  readonly what: string;
  /** Suites in order of preference: the next one is read only if those before it have no whole set. */
  readonly suites: readonly string[];
  /** What is wanted of the suites that were read. */
  readonly wish: (indexes: readonly SuiteIndex[]) => Wish;
}

/** Node and busybox, with all the libraries that they need. */
export function nodePart(debianArch: string): Part {
  return {
    id: `node-${debianArch}`,
    debianArch,
    what: 'nodejs',
    suites: ['trixie', 'forky', 'sid'],
    wish: () => ({ roots: [[{ name: 'nodejs' }], [{ name: 'busybox-static' }]] }),
  };
}

/**
 * A kernel of a series: the newest whose files are all there.
 *
 * @param flavour what follows the version in the names of the kernel's packages
 */
export function kernelPart(debianArch: string, series: string, flavour: string, suites: readonly string[]): Part {
  return {
    id: `kernel-${debianArch}-${series}`,
    debianArch,
    what: `linux-image-${series}…-${flavour}`,
    suites,
    wish: (indexes) => ({
      roots: [kernelImages(indexes, series, flavour).map((name) => ({ name }))],
      // From 6.19 on the image's package may have nothing in it but the names of these; the base has the list of what is built in.
      // Where the archive lost the base of an image that has everything in it, that is no loss.
      follows: (name) =>
        /^linux-(base|binary|modules)-\d/.test(name) && indexes.some((each) => each.find(name).length > 0),
    }),
  };
}

/** The names of all packages with a kernel of the series, the first suite's newest first. */
function kernelImages(indexes: readonly SuiteIndex[], series: string, flavour: string): string[] {
  const prefix = `linux-image-${series}.`;
  return indexes.flatMap((index) => {
    const images = [...index.names()].flatMap((name) => {
      // After the version, at most the ABI (`-42`) and the release of Debian (`+deb13`) come before the flavour.
      const middle =
        name.startsWith(prefix) && name.endsWith(`-${flavour}`)
          ? name.slice(prefix.length, -flavour.length - 1)
          : undefined;
      return middle !== undefined && /^[\d.]+(-\d+)?(\+deb[\w.~]+)?$/.test(middle) ? index.find(name).slice(0, 1) : [];
    });
    return images.sort((a, b) => compareVersions(b.version, a.version)).map(({ name }) => name);
  });
}

/** QEMU for one architecture's machines, as a program of this machine's. */
export function qemuPart(name: string, suites: readonly string[]): Part {
  return {
    id: name,
    debianArch: 'amd64',
    what: name,
    suites,
    wish: () => ({ roots: [[{ name }]], follows: (each) => /^qemu-system-(common|data)$/.test(each) }),
  };
}
