import { basename, dirname, join } from 'node:path';
import ts from 'typescript';
import { defineConfig, type Plugin } from 'vite';

/** What users import. */
const MODULES = {
  index: 'lib/index.ts',
  raw: 'lib/raw.ts',
  's390x/index': 'lib/arch/s390x/model/index.ts',
  'ppc64/index': 'lib/arch/ppc64/model/index.ts',
  'vhost-user/index': 'lib/vhost-user/index.ts',
};

/** What else is started or loaded by its file. */
const PROGRAMS = {
  'cli/main': 'lib/cli/main.ts',
  'cli/script-hooks': 'lib/cli/run/script-hooks.ts',
  'lab/agent': 'lib/lab/guest/agent.ts',
  'lab/vitest': 'lib/lab/guest/vitest/api.ts',
  'lab/run-vitest': 'lib/lab/guest/vitest/run.ts',
};

/** What `npm run bench` runs: the benchmarks, and what they start in another thread or process. */
const BENCHMARKS = {
  main: 'test/bench/main.ts',
  'exits-worker': 'test/bench/exits-worker.ts',
  'doorbell-peer': 'test/bench/doorbell-peer.ts',
  'slot-bytes': 'test/bench/slot-bytes.ts',
};

/** Their names by their files. */
const ENTRIES = new Map(
  Object.entries(MODULES).map(([name, path]) => [join(import.meta.dirname, path), name.replace('/index', '')]),
);

type ModuleOf = (id: string) => { readonly isEntry: boolean; readonly importers: readonly string[] } | null;

/** Which of what users import needs a module: those with the same answer are one file. None where only the command line or a lab does. */
function usersOf(id: string, moduleOf: ModuleOf): string[] {
  const seen = new Set([id]);
  for (const each of seen) for (const importer of moduleOf(each)?.importers ?? []) seen.add(importer);
  return [...seen].flatMap((each) => ENTRIES.get(each) ?? []).sort();
}

/**
 * V8 reads every letter before a program starts, and those of a module with a single one beyond ASCII as two bytes each. What
 * comments say stands in the types and in the sources, both of which are in the package.
 */
const withoutComments: Plugin = {
  name: 'without-comments',
  renderChunk(code) {
    const compilerOptions = { target: ts.ScriptTarget.ESNext, removeComments: true, sourceMap: true };
    const { outputText, sourceMapText } = ts.transpileModule(code, { compilerOptions });
    return { code: outputText.replace(/^\/\/# sourceMappingURL=.*\n?/m, ''), map: sourceMapText ?? null };
  },
};

/**
 * The published modules: few files, since Node takes a millisecond to find and link each. `--mode cjs` makes the same for
 * `require`, without the command line. build.mjs adds the types. `--mode bench` makes the benchmarks in out/bench, so that what is measured is
 * put together as what is published: an import from another file is looked up in every turn of a loop.
 */
export default defineConfig(({ mode }) => ({
  plugins: [withoutComments],
  esbuild: { charset: 'ascii' },
  build: {
    ssr: true,
    target: 'es2023',
    outDir: { cjs: 'dist/cjs', bench: 'out/bench' }[mode] ?? 'dist',
    emptyOutDir: true,
    minify: false,
    sourcemap: true,
    rollupOptions: {
      // What modules share goes into chunks, and not into the names that users see.
      preserveEntrySignatures: 'strict',
      input: { cjs: MODULES, bench: BENCHMARKS }[mode] ?? { ...MODULES, ...PROGRAMS },
      output: {
        format: mode === 'cjs' ? 'cjs' : 'es',
        entryFileNames: '[name].js',
        // A command's folder is its name.
        chunkFileNames: ({ name, facadeModuleId }) =>
          `chunks/${name === 'index' && facadeModuleId ? basename(dirname(facadeModuleId)) : '[name]'}.js`,
        // Without this the command line, whose commands are loaded when they are used, would cut the library in smaller pieces.
        manualChunks: (id, { getModuleInfo }) => {
          if (getModuleInfo(id)?.isEntry !== false) return undefined;
          if (mode === 'bench') return id.includes('/test/') ? undefined : 'kvm-bridge';
          const users = usersOf(id, getModuleInfo);
          return users.length === 0 ? undefined : users.join('-');
        },
        // The sources are in the package.
        sourcemapExcludeSources: true,
      },
    },
  },
}));
