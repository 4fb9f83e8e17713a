import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const below = (folder: string, end: string): string[] =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith(end));

/** Folders of lib that have no tests of their own, and what holds them. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  '.': 'index.ts and raw.ts, entry points: handles/surface.test.ts',
  'arch/aarch64/emulated': 'a table of facts, and recordings: scenarios/',
  'arch/riscv64': 'rules, which recordings hold: scenarios/',
  'arch/riscv64/emulated': 'a table of facts, and recordings: scenarios/',
  'arch/x86_64': 'rules, which recordings hold: scenarios/',
  'arch/x86_64/emulated': 'recordings: scenarios/',
  'arch/x86_64/handles': 'handles/vcpu.test.ts, on every backend there is',
  'arch/ppc64': 'rules, which recordings hold: scenarios/, and their sentences: docs/errors.test.ts',
  'arch/s390x': 'rules, which recordings hold: scenarios/, and their sentences: docs/errors.test.ts',
  'lab/guest': 'what runs inside a machine: test/package, and npm run lab',
  'cli/arch': 'cli/tour.test.ts and cli/prompt-commands.test.ts',
  'cli/report/page': 'test/package/report.test.ts, in Chromium',
  'cli/run': 'cli/built.test.ts, in a process of its own',
  'vhost-user/back-end': 'npm run prove, with a real QEMU at the other end',
  'vhost-user/front-end': 'vhost-user/malicious-back-end.test.ts, and npm run prove with a real qemu-storage-daemon',
  rules: 'recordings: scenarios/, and their sentences: docs/errors.test.ts',
};

/** Folders of test/unit that are of no folder of lib. */
const OF_NO_FOLDER = ['bench', 'docs', 'house', 'native', 'package', 'scenarios'];

const testFolders = new Set(below('test/unit', '.test.ts').map(dirname));
const libFolders = new Set(below('lib', '.ts').map(dirname));

/** In the mirrored folder, or in one file of the folder's name. */
const hasTests = (folder: string): boolean =>
  testFolders.has(folder) || existsSync(join(ROOT, `test/unit/${folder}.test.ts`));

it('every folder of lib has its tests at the same place below test/unit, but for those that say where', () => {
  expect([...libFolders].filter((folder) => !hasTests(folder)).sort()).toEqual(Object.keys(ELSEWHERE).sort());
});

it('every folder of tests is that of a folder of lib', () => {
  const strays = [...testFolders].filter((folder) => !libFolders.has(folder) && !OF_NO_FOLDER.includes(folder));
  expect(strays).toEqual([]);
});
