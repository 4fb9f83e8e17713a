// How Debian's g++, which is set up for glibc, is told to compile for musl: its own headers and those of the C++ library stay,
// the C library's are musl's.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';

/** Where Debian's musl-dev has the headers of an architecture: 'x86_64-linux-musl'. */
const headersOf = (musl) => join('/usr/include', musl);

/** What `musl-dev` of that architecture says of itself, or undefined where it isn't installed. */
export function muslVersion(musl) {
  if (!existsSync(join(headersOf(musl), 'stdio.h'))) return undefined;
  const { stdout } = spawnSync('dpkg-query', ['-W', 'musl-dev'], { encoding: 'utf8' });
  // A line for each architecture, all of one version: its name, a tab, its version.
  return `musl ${/\t(.*)/.exec(stdout)?.[1] ?? '(version unknown)'}`;
}

/** The folders in which a compiler looks for headers, in order. */
function searchPath(compiler) {
  const { stderr } = spawnSync(compiler, ['-E', '-x', 'c++', '-v', '/dev/null'], { encoding: 'utf8' });
  const [, list = ''] = /#include <\.\.\.> search starts here:\n(.*?)\nEnd of search list/s.exec(stderr) ?? [];
  return list.split('\n').map((line) => line.trim());
}

/**
 * The flags of C++ for musl.
 * @param {string} compiler
 * @param {string} musl Debian's name of the architecture with it
 * @param {string} prebuilt the folder that this file is in
 * @param {string} scratch a folder, in which those of the kernel's headers are shown
 */
export function muslFlags(compiler, musl, prebuilt, scratch) {
  const folders = searchPath(compiler);
  const kernel = join(scratch, `kernel-${musl}`);
  mkdirSync(kernel);
  for (const name of ['linux', 'asm', 'asm-generic']) {
    const found = folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
    if (found === undefined) throw new Error(`${compiler} finds no <${name}/…>`);
    symlinkSync(found, join(kernel, name));
  }
  const kept = folders.filter((folder) => /\/c\+\+\/|\/lib\/gcc/.test(folder));
  const system = [...kept, headersOf(musl), kernel].flatMap((folder) => ['-isystem', folder]);
  return ['-nostdinc', ...system, '-include', join(prebuilt, 'musl.h')].join(' ');
}
