import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const LIB = fileURLToPath(new URL('../../../lib', import.meta.url));
const FACES = ['index.ts', 'raw.ts', 'arch/s390x/model/index.ts', 'arch/ppc64/model/index.ts', 'vhost-user/index.ts'];

type Declared = ts.ClassDeclaration | ts.InterfaceDeclaration | ts.TypeAliasDeclaration;

const isDeclared = (node: ts.Node): node is Declared =>
  ts.isClassDeclaration(node) || ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node);

function parsed(file: string): ts.SourceFile {
  return ts.createSourceFile(file, readFileSync(join(LIB, file), 'utf8'), ts.ScriptTarget.Latest, true);
}

/** Classes, interfaces and types of lib, by name. */
function declarations(): ReadonlyMap<string, readonly Declared[]> {
  const found = new Map<string, Declared[]>();
  for (const file of readdirSync(LIB, { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.ts') || file.startsWith('cli/') || file.startsWith('lab/')) continue;
    for (const statement of parsed(file).statements) {
      if (!isDeclared(statement) || statement.name === undefined) continue;
      found.set(statement.name.text, [...(found.get(statement.name.text) ?? []), statement]);
    }
  }
  return found;
}

/** The names that the entries of the package export, as values or as types. */
function exportedNames(): string[] {
  return FACES.flatMap((face) =>
    parsed(face).statements.flatMap((statement) =>
      ts.isExportDeclaration(statement) &&
      statement.exportClause !== undefined &&
      ts.isNamedExports(statement.exportClause)
        ? statement.exportClause.elements.map(({ name, propertyName }) => (propertyName ?? name).text)
        : [],
    ),
  );
}

const HIDDEN = [ts.SyntaxKind.PrivateKeyword, ts.SyntaxKind.ProtectedKeyword];

const isHidden = (member: ts.Node): boolean =>
  (ts.canHaveModifiers(member) && member.modifiers?.some(({ kind }) => HIDDEN.includes(kind)) === true) ||
  ((member as ts.ClassElement).name !== undefined && ts.isPrivateIdentifier((member as ts.ClassElement).name!)) ||
  ts.getJSDocTags(member).some(({ tagName }) => tagName.text === 'internal');

/** The names in the types of what a user gets from a declaration: its properties, and what its methods return. */
function namesGiven(declared: Declared): string[] {
  const names: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isParameter(node)) return;
    if (ts.isTypeReferenceNode(node) && ts.isIdentifier(node.typeName)) names.push(node.typeName.text);
    ts.forEachChild(node, visit);
  };
  if (ts.isTypeAliasDeclaration(declared)) visit(declared.type);
  else {
    for (const { types } of declared.heritageClauses ?? []) {
      for (const { expression } of types) if (ts.isIdentifier(expression)) names.push(expression.text);
    }
    for (const member of declared.members) {
      const { type } = member as { type?: ts.TypeNode };
      if (type !== undefined && !isHidden(member)) visit(type);
    }
  }
  return names;
}

/** Names of the classes that a user can have an object of: those that are exported, and those that these give. */
export function publicClasses(): ReadonlySet<string> {
  const all = declarations();
  const seen = new Set<string>();
  const open = exportedNames();
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    if (seen.has(name)) continue;
    seen.add(name);
    for (const declared of all.get(name) ?? []) open.push(...namesGiven(declared));
  }
  return new Set([...seen].filter((name) => all.get(name)?.some(ts.isClassDeclaration)));
}
