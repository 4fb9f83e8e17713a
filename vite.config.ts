import { defineConfig } from 'vite';

/** The published modules: few files, since Node takes a millisecond to find and link each. tsc adds their types. */
export default defineConfig({
  build: {
    ssr: true,
    target: 'es2023',
    outDir: 'dist',
    emptyOutDir: true,
    minify: false,
    sourcemap: true,
    rollupOptions: {
      input: {
        index: 'lib/index.ts',
        raw: 'lib/raw.ts',
        's390x/index': 'lib/arch/s390x/model/index.ts',
        'ppc64/index': 'lib/arch/ppc64/model/index.ts',
        'cli/main': 'lib/cli/main.ts',
      },
      output: { format: 'es', entryFileNames: '[name].js', chunkFileNames: 'chunks/[name].js' },
    },
  },
});
