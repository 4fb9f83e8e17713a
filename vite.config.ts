import { defineConfig } from 'vite';

/** What users import. */
const MODULES = {
  index: 'lib/index.ts',
  raw: 'lib/raw.ts',
  's390x/index': 'lib/arch/s390x/model/index.ts',
  'ppc64/index': 'lib/arch/ppc64/model/index.ts',
  'vhost-user/index': 'lib/vhost-user/index.ts',
};

/**
 * The published modules: few files, since Node takes a millisecond to find and link each. `--mode cjs` makes the same for
 * `require`, without the command line. build.mjs adds the types.
 */
export default defineConfig(({ mode }) => ({
  build: {
    ssr: true,
    target: 'es2023',
    outDir: mode === 'cjs' ? 'dist/cjs' : 'dist',
    emptyOutDir: true,
    minify: false,
    sourcemap: true,
    rollupOptions: {
      // What modules share goes into chunks, and not into the names that users see.
      preserveEntrySignatures: 'strict',
      input:
        mode === 'cjs'
          ? MODULES
          : {
              ...MODULES,
              'cli/main': 'lib/cli/main.ts',
              'cli/script-hooks': 'lib/cli/run/script-hooks.ts',
              'lab/agent': 'lib/lab/guest/agent.ts',
              'lab/vitest': 'lib/lab/guest/vitest/api.ts',
              'lab/run-vitest': 'lib/lab/guest/vitest/run.ts',
            },
      output: {
        format: mode === 'cjs' ? 'cjs' : 'es',
        entryFileNames: '[name].js',
        chunkFileNames: 'chunks/[name].js',
        // The sources are in the package.
        sourcemapExcludeSources: true,
      },
    },
  },
}));
