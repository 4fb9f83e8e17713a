import { readdirSync } from 'node:fs';
import { join, relative } from 'node:path';
import ts from 'typescript';
import { type Block, ROOT } from './blocks.ts';
import { CONFIG, hostOf } from './compiler.ts';

/** What the examples in docstrings take for granted. */
export const AROUND_EXAMPLES = `
import type { AddressSpace, DirtyPages, EventFd, GuestMemory, Mapping, MemoryRegion, UnixConnection, VcpuToken } from 'kvm-bridge';
import type { Segment } from 'kvm-bridge/ppc64';
import type { KvmCalls } from 'kvm-bridge/raw';
declare global {
  const calls: KvmCalls;
  const uart: { write(offset: number, value: number | bigint): void };
  const save: (registers: object) => void;
  const send: (...what: readonly unknown[]) => void;
  const serve: (connection: UnixConnection) => void;
  const dirty: DirtyPages;
  const eventfd: EventFd;
  const kick: EventFd;
  const call: EventFd;
  const ram: Mapping;
  const shadow: Mapping;
  const rom: MemoryRegion;
  const space: AddressSpace;
  const memory: GuestMemory;
  const sector: Uint8Array;
  const slb: readonly Segment[];
  const stopAllVcpus: () => Promise<void>;
  const pauseGuest: () => Promise<void>;
  const workerData: VcpuToken;
  const SEGMENT_TABLE: bigint;
}
`;

/** What somebody imports who uses a name that a file exports, by that name. */
function importsOf(files: readonly string[]): ReadonlyMap<string, string> {
  const program = ts.createProgram([...files], CONFIG, hostOf(CONFIG));
  const checker = program.getTypeChecker();
  const isValue = (symbol: ts.Symbol): boolean => {
    const meant = (symbol.flags & ts.SymbolFlags.Alias) === 0 ? symbol : checker.getAliasedSymbol(symbol);
    return (meant.flags & ts.SymbolFlags.Value) !== 0;
  };
  const imports = files.flatMap((file) => {
    const from = `./${relative(ROOT, file)}`;
    return checker
      .getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(file)!)!)
      .map((each) => [each.name, `import ${isValue(each) ? '' : 'type '}{ ${each.name} } from '${from}';\n`] as const);
  });
  return new Map(imports);
}

/**
 * The code of every @example in lib, after the imports of what it names.
 * @param faces from which names are imported
 */
export function examples(faces: readonly string[]): readonly Block[] {
  const lib = readdirSync(join(ROOT, 'lib'), { recursive: true, encoding: 'utf8' }).filter((f) => f.endsWith('.ts'));
  const imports = importsOf(faces.map((face) => join(ROOT, face)));
  const host = hostOf(CONFIG);
  return lib.flatMap((file) => {
    const source = host.getSourceFile(join(ROOT, 'lib', file), ts.ScriptTarget.Latest)!;
    return examplesOf(source).map(({ code, line }): Block => {
      const names = code.includes('import ') ? [] : new Set(code.match(/\b[A-Za-z_]\w*\b/g));
      const needed = [...names]
        .filter((name) => !new RegExp(`\\b(const|function\\*?) ${name}\\b`).test(code))
        .map((name) => imports.get(name) ?? '');
      return { name: `lib/${file}:${line}`, language: 'ts', code: `${needed.join('')}${code}` };
    });
  });
}

function examplesOf(source: ts.SourceFile): { code: string; line: number }[] {
  const found: { code: string; line: number }[] = [];
  const visit = (node: ts.Node): void => {
    for (const tag of ts.getJSDocTags(node)) {
      if (tag.tagName.text !== 'example' || tag.parent.parent !== node) continue;
      const { line } = source.getLineAndCharacterOfPosition(tag.pos);
      found.push({ code: ts.getTextOfJSDocComment(tag.comment) ?? '', line: line + 1 });
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}
