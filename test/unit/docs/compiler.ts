import { join } from 'node:path';
import ts from 'typescript';
import { ROOT } from './blocks.ts';
import { MODULES } from './run-block.ts';

/** As this project is compiled, with the names by which users import it. */
export const CONFIG = ((): ts.CompilerOptions => {
  const { config } = ts.readConfigFile(join(ROOT, 'tsconfig.json'), ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, ROOT);
  const paths = Object.fromEntries(Object.entries(MODULES).map(([name, path]) => [name, [join(ROOT, path)]]));
  return { ...options, paths, noUnusedLocals: false };
})();

/** Sources of lib and of the types, which each program reads. */
const parsed = new Map<string, ts.SourceFile | undefined>();

/** A compiler's view of this project's files, of which each is parsed once, and of some that are only said to be there. */
export function hostOf(options: ts.CompilerOptions, files: ReadonlyMap<string, string> = new Map()): ts.CompilerHost {
  const host = ts.createCompilerHost(options, true);
  const { readFile, fileExists, getSourceFile } = host;
  host.readFile = (path) => files.get(path) ?? readFile(path);
  host.fileExists = (path) => files.has(path) || fileExists(path);
  host.getSourceFile = (path, version, ...rest) => {
    const text = files.get(path);
    if (text !== undefined) return ts.createSourceFile(path, text, version);
    if (!parsed.has(path)) parsed.set(path, getSourceFile(path, version, ...rest));
    return parsed.get(path);
  };
  return host;
}

/** They are hundreds of megabytes, which the collector would go through again and again in all tests that follow. */
export function forgetSources(): void {
  parsed.clear();
}
