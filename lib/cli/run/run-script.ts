import * as nodeModule from 'node:module';
import { extname, join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';
import { packageRoot } from '../../backends/package-root.ts';
import { checkReadable } from '../../base/readable-file.ts';
import { type Io, UsageError } from '../io.ts';
import { openSession } from '../open-session.ts';
import { closeSession, type Session, type SessionOptions, shareGlobals } from '../session.ts';
import { type ScriptHookData, type SyncHooks, scriptHooks } from './script-hooks.ts';

/** Left to Node: CommonJS where that is said, and TypeScript where Node takes it. */
const OTHER_FORMATS = new Set(['.cjs', '.cts', '.ts', '.mts']);

/**
 * `kvm-bridge run`: a file, or standard input for `-`, as Node runs an ES module: `import`, `await` at top level, its own
 * arguments in `process.argv`, an uncaught error's stack and status. Beside that everything the package exports is global, and
 * `kvm` and `vm` are open until the process ends.
 *
 * @param opened gets the session before the script does, and gives what is done at the end
 * @throws KvmError when the wanted backend cannot be had; Node's own errors for the file; whatever the script throws
 */
export async function runScript(
  io: Io,
  file: string,
  args: readonly string[],
  options: SessionOptions,
  opened: (session: Session) => () => void = () => () => {},
): Promise<number> {
  const fromInput = file === '-';
  const path = fromInput ? join(process.cwd(), 'standard-input') : resolve(file);
  if (!fromInput) checkReadable(path);
  else if (options.load === '-') throw new UsageError('standard input can be only one of the script and the capture');
  const source = fromInput ? await text(io.stdin) : undefined;
  const url = pathToFileURL(path).href;
  if (!OTHER_FORMATS.has(extname(path))) {
    hookScript({ script: url, source, home: pathToFileURL(join(packageRoot()!, 'package.json')).href });
  }
  const session = await openSession(options, io);
  const ended = opened(session);
  process.once('exit', () => {
    ended();
    closeSession(session);
  });
  shareGlobals(session);
  process.argv = [process.argv[0]!, fromInput ? '-' : path, ...args];
  // Ours may be ten deep, which is all that Node shows otherwise. With --frozen-intrinsics it stays so.
  Reflect.set(Error, 'stackTraceLimit', 50);
  // Nobody handles its failure here: Node tells of it, and ends, as it does for a file of its own.
  await new Promise<void>((evaluated) => {
    void import(url).then(() => evaluated());
  });
  return 0;
}

function hookScript(data: ScriptHookData): void {
  const { registerHooks } = nodeModule as { readonly registerHooks?: (hooks: SyncHooks) => void };
  if (registerHooks !== undefined) registerHooks(scriptHooks(data));
  else nodeModule.register(pathToFileURL(join(packageRoot()!, 'dist/cli/script-hooks.js')), { data });
}
