import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const lib = fileURLToPath(new URL('../../../lib', import.meta.url));
const files = readdirSync(lib, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));

const NOUNS = 'pages|memslots|vCPUs|VMs|regions|ranges|descriptors|queues|findings|files|lines|calls|times|consumers';

/** Numbers that are never one, and text that recordings have. */
const ALLOWED = [
  /^calls\/recorder\.ts: .*Int32Array\)\.length} descriptors`/,
  /^rules\/memslot\.ts: `memory_size .* pages; one slot holds at most/,
  /^vhost-user\/memory-table\.ts: .*MAX_REGIONS} regions already/,
  /^vhost-user\/virtqueue\/chain\.ts: .* to \$\{MAX_CHAIN} descriptors/,
  /^arch\/ppc64\/model\/slb\.ts: .*pageSizeName\(this\.baseShift\)} pages/,
] as const;
const isAllowed = (line: string): boolean => ALLOWED.some((allowed) => allowed.test(line));

/** What says a number of things without looking whether there is one: "1 pages", "2 file(s)", or its own way to tell. */
const CARELESS = [
  /\w\(s\)/,
  /=== 1 \? '' : 's'/,
  // "3 of 4 pages", "more than 4 pages": those cannot be one, or are said of all of them.
  new RegExp(`(?<!\\b(?:of|than|most|room for) )\\$\\{(?!counted)[^}]*\\} (?:${NOUNS})\\b`),
];

it('things are counted by counted() of base/text.ts, so that there is 1 page and not 1 pages', () => {
  const found = files.flatMap((file) =>
    readFileSync(join(lib, file), 'utf8')
      .split('\n')
      .filter((line) => !/^\s*(\*|\/\/)/.test(line))
      .flatMap((line) => (CARELESS.some((careless) => careless.test(line)) ? [`${file}: ${line.trim()}`] : [])),
  );
  expect(found.filter((line) => !isAllowed(line))).toEqual([]);
  expect(found.filter(isAllowed)).toHaveLength(ALLOWED.length);
});
