// `npm run build`: the published modules, for `import` in dist/ and for `require` in dist/cjs/, each with its types.
//
//   node build.mjs [FOLDER]    into another folder than dist
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { reportPage } from './lib/cli/report/page/build.mjs';

const root = dirname(fileURLToPath(import.meta.url));
const dist = resolve(process.argv[2] ?? join(root, 'dist'));
const cjs = join(dist, 'cjs');
const find = createRequire(import.meta.url);

function run(script, ...args) {
  const { status } = spawnSync(process.execPath, [script, ...args], { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

const vite = join(dirname(find.resolve('vite/package.json')), 'bin', 'vite.js');
run(vite, 'build', '--logLevel', 'warn', '--outDir', dist, '--emptyOutDir');
run(vite, 'build', '--logLevel', 'warn', '--outDir', cjs, '--mode', 'cjs');
run(find.resolve('typescript/bin/tsc'), '-p', 'tsconfig.build.json', '--outDir', dist);

// The same declarations once more, where TypeScript takes them for those of CommonJS modules.
writeFileSync(join(cjs, 'package.json'), '{ "type": "commonjs" }\n');
for (const name of readdirSync(dist, { recursive: true })) {
  if (!/\.d\.ts(\.map)?$/.test(name) || name.startsWith('cjs')) continue;
  const from = join(dist, name);
  const to = join(cjs, name);
  mkdirSync(dirname(to), { recursive: true });
  let text = readFileSync(from, 'utf8');
  if (name.endsWith('.map')) {
    const map = JSON.parse(text);
    const moved = (source) => relative(dirname(to), resolve(dirname(from), source));
    text = JSON.stringify({ ...map, sources: map.sources.map(moved) });
  }
  writeFileSync(to, text);
}

writeFileSync(join(dist, 'cli/report.html'), reportPage());
