import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { build, transform } from 'esbuild';

const OPTIONS = { target: 'es2023', sourcemap: 'inline' };

/** A program of the tests with all that it imports, as one module: hundreds of files take a second to find and load. */
async function bundled(path) {
  const options = { ...OPTIONS, format: 'esm', platform: 'node', packages: 'external', logLevel: 'error' };
  const { outputFiles } = await build({ ...options, entryPoints: [path], bundle: true, write: false });
  return outputFiles[0].text;
}

async function transformed(path) {
  return (await transform(await readFile(path, 'utf8'), { ...OPTIONS, loader: 'ts', sourcefile: path })).code;
}

/** @type {import('node:module').LoadHook} */
export async function load(url, context, nextLoad) {
  if (!url.endsWith('.ts')) return nextLoad(url, context);
  const path = fileURLToPath(url);
  // What programs in text import must be the same modules in all that they import.
  const isProgram = path.includes('/test/');
  return { format: 'module', source: await (isProgram ? bundled(path) : transformed(path)), shortCircuit: true };
}
