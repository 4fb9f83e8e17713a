import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ts from 'typescript';
import { afterAll, expect, it } from 'vitest';
import { loadNative } from '../../../lib/backends/native.ts';
import { around } from './around.ts';
import { type Block, codeBlocks, ROOT, WITH_PEERS } from './blocks.ts';
import { CONFIG, forgetSources, hostOf } from './compiler.ts';
import { AROUND_EXAMPLES, examples } from './examples.ts';
import { MODULES, runBlock } from './run-block.ts';

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

/** What the compiler has against pieces of code, each a module of its own. */
function complaints(blocks: readonly Block[], options: ts.CompilerOptions): string[] {
  const files = new Map([
    [join(ROOT, 'around.ts'), AROUND],
    [join(ROOT, 'around-examples.ts'), AROUND_EXAMPLES],
  ]);
  const names = new Map<string, string>();
  for (const [i, { code, name }] of blocks.entries()) {
    const path = join(ROOT, `block-${i}.ts`);
    files.set(path, `${code}\nexport {};\n`);
    names.set(path, name);
  }
  const program = ts.createProgram([...files.keys()], options, hostOf(options, files));
  return [...files.keys()].flatMap((path) => {
    const source = program.getSourceFile(path)!;
    return [...program.getSyntacticDiagnostics(source), ...program.getSemanticDiagnostics(source)].map(
      ({ messageText }) => `${names.get(path) ?? 'around'}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`,
    );
  });
}

afterAll(forgetSources);

it('the code in README, docs and docstrings compiles, strictly', { timeout: 180_000 }, () => {
  const inDocstrings = examples(Object.values(MODULES));
  expect(inDocstrings.length).toBeGreaterThan(40);
  const wrong: Block = { name: 'a wrong block', language: 'ts', code: "vcpu.reset('initial');" };
  const blocks = [...codeBlocks(), ...inDocstrings, wrong];
  expect(
    complaints(
      blocks.filter(({ language }) => language !== 'js'),
      CONFIG,
    ),
  ).toEqual([expect.stringContaining("a wrong block: Property 'reset' does not exist")]);
  // JavaScript has no way to say what a caught error is.
  const inJavaScript = { ...CONFIG, useUnknownInCatchVariables: false };
  expect(
    complaints(
      blocks.filter(({ language }) => language === 'js'),
      inJavaScript,
    ),
  ).toEqual([]);
});

/** Descriptors are handed on by the addon alone. */
const NEEDS_ADDON = /^docs\/(by-example-)?sharing\.md/;
const hasAddon = 'calls' in loadNative();
const scratch = mkdtempSync(join(tmpdir(), 'kvm-bridge-docs-'));
afterAll(() => rmSync(scratch, { recursive: true }));

it.each(codeBlocks().filter(({ name }) => !WITH_PEERS.test(name) && (hasAddon || !NEEDS_ADDON.test(name))))(
  'the code at $name runs, and prints what its comments say',
  async (block) => {
    const said = [...block.code.matchAll(/^\/\/ → (.*)$/gm)].map(([, line]) => line);
    using surroundings = around(block, scratch);
    const lines = await runBlock(block, { scratch, globals: surroundings, instead: { '/run/': `${scratch}/` } });
    if (said.length > 0) expect(lines).toEqual(said);
    // What stands in functions is compiled alone: the text leaves to the reader who calls them.
    expect(lines.length > 0).toBe(/^(for \(.*\) )?console\.log/m.test(block.code));
  },
);
