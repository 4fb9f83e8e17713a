import { constants, type Stats } from 'node:fs';
import { open, readdir, readFile, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** A file, folder or symbolic link of an initramfs; owned by root, as everything in there. */
export type Entry =
  | { readonly path: string; readonly kind: 'file'; readonly content: Uint8Array; readonly executable?: boolean }
  | { readonly path: string; readonly kind: 'folder' }
  | { readonly path: string; readonly kind: 'link'; readonly target: string };

const TRAILER = 'TRAILER!!!';

/**
 * A cpio archive in the kernel's "new ASCII" format (Documentation/driver-api/early-userspace/buffer-format.rst), padded so
 * that another one can follow it: the kernel unpacks them in order. Folders that lead to an entry are added before it.
 */
export function* packCpio(entries: Iterable<Entry>): Generator<Uint8Array> {
  const seen = new Set<string>();
  let inode = 1;
  for (const entry of entries) {
    for (const folder of parents(entry.path)) {
      if (seen.has(folder)) continue;
      seen.add(folder);
      yield record(inode++, folder, constants.S_IFDIR | 0o755, new Uint8Array());
    }
    if (seen.has(entry.path)) {
      if (entry.kind === 'folder') continue;
      throw new Error(`${entry.path} is twice in the archive`);
    }
    seen.add(entry.path);
    yield record(inode++, entry.path, modeOf(entry), contentOf(entry));
  }
  yield record(0, TRAILER, 0, new Uint8Array());
}

function modeOf(entry: Entry): number {
  if (entry.kind === 'folder') return constants.S_IFDIR | 0o755;
  if (entry.kind === 'link') return constants.S_IFLNK | 0o777;
  return constants.S_IFREG | (entry.executable === true ? 0o755 : 0o644);
}

function contentOf(entry: Entry): Uint8Array {
  if (entry.kind === 'file') return entry.content;
  return entry.kind === 'link' ? Buffer.from(entry.target) : new Uint8Array();
}

function parents(path: string): string[] {
  const parts = path.split('/').slice(0, -1);
  return parts.map((_, index) => parts.slice(0, index + 1).join('/'));
}

function record(inode: number, path: string, mode: number, content: Uint8Array): Uint8Array {
  const name = Buffer.from(`${path}\0`);
  const fields = [inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length, 0];
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`);
  const nameEnd = align4(header.length + name.length);
  const bytes = Buffer.alloc(nameEnd + align4(content.length));
  header.copy(bytes);
  name.copy(bytes, header.length);
  bytes.set(content, nameEnd);
  return bytes;
}

function align4(length: number): number {
  return (length + 3) & ~3;
}

/** Writes an archive to a new file and returns its size. */
export async function writeCpio(path: string, entries: Iterable<Entry>): Promise<number> {
  const file = await open(path, 'wx');
  try {
    for (const bytes of packCpio(entries)) await file.writeFile(bytes);
    await file.sync();
    return (await file.stat()).size;
  } finally {
    await file.close();
  }
}

/**
 * The files and links below a folder on disk as entries, sorted by path.
 *
 * @param root the folder that becomes the archive's root
 * @param keep called with each path relative to it; folders are not asked for
 */
export async function readTree(root: string, keep: (path: string) => boolean): Promise<Entry[]> {
  const found = await readdir(root, { recursive: true, withFileTypes: true });
  const entries: Entry[] = [];
  for (const each of found) {
    const path = join(each.parentPath, each.name);
    const relative = path.slice(root.length + 1);
    if (each.isDirectory() || !keep(relative)) continue;
    if (each.isSymbolicLink()) entries.push({ path: relative, kind: 'link', target: await readlink(path) });
    else if (each.isFile()) entries.push(await readEntry(path, relative));
  }
  return entries.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** A file on disk as an entry at `path`. */
export async function readEntry(source: string, path: string): Promise<Entry> {
  const status: Stats = await stat(source);
  return { path, kind: 'file', content: await readFile(source), executable: (status.mode & 0o111) !== 0 };
}
