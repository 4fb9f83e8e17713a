import { readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const FACES = ['index.ts', 'raw.ts', 'arch/s390x/model/index.ts', 'arch/ppc64/model/index.ts', 'vhost-user/index.ts'];

/** The same of each architecture, and of no other. */
const OF_EACH_ARCHITECTURE = ['explainTranslation', 'translate', 'TranslateOptions'];

const known = new Map<string, ReadonlyMap<string, string>>();

/** What a file of lib exports: by name, where that is declared. */
function exportsOf(file: string): ReadonlyMap<string, string> {
  const before = known.get(file);
  if (before !== undefined) return before;
  const found = new Map<string, string>();
  known.set(file, found);
  const source = ts.createSourceFile(file, readFileSync(join(ROOT, 'lib', file), 'utf8'), ts.ScriptTarget.Latest, true);
  for (const statement of source.statements) {
    if (ts.isExportDeclaration(statement) && statement.moduleSpecifier !== undefined) {
      const from = (statement.moduleSpecifier as ts.StringLiteral).text;
      const theirs = exportsOf(normalize(join(dirname(file), from)));
      if (statement.exportClause === undefined) for (const [name, place] of theirs) found.set(name, place);
      else if (ts.isNamedExports(statement.exportClause)) {
        for (const { name, propertyName } of statement.exportClause.elements) {
          const place = theirs.get((propertyName ?? name).text);
          if (place === undefined) throw new Error(`${file} exports ${name.text}, which ${from} does not have`);
          found.set(name.text, place);
        }
      }
    } else if (
      ts.canHaveModifiers(statement) &&
      statement.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)
    ) {
      const declared = ts.isVariableStatement(statement) ? statement.declarationList.declarations : [statement];
      for (const { name } of declared as readonly ts.NamedDeclaration[]) {
        if (name !== undefined && ts.isIdentifier(name)) found.set(name.text, `${file} ${name.text}`);
      }
    }
  }
  return found;
}

it('no two public things have one name', () => {
  const places = new Map<string, Set<string>>();
  for (const [name, place] of FACES.flatMap((face) => [...exportsOf(face)])) {
    places.set(name, (places.get(name) ?? new Set()).add(place));
  }
  expect(places.size).toBeGreaterThan(200);
  const several = [...places].filter(([, declared]) => declared.size > 1).map(([name]) => name);
  expect(several.sort()).toEqual(OF_EACH_ARCHITECTURE.sort());
});
