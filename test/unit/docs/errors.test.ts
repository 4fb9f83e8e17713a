import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import * as ppc64 from '../../../lib/arch/ppc64/rules.ts';
import * as s390x from '../../../lib/arch/s390x/rules.ts';
import * as dirtyLog from '../../../lib/rules/dirty-log.ts';
import * as dirtyRing from '../../../lib/rules/dirty-ring.ts';
import * as ioBus from '../../../lib/rules/io-bus.ts';
import * as memslot from '../../../lib/rules/memslot.ts';
import type { Rule } from '../../../lib/rules/rule.ts';

const isRule = (value: unknown): value is Rule<never> =>
  typeof value === 'object' && value !== null && 'errno' in value && 'broken' in value;

const rules = [dirtyLog, dirtyRing, ioBus, memslot, ppc64, s390x]
  .flatMap((module) => Object.values<unknown>(module))
  .flat()
  .filter(isRule);

it('docs/errors.md has a section for every errno that a rule answers with', () => {
  const text = readFileSync(new URL('../../../docs/errors.md', import.meta.url), 'utf8');
  const sections = new Set(
    [...text.matchAll(/^## (.+)$/gm)].flatMap(([, heading]) => heading!.match(/\bE[A-Z0-9]+\b/g)),
  );
  expect(rules.length).toBeGreaterThan(50);
  expect([...new Set(rules.map(({ errno }) => errno))].filter((errno) => !sections.has(errno))).toEqual([]);
});
