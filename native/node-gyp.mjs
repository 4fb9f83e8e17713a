// Runs node-gyp, wherever this machine has it, with headers that this machine has.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const packageRoot = dirname(dirname(fileURLToPath(import.meta.url)));
const prefix = dirname(dirname(process.execPath));

/** node-gyp's script: the one npm names, one on the PATH, or the one inside the npm beside this node. */
export function findNodeGyp() {
  const onPath = (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, 'node-gyp'));
  const besideNode = join(prefix, 'lib', 'node_modules', 'npm', 'node_modules', 'node-gyp', 'bin', 'node-gyp.js');
  return [process.env.npm_config_node_gyp, ...onPath, besideNode].find((path) => path && existsSync(path));
}

/** Where this node's own headers are installed; node-gyp would download them otherwise. */
function findHeaders() {
  const header = join(prefix, 'include', 'node', 'node_version.h');
  if (process.env.npm_config_nodedir || !existsSync(header)) return undefined;
  const text = readFileSync(header, 'utf8');
  const version = ['MAJOR', 'MINOR', 'PATCH'].map((part) => text.match(`NODE_${part}_VERSION (\\d+)`)?.[1]).join('.');
  return version === process.versions.node ? prefix : undefined;
}

/**
 * @param {string} nodeGyp its path
 * @param {string} folder of the binding.gyp; what is built is in its `build`
 * @param {string[]} args
 * @param {NodeJS.ProcessEnv} [env] set beside this process's own
 */
export function runNodeGyp(nodeGyp, folder, args, env = {}) {
  const headers = findHeaders();
  const where = [`--directory=${folder}`, ...(headers === undefined ? [] : [`--nodedir=${headers}`])];
  // What is on the PATH may be a shell script.
  const [program, ...before] = nodeGyp.endsWith('.js') ? [process.execPath, nodeGyp] : [nodeGyp];
  // binding.gyp asks `node` for a path.
  const PATH = [dirname(process.execPath), process.env.PATH].join(delimiter);
  const { status, stdout, stderr } = spawnSync(program, [...before, ...args, ...where], {
    cwd: packageRoot,
    encoding: 'utf8',
    env: { ...process.env, ...env, PATH },
  });
  return { status, output: `${stdout}${stderr}` };
}
