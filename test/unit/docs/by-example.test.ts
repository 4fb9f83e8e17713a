import { join } from 'node:path';
import ts from 'typescript';
import { expect, it } from 'vitest';
import { exampleOfFunction, exampleOfMethod } from '../../../api-examples.mjs';
import { ROOT } from './blocks.ts';
import { MODULES } from './run-block.ts';

/** What users can call, and the line that shows it. */
interface Callable {
  readonly name: string;
  readonly example: string | undefined;
}

const faces = Object.values(MODULES).map((face) => join(ROOT, face));
const program = ts.createProgram(faces, {
  allowImportingTsExtensions: true,
  noEmit: true,
  module: ts.ModuleKind.NodeNext,
  target: ts.ScriptTarget.ES2022,
});
const checker = program.getTypeChecker();

const has = (symbol: ts.Symbol, tag: string): boolean => symbol.getJsDocTags(checker).some(({ name }) => name === tag);

/** What users can call of what the package exports, and has no @example of its own. */
function callables(): Callable[] {
  return Object.entries(MODULES).flatMap(([module, face]) =>
    checker.getExportsOfModule(moduleOf(join(ROOT, face))).flatMap((exported) => {
      const symbol = meant(exported);
      // Groups of flat calls are interfaces.
      const isGroup = (symbol.flags & ts.SymbolFlags.Interface) !== 0 && symbol.name.endsWith('Calls');
      if ((symbol.flags & ts.SymbolFlags.Class) !== 0 || isGroup) return methodsOf(symbol);
      const { name } = symbol;
      return isFunction(symbol) ? [{ name: `${name} of ${module}`, example: exampleOfFunction(module, name) }] : [];
    }),
  );
}

function isFunction(symbol: ts.Symbol): boolean {
  const isValue = (symbol.flags & (ts.SymbolFlags.Function | ts.SymbolFlags.Variable)) !== 0;
  return isValue && checker.getTypeOfSymbol(symbol).getCallSignatures().length > 0 && !has(symbol, 'example');
}

const moduleOf = (face: string): ts.Symbol => checker.getSymbolAtLocation(program.getSourceFile(face)!)!;

const meant = (symbol: ts.Symbol): ts.Symbol =>
  (symbol.flags & ts.SymbolFlags.Alias) === 0 ? symbol : checker.getAliasedSymbol(symbol);

const HIDDEN = ts.ModifierFlags.Private | ts.ModifierFlags.Protected;

function methodsOf(symbol: ts.Symbol): Callable[] {
  const type = checker.getDeclaredTypeOfSymbol(symbol);
  const members = [...type.getProperties(), ...checker.getPropertiesOfType(checker.getTypeOfSymbol(symbol))];
  const classes = lineage(type as ts.InterfaceType);
  return members
    .filter((member) => {
      const [declared] = member.declarations ?? [];
      return (
        declared?.getSourceFile().fileName.startsWith(join(ROOT, 'lib')) === true &&
        (member.flags & ts.SymbolFlags.Method) !== 0 &&
        (ts.getCombinedModifierFlags(declared) & HIDDEN) === 0 &&
        // Symbol.dispose, toString and the like are called by the language.
        !/^__|^toString$|#/.test(member.name) &&
        !['internal', 'example'].some((tag) => has(member, tag))
      );
    })
    .map(({ name }) => ({ name: `${classes[0]}.${name}`, example: exampleOfMethod(classes, name) }));
}

function lineage(type: ts.InterfaceType): string[] {
  return [type.symbol.name, ...checker.getBaseTypes(type).flatMap((base) => lineage(base as ts.InterfaceType))];
}

it('everything that users can call has an example', () => {
  const all = callables();
  expect(all.length).toBeGreaterThan(400);
  expect(all.filter(({ example }) => example === undefined).map(({ name }) => name)).toEqual([]);
});

it('an example is of the class itself, or of what it inherits from; of a function, of its own module', () => {
  expect(exampleOfMethod(['HtabReader'], 'next')).toContain('reader.next()');
  expect(exampleOfMethod(['HtabReader'], 'readU32')).toBeUndefined();
  expect(exampleOfMethod(['AddressSpace', 'RegionSet', 'GuestMemory'], 'readU32')).toContain('memory.readU32(');
  expect(exampleOfFunction('kvm-bridge/s390x', 'translate')).toContain('translate(cpu, memory');
  expect(exampleOfFunction('kvm-bridge/ppc64', 'translate')).toContain('translate(table, [segment]');
});
