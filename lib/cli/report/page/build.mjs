import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';

const path = (name) => fileURLToPath(new URL(name, import.meta.url));

/** The page of a report without its data: markup, style and script in one file. */
export function reportPage() {
  const { outputFiles } = buildSync({
    entryPoints: [path('main.ts')],
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    target: 'es2022',
    legalComments: 'eof',
    logLevel: 'warning',
  });
  return readFileSync(path('page.html'), 'utf8')
    .replace('/*STYLE*/', () => readFileSync(path('style.css'), 'utf8'))
    .replace('/*SCRIPT*/', () => outputFiles[0].text);
}
