import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, transform } from 'esbuild';

const OPTIONS = { target: 'es2023', sourcemap: 'inline' };
const BUNDLE = { ...OPTIONS, bundle: true, format: 'esm', platform: 'node', packages: 'external', logLevel: 'error' };

/** What programs in text import of the library. */
const LIB = fileURLToPath(new URL('../../lib/', import.meta.url));
const FACES = ['index.ts', 'raw.ts', 'vhost-user/index.ts'].map((name) => join(LIB, name));
const CHUNK = /\/faces-\w+\.js$/;

/** A program of the tests with all that it imports, as one module: hundreds of files take a second to find and load. */
async function bundled(path) {
  const { outputFiles } = await build({ ...BUNDLE, entryPoints: [path], write: false });
  return outputFiles[0].text;
}

/** The library in a few modules by their paths, for the same reason: what several of its faces have is the same in all. */
async function bundledFaces() {
  const outside = { entryPoints: FACES, outdir: LIB, outbase: LIB, chunkNames: 'faces-[hash]', write: false };
  const { outputFiles } = await build({ ...BUNDLE, ...outside, splitting: true });
  return new Map(outputFiles.map(({ path, text }) => [path, text]));
}

let faces;

async function transformed(path) {
  return (await transform(await readFile(path, 'utf8'), { ...OPTIONS, loader: 'ts', sourcefile: path })).code;
}

function sourceOf(path) {
  if (FACES.includes(path) || CHUNK.test(path)) {
    faces ??= bundledFaces();
    return faces.then((modules) => modules.get(path.replace(/\.ts$/, '.js')));
  }
  return path.includes('/test/') ? bundled(path) : transformed(path);
}

/** @type {import('node:module').ResolveHook} */
export function resolve(specifier, context, nextResolve) {
  if (!CHUNK.test(specifier)) return nextResolve(specifier, context);
  return { url: new URL(specifier, context.parentURL).href, shortCircuit: true };
}

/** @type {import('node:module').LoadHook} */
export async function load(url, context, nextLoad) {
  if (!url.endsWith('.ts') && !CHUNK.test(url)) return nextLoad(url, context);
  return { format: 'module', source: await sourceOf(fileURLToPath(url)), shortCircuit: true };
}
