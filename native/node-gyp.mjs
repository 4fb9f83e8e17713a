// Runs node-gyp, wherever this machine has it, with headers that this machine has.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync, statSync } from 'node:fs';
import { delimiter, dirname, isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const packageRoot = dirname(dirname(fileURLToPath(import.meta.url)));
const prefix = dirname(dirname(process.execPath));

/**
 * @template T
 * @param {() => T} action
 * @returns {T | undefined} undefined when it throws
 */
export function attempt(action) {
  try {
    return action();
  } catch {
    return undefined;
  }
}

/** @param {string} path */
const isFile = (path) => attempt(() => statSync(path).isFile()) === true;

/** @param {string} path */
const isProgram = (path) => isFile(path) && attempt(() => accessSync(path, constants.X_OK) ?? true) === true;

/** node-gyp's script: the one npm names, one on the PATH, or the one inside the npm beside this node. */
export function findNodeGyp() {
  const folders = (process.env.PATH ?? '').split(delimiter).filter(isAbsolute);
  const onPath = folders.map((folder) => join(folder, 'node-gyp')).filter(isProgram);
  const besideNode = join(prefix, 'lib', 'node_modules', 'npm', 'node_modules', 'node-gyp', 'bin', 'node-gyp.js');
  return [process.env.npm_config_node_gyp, ...onPath, besideNode].find((path) => path && isFile(path));
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
  const { status, signal, error, stdout, stderr } = spawnSync(program, [...before, ...args, ...where], {
    cwd: packageRoot,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    env: { ...process.env, ...env, PATH },
  });
  const ended = error?.message ?? (signal === null ? '' : `node-gyp was ended by ${signal}\n`);
  return { status, output: `${stdout ?? ''}${stderr ?? ''}${ended}` };
}
