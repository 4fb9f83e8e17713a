import { describe, expect, it } from 'vitest';
import { readGypTarget } from '../../lab/gyp.ts';

const FILES: Record<string, string> = {
  '/p/binding.gyp': `# a comment with 'quotes'
    { 'targets': [ { 'target_name': "bridge", 'includes': ['native/a.gypi',], 'cflags': ['-g'] , }, ], }`,
  '/p/native/a.gypi': `{
    'sources': ['a.cc', 'it\\'s.cc'],  # trailing
    'include_dirs': ['<!(node -p "require(\\'x\\').include_dir")', 'inc'],
    'defines': ['N=8'], 'cflags_cc': ['-std=c++17'], 'ldflags': ['-Wl,-z,x'],
    'conditions': [['w==1', {'cflags_cc': ['-Werror']}]],
  }`,
};

const read = (path: string): string => FILES[path] ?? path;

describe('binding.gyp', () => {
  it('gives the target, with what it includes, by paths of its own files', () => {
    expect(readGypTarget('/p/binding.gyp', read)).toEqual({
      name: 'bridge',
      sources: ['/p/native/a.cc', "/p/native/it's.cc"],
      includeFolders: ['/p/native/inc'],
      defines: ['N=8'],
      compilerFlags: ['-g', '-std=c++17'],
      linkerFlags: ['-Wl,-z,x'],
    });
  });

  it.each(['{', '[]', '{}', "{'targets': []}", 'import os', "{'targets': [{'sources': []}]}"])(
    'is refused as %s',
    (text) => {
      expect(() => readGypTarget('/x', () => text)).toThrow(SyntaxError);
    },
  );
});
