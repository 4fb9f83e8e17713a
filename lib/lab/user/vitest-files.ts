import * as nodeModule from 'node:module';
import type { Entry } from '../cpio.ts';
import { LabError } from '../lab-error.ts';
import { findPackage, packageEntries } from '../node-packages.ts';

const PARTS = ['@vitest/runner', '@vitest/expect', '@vitest/spy'];

const text = (path: string, content: string): Entry => ({ path, kind: 'file', content: Buffer.from(content) });

/** Whether a script is a file of vitest's tests: it imports from there. */
export const isVitestFile = (source: string): boolean => /\bfrom\s*['"]vitest['"]/.test(source);

/**
 * What 'vitest' is in a guest, with paths from the project's root: the user's own runner, matchers and spies, without vitest's command line, workers
 * and bundler, which have no place (and some of them no binaries) there.
 *
 * @throws LabError if it isn't installed
 */
export async function vitestEntries(root: string): Promise<Entry[]> {
  const vitest = await findPackage('vitest', root);
  if (vitest === undefined)
    throw new LabError(`The script imports vitest, which is not installed in ${root} or above it.`);
  return [
    ...(await packageEntries(PARTS, vitest)),
    text('node_modules/vitest/package.json', '{ "type": "module", "exports": "./index.js" }'),
    text('node_modules/vitest/index.js', "export * from '../kvm-bridge/dist/lab/vitest.js';\n"),
  ];
}

/** TypeScript without its types, every token where it was. @throws LabError where this Node cannot do that */
export function withoutTypes(entry: Entry): Entry {
  if (entry.kind !== 'file' || !/(?<!\.d)\.m?ts$/.test(entry.path)) return entry;
  const strip: unknown = Reflect.get(nodeModule, 'stripTypeScriptTypes');
  if (typeof strip !== 'function') {
    throw new LabError(`${entry.path} is TypeScript: Node ${process.version} takes no types away; 22.13 and later do.`);
  }
  try {
    return { ...entry, content: Buffer.from(String(strip(Buffer.from(entry.content).toString()))) };
  } catch (error) {
    throw new LabError(`${entry.path}: ${error instanceof Error ? error.message : error}`);
  }
}
