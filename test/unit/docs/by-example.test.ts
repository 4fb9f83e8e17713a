import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { isPublicMember } from '../../../lib/cli/repl/completion.ts';
import { membersOf } from '../handles/surface.ts';
import { ROOT } from './blocks.ts';
import { objectsOf } from './objects.ts';

/** What the parts of this package tell one another, and nobody else calls. */
const BETWEEN_PARTS = new Set(
  `addUser assertOpen clear dropViews giveArray harvested memoryChanged pin removeUser slotAdded slotChanging slotMoved slotRemoved takeArray
  toString unpin unwatch vcpuClosed hold letGo owe release vcpuCloses watch window keep accepts`.split(/\s+/),
);

describe.each([
  ['x86_64', 'by-example.md'],
  ['s390x', 'by-example-s390x.md'],
  ['ppc64', 'by-example-ppc64.md'],
] as const)('what users of %s can call', (arch, page) => {
  const text = readFileSync(`${ROOT}/docs/${page}`, 'utf8');
  it.each(objectsOf(arch).map((object) => [object.constructor.name, object] as const))(
    'has an example: %s',
    (_, object) => {
      const wanted = membersOf(object).filter((name) => isPublicMember(object, name) && !BETWEEN_PARTS.has(name));
      expect(wanted.length).toBeGreaterThan(0);
      expect(wanted.filter((name) => !new RegExp(`\\.${name}\\b`).test(text))).toEqual([]);
    },
  );
});
