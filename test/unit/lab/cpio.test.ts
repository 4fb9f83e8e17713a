import { describe, expect, it } from 'vitest';
import { type Entry, packCpio } from '../../../lib/lab/cpio.ts';

/** Reads the format's fields back: name, mode, content. */
function unpack(archive: Buffer): { name: string; mode: number; content: string }[] {
  const found = [];
  for (let at = 0; at < archive.length; ) {
    expect(archive.subarray(at, at + 6).toString()).toBe('070701');
    const field = (index: number) =>
      Number.parseInt(archive.subarray(at + 6 + index * 8, at + 14 + index * 8).toString(), 16);
    const nameEnd = at + 110 + field(11);
    const start = (nameEnd + 3) & ~3;
    found.push({
      name: archive.subarray(at + 110, nameEnd - 1).toString(),
      mode: field(1),
      content: archive.subarray(start, start + field(6)).toString(),
    });
    at = (start + field(6) + 3) & ~3;
  }
  return found;
}

const ENTRIES: Entry[] = [
  { path: 'init', kind: 'file', content: Buffer.from('#!/bin/sh\n'), executable: true },
  { path: 'usr/lib/a', kind: 'file', content: Buffer.from('abc') },
  { path: 'usr/lib/b', kind: 'link', target: 'a' },
  { path: 'usr', kind: 'folder' },
  { path: 'dev', kind: 'folder' },
];

describe('an initramfs archive', () => {
  it('has each entry once, after the folders that lead to it', () => {
    const archive = Buffer.concat([...packCpio(ENTRIES)]);
    expect(archive.length % 4).toBe(0);
    expect(unpack(archive)).toEqual([
      { name: 'init', mode: 0o100755, content: '#!/bin/sh\n' },
      { name: 'usr', mode: 0o040755, content: '' },
      { name: 'usr/lib', mode: 0o040755, content: '' },
      { name: 'usr/lib/a', mode: 0o100644, content: 'abc' },
      { name: 'usr/lib/b', mode: 0o120777, content: 'a' },
      { name: 'dev', mode: 0o040755, content: '' },
      { name: 'TRAILER!!!', mode: 0, content: '' },
    ]);
  });

  it('can follow another one', () => {
    const first = Buffer.concat([...packCpio([{ path: 'a', kind: 'file', content: Buffer.from('1') }])]);
    const second = Buffer.concat([...packCpio([{ path: 'b', kind: 'file', content: Buffer.from('22') }])]);
    const names = unpack(Buffer.concat([first, second])).map(({ name }) => name);
    expect(names).toEqual(['a', 'TRAILER!!!', 'b', 'TRAILER!!!']);
  });

  it('refuses a path that is there already', () => {
    expect(() => [...packCpio([...ENTRIES, ENTRIES[1]!])]).toThrow('usr/lib/a is twice');
  });
});
