import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

/** What is called by a name that stands nowhere in this project. */
const CALLED_BY_NODE = ['initialize'];

const filesOf = (folder: string): string[] =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((file) => /\.(ts|mjs)$/.test(file))
    .map((file) => join(folder, file));

const isDeclaration = (node: ts.Node): node is ts.NamedDeclaration =>
  ts.isFunctionDeclaration(node) ||
  ts.isClassDeclaration(node) ||
  ts.isVariableDeclaration(node) ||
  ts.isInterfaceDeclaration(node) ||
  ts.isTypeAliasDeclaration(node) ||
  ts.isClassElement(node) ||
  ts.isTypeElement(node);

it('nothing in lib has a name that stands nowhere else', { timeout: 60_000 }, () => {
  const mentions = new Map<string, number>();
  const declared: { name: string; file: string }[] = [];
  for (const file of ['lib', 'test', 'examples'].flatMap(filesOf)) {
    const visit = (node: ts.Node): void => {
      const isName = ts.isIdentifier(node) || ts.isPrivateIdentifier(node) || ts.isStringLiteralLike(node);
      if (isName) mentions.set(node.text, (mentions.get(node.text) ?? 0) + 1);
      const name = file.startsWith('lib/') && isDeclaration(node) ? node.name : undefined;
      if (name !== undefined && (ts.isIdentifier(name) || ts.isPrivateIdentifier(name))) {
        declared.push({ name: name.text, file });
      }
      ts.forEachChild(node, visit);
    };
    visit(ts.createSourceFile(file, readFileSync(join(ROOT, file), 'utf8'), ts.ScriptTarget.Latest));
  }
  expect(declared.length).toBeGreaterThan(5000);
  const unused = declared.filter(({ name }) => mentions.get(name) === 1 && !CALLED_BY_NODE.includes(name));
  expect(unused).toEqual([]);
});
