import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { isPublicMember } from '../../../lib/cli/repl/completion.ts';
import { membersOf } from '../handles/surface.ts';
import { ROOT } from './blocks.ts';
import { objectsOf } from './objects.ts';

describe.each([
  ['x86_64', 'by-example.md'],
  ['s390x', 'by-example-s390x.md'],
  ['ppc64', 'by-example-ppc64.md'],
] as const)('what users of %s can call', (arch, page) => {
  const text = readFileSync(`${ROOT}/docs/${page}`, 'utf8');
  it.each(objectsOf(arch).map((object) => [object.constructor.name, object] as const))(
    'has an example: %s',
    (_, object) => {
      const wanted = membersOf(object).filter((name) => isPublicMember(object, name) && name !== 'toString');
      expect(wanted.length).toBeGreaterThan(0);
      expect(wanted.filter((name) => !new RegExp(`\\.${name}\\b`).test(text))).toEqual([]);
    },
  );
});
