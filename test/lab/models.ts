import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import ts from 'typescript';
import { type Entry, readTree } from '../../lib/lab/cpio.ts';
import { LabError } from '../../lib/lab/lab-error.ts';
import { packageEntries } from '../../lib/lab/node-packages.ts';
import { PROJECT_ROOT } from '../../lib/lab/project.ts';
import type { Variant } from '../../lib/lab/variants.ts';
import type { LabOptions } from '../../lib/lab/with-machine.ts';
import type { ModelResult } from './guest/run-models.ts';
import { runInLab } from './run-in-lab.ts';

/*
 * The unit and property tests of the architecture models, run by the guest's Node: the one of s390x is big-endian.
 */

/** Tests of nothing but the models and the emulated kernel, which need no addon and no other program. */
const FOLDERS = ['test/unit/arch', 'test/property'];

const LEFT_OUT = [
  // Bundles its worker with vite, which needs binaries that there are not for every architecture.
  'test/unit/arch/s390x/emulated/ipte-threads.test.ts',
  // Is about the typed layer on all architectures, and takes more memory than is left in the end.
  'test/property/dirty-pages.test.ts',
  // Has other threads and processes, which one emulated processor gets nowhere with.
  'test/property/sharing.test.ts',
  // Wants its thousands of runs, for which there is no time.
  'test/property/ppc64-htab-stream.test.ts',
];

/** What test files import beside Node's own modules, with the runner behind our stand-in for vitest. */
const PACKAGES = ['fast-check', '@vitest/runner', '@vitest/expect', '@vitest/spy'];

const TIMEOUT_MS = 30 * 60_000;

/**
 * Runs the model tests in the lab; of files, where some are named, those whose paths begin so. Throws a LabError if one fails, or if there are
 * none.
 */
export async function runModelTests(
  variant: Variant,
  options: LabOptions,
  only: readonly string[],
): Promise<ModelResult> {
  const isWanted = (path: string) => only.length === 0 || only.some((beginning) => path.startsWith(beginning));
  const sources = (await Promise.all(FOLDERS.map((folder) => testsIn(folder)))).flat().filter(isWanted);
  if (sources.length === 0) throw new LabError(`No file of tests begins with ${only.join(' or ')}.`);
  const compiled = await Promise.all((await withImports(sources)).map(compile));
  const captures = await readTree(join(PROJECT_ROOT, 'test/captures'), (path) => !path.endsWith('.ts'));
  const result = (await runInLab(variant, {
    ...options,
    script: 'test/lab/guest/run-models.js',
    args: compiled.flatMap(({ path }) => (path.endsWith('.test.js') ? [path.replace(/^out\//, '')] : [])),
    timeoutMs: TIMEOUT_MS,
    entries: [
      ...compiled,
      // Tests find them beside their own folder, which is inside `out` there.
      ...captures.map((entry) => ({ ...entry, path: `out/test/captures/${entry.path}` })),
      ...(await packageEntries(PACKAGES, PROJECT_ROOT)),
      file('node_modules/vitest/package.json', '{ "type": "module", "exports": "./index.js" }'),
      file('node_modules/vitest/index.js', "export * from '../../out/lib/lab/guest/vitest/api.js';"),
    ],
  })) as unknown as ModelResult;
  const empty = result.files.filter(({ passed, failures }) => passed + failures.length === 0);
  if (empty.length > 0 || result.files.length === 0) {
    throw new LabError(`No test ran in ${empty.map((each) => each.file).join(', ') || 'the guest'}.`);
  }
  return result;
}

async function testsIn(folder: string): Promise<string[]> {
  const found = await readTree(join(PROJECT_ROOT, folder), (path) => path.endsWith('.test.ts'));
  return found.map(({ path }) => `${folder}/${path}`).filter((path) => !LEFT_OUT.includes(path));
}

/** And what they import of other folders that are not compiled (tsconfig.out.json). */
async function withImports(sources: readonly string[]): Promise<string[]> {
  const all = new Set(sources);
  for (const path of all) {
    const { importedFiles } = ts.preProcessFile(await readFile(join(PROJECT_ROOT, path), 'utf8'));
    for (const { fileName } of importedFiles) {
      const target = join(dirname(path), fileName);
      if (fileName.startsWith('.') && /^test\/(unit|property)\//.test(target)) all.add(target);
    }
  }
  return [...all];
}

/** Only takes the types away; `npm run types` has checked them. */
async function compile(path: string): Promise<Entry> {
  const { outputText } = ts.transpileModule(await readFile(join(PROJECT_ROOT, path), 'utf8'), {
    fileName: path,
    compilerOptions: {
      module: ts.ModuleKind.ESNext,
      target: ts.ScriptTarget.ES2023,
      rewriteRelativeImportExtensions: true,
      verbatimModuleSyntax: true,
    },
  });
  return file(`out/${path.replace(/\.ts$/, '.js')}`, outputText);
}

function file(path: string, content: string): Entry {
  return { path, kind: 'file', content: Buffer.from(content) };
}

/** The result as a table: file, tests, time. */
export function modelTable({ arch, endianness, node, files }: ModelResult): string {
  const width = Math.max(...files.map((each) => each.file.length));
  const rows = files.map(({ file, passed, failures, ms }) => {
    const verdict = failures.length === 0 ? 'all passed' : `${failures.length} failed`;
    return `${file.padEnd(width)}  ${String(passed + failures.length).padStart(5)}  ${`${ms} ms`.padStart(10)}  ${verdict}`;
  });
  const failures = files.flatMap((each) => each.failures.map((failure) => `${each.file}: ${failure}`));
  const tests = files.reduce((sum, each) => sum + each.passed + each.failures.length, 0);
  return [
    `${'file'.padEnd(width)}  tests        time`,
    ...rows,
    ...failures,
    `${tests} tests in ${files.length} files on ${arch} (${endianness === 'BE' ? 'big' : 'little'}-endian), Node ${node}: ` +
      (failures.length === 0 ? 'all passed' : `${failures.length} failed`),
  ].join('\n');
}
