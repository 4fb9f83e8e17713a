import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ts from 'typescript';
import { expect, it } from 'vitest';
import { type Block, codeBlocks, ROOT } from './blocks.ts';

/** What the text around the code has introduced. */
const AROUND = `
import type { Hpte } from 'kvm-bridge/ppc64';
import type { Kvm, Vcpu, Vm } from 'kvm-bridge';
declare global {
  const kvm: Kvm;
  const vm: Vm;
  const other: Vm;
  const vcpu: Vcpu;
  const bytes: Uint8Array;
  const dump: Uint8Array;
  const gaddr: bigint;
  const file: import('node:fs/promises').FileHandle;
  const index: Map<number, Hpte | undefined>;
  const pauseTheGuest: () => Promise<void>;
  const slbOfSregs: typeof import('kvm-bridge/ppc64').slbOfSregs;
  const pipeline: typeof import('node:stream/promises').pipeline;
  const createWriteStream: typeof import('node:fs').createWriteStream;
}
`;

const MODULES = {
  'kvm-bridge': 'lib/index.ts',
  'kvm-bridge/raw': 'lib/raw.ts',
  'kvm-bridge/s390x': 'lib/arch/s390x/model/index.ts',
  'kvm-bridge/ppc64': 'lib/arch/ppc64/model/index.ts',
};

function optionsOf(language: Block['language']): ts.CompilerOptions {
  const { config } = ts.readConfigFile(join(ROOT, 'tsconfig.json'), ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, ROOT);
  const paths = Object.fromEntries(Object.entries(MODULES).map(([name, path]) => [name, [join(ROOT, path)]]));
  // JavaScript has no way to say what a caught error is.
  return { ...options, paths, noUnusedLocals: false, useUnknownInCatchVariables: language === 'ts' };
}

/** What the compiler has against pieces of code, each a module of its own. */
function complaints(blocks: readonly Block[], language: Block['language']): string[] {
  const options = optionsOf(language);
  const files = new Map([[join(ROOT, 'around.ts'), AROUND]]);
  const names = new Map<string, string>();
  for (const [i, { name, code }] of blocks.entries()) {
    const path = join(ROOT, `block-${i}.ts`);
    files.set(path, `${code}\nexport {};\n`);
    names.set(path, name);
  }
  const host = ts.createCompilerHost(options);
  const { readFile, fileExists, getSourceFile } = host;
  host.readFile = (path) => files.get(path) ?? readFile(path);
  host.fileExists = (path) => files.has(path) || fileExists(path);
  host.getSourceFile = (path, version, ...rest) => {
    const text = files.get(path);
    return text === undefined ? getSourceFile(path, version, ...rest) : ts.createSourceFile(path, text, version);
  };
  const program = ts.createProgram([...files.keys()], options, host);
  return [...files.keys()].flatMap((path) => {
    const source = program.getSourceFile(path)!;
    return [...program.getSyntacticDiagnostics(source), ...program.getSemanticDiagnostics(source)].map(
      ({ messageText }) => `${names.get(path) ?? 'around'}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`,
    );
  });
}

it('the code in README and docs compiles, strictly', { timeout: 180_000 }, () => {
  const blocks = codeBlocks();
  expect(blocks.length).toBeGreaterThan(5);
  for (const language of ['ts', 'js'] as const) {
    const of = blocks.filter((block) => block.language === language);
    expect(complaints(of, language)).toEqual([]);
  }
  const wrong = { name: 'a block', language: 'ts', code: "vcpu.reset('initial');" } as const;
  expect(complaints([wrong], 'ts')).toEqual([expect.stringContaining("a block: Property 'reset' does not exist")]);
});

it('the code in README does what its comments say', async () => {
  const [block] = codeBlocks().filter(({ name }) => name.startsWith('README.md'));
  const said = [...block!.code.matchAll(/^\/\/ → (.*)$/gm)].map(([, line]) => line);
  expect(said.length).toBeGreaterThan(0);
  const scratch = mkdtempSync(join(tmpdir(), 'kvm-bridge-readme-'));
  const path = join(scratch, 'readme.ts');
  const lines: string[] = [];
  const log = console.log;
  console.log = (...args) => lines.push(args.join(' '));
  try {
    writeFileSync(path, block!.code.replaceAll("'kvm-bridge'", `'${join(ROOT, 'lib/index.ts')}'`));
    await import(/* @vite-ignore */ path);
  } finally {
    console.log = log;
    rmSync(scratch, { recursive: true });
  }
  expect(lines).toEqual(said);
});
