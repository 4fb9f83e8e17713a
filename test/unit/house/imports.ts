import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import ts from 'typescript';

/** Which files each file imports, types included, by path from the root. */
export type Imports = ReadonlyMap<string, readonly string[]>;

function compilerOptions(root: string): ts.CompilerOptions {
  const path = join(root, 'tsconfig.json');
  const { config, error } = ts.readConfigFile(path, ts.sys.readFile);
  if (error !== undefined) throw new Error(ts.flattenDiagnosticMessageText(error.messageText, '\n'));
  return ts.parseJsonConfigFileContent(config, ts.sys, dirname(path)).options;
}

/** The imports of every TypeScript file in a folder, as the compiler finds and resolves them. Packages are left out. */
export function importsIn(root: string, folder: string): Imports {
  const options = compilerOptions(root);
  const files = readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).filter((f) => f.endsWith('.ts'));
  return new Map(
    files.sort().map((file) => {
      const path = join(root, folder, file);
      const { importedFiles } = ts.preProcessFile(readFileSync(path, 'utf8'), true, true);
      const targets = importedFiles.flatMap(({ fileName }) => {
        const { resolvedModule } = ts.resolveModuleName(fileName, path, options, ts.sys);
        if (resolvedModule === undefined && fileName.startsWith('.')) throw new Error(`${path} imports ${fileName}: ?`);
        return resolvedModule === undefined || resolvedModule.isExternalLibraryImport === true
          ? []
          : [relative(root, resolvedModule.resolvedFileName)];
      });
      return [join(folder, file), targets] as const;
    }),
  );
}

/** The circles: sets of files each of which imports all the others, directly or not. */
export function circlesOf(imports: Imports): readonly (readonly string[])[] {
  const order = new Map<string, number>();
  const lowest = new Map<string, number>();
  const path: string[] = [];
  const circles: string[][] = [];
  const visit = (file: string): number => {
    const at = order.size;
    order.set(file, at);
    let low = at;
    path.push(file);
    for (const target of imports.get(file) ?? []) {
      if (!order.has(target)) low = Math.min(low, visit(target));
      else if (path.includes(target)) low = Math.min(low, lowest.get(target) ?? order.get(target)!);
    }
    lowest.set(file, low);
    if (low === at) {
      const circle = path.splice(path.indexOf(file));
      if (circle.length > 1 || imports.get(file)?.includes(file) === true) circles.push(circle.sort());
    }
    return low;
  };
  for (const file of imports.keys()) if (!order.has(file)) visit(file);
  return circles;
}
