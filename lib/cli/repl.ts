import { mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type REPLServer, start } from 'node:repl';
import * as api from '../index.ts';
import * as raw from '../raw.ts';
import { doctorCommand } from './doctor/index.ts';
import { columnsOf, type Io, styleFor, wantsColour, wrap } from './io.ts';
import { packageVersion } from './package-info.ts';
import { show } from './print.ts';
import { openSession, type Session, type SessionOptions } from './session.ts';

const EXAMPLES = `  vm.memory.addRam(0, kvm.mapAnonymous(16 << 20))     16 MiB at address 0
  vm.memory.writeU32(0x1000, 0xcafe)
  vm.memory.readExact(0x1000, 16)
  vm.dirtyPages.start().collect().runs()
  vm.memslots
  vm.setUserMemoryRegion({ slot: 9, guestPhysAddr: 0x1234, memorySize: 4096, userspaceAddr: 0 })
  kvm.capabilities()
  Kvm.open({ arch: 's390x' })                         another kernel, emulated
  raw.requestNumber('KVM_GET_DIRTY_LOG', kvm.arch)    the flat calls are in raw
`;

/** What lines at the prompt, and in scripts, can name: the session, and everything that the package exports. */
export function sessionGlobals({ kvm, vm }: Session): Record<string, unknown> {
  return { ...api, raw, kvm, vm };
}

/**
 * `kvm-bridge repl`: a prompt with `kvm` and `vm` ready. Ends with its input.
 * @throws KvmError when the wanted backend cannot be had
 */
export async function replCommand(io: Io, options: SessionOptions): Promise<number> {
  const session = openSession(options);
  const interactive = io.stdout.isTTY === true && (io.stdin as { isTTY?: boolean }).isTTY === true;
  if (interactive) io.stdout.write(banner(io, session));
  const colors = wantsColour(io.stdout, io.env);
  const server = start({
    prompt: interactive ? `${session.kvm.arch}> ` : '',
    input: io.stdin,
    output: io.stdout,
    terminal: interactive,
    useColors: colors,
    // Arrays and buffers made at the prompt must be of this realm, or the kernel's calls would not know them.
    useGlobal: true,
    ignoreUndefined: true,
    writer: (value: unknown) => show(value, { colors }),
  });
  Object.assign(server.context, sessionGlobals(session));
  defineCommands(server, io, session);
  if (interactive) await useHistory(server, io.env);
  await new Promise<void>((resolve) => {
    server.once('exit', resolve);
  });
  session.vm.close();
  session.kvm.close();
  return 0;
}

function banner(io: Io, { kvm, fallbackReason }: Session): string {
  const style = styleFor(io.stdout, io.env);
  const lines = [`${style.bold(`kvm-bridge ${packageVersion()}`)}: ${describeKernel(kvm)}`];
  if (fallbackReason !== undefined) {
    lines.push(...wrap(`Not the real one: ${fallbackReason}`, columnsOf(io.stdout)).map(style.yellow));
  }
  lines.push(style.dim('kvm and vm are ready; .examples shows lines to try, .help the commands'));
  return `${lines.join('\n')}\n`;
}

/** `x86_64, the real kernel (API 12)`. */
export function describeKernel(kvm: api.Kvm): string {
  return kvm.backend === 'native'
    ? `${kvm.arch}, the real kernel (API ${kvm.getApiVersion()})`
    : `${kvm.arch}, the emulated kernel ${kvm.emulated?.release ?? ''}`;
}

function defineCommands(server: REPLServer, io: Io, session: Session): void {
  const define = (name: string, help: string, action: () => void): void => {
    server.defineCommand(name, {
      help,
      action() {
        this.clearBufferedCommand();
        action();
        this.displayPrompt();
      },
    });
  };
  define('examples', 'Lines to try', () => io.stdout.write(EXAMPLES));
  define('kernel', 'Which kernel kvm and vm are of', () => io.stdout.write(`${describeKernel(session.kvm)}\n`));
  define('doctor', 'What the real KVM has and lacks on this machine', () => doctorCommand(io, { json: false }));
}

/** Lines are remembered where the XDG base directories say; without such a place they are forgotten. */
async function useHistory(server: REPLServer, env: NodeJS.ProcessEnv): Promise<void> {
  const folder = join(env.XDG_STATE_HOME || join(homedir(), '.local', 'state'), 'kvm-bridge');
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch {
    return;
  }
  await new Promise<void>((resolve) => {
    server.setupHistory(join(folder, 'repl_history'), () => resolve());
  });
}
