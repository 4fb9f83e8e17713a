import type { ChildProcess } from 'node:child_process';
import type { Duplex } from 'node:stream';
import { killOwned, spawnOwned } from './command.ts';
import { ConsoleLog } from './console-log.ts';
import { type Frame, FrameReader, type Json, type OutputFrame, PORT_NAME } from './frames.ts';
import { LabError } from './lab-error.ts';
import { whereTimeWent } from './processor-time.ts';
import type { Qemu } from './qemu.ts';
import type { Machine } from './variants.ts';

/** Linux and Node must be up by then: some fifteen seconds under TCG, and many minutes where several others want the processors. */
const BOOT_TIMEOUT_MS = 900_000;
/** Time for the rest of a panic's lines to arrive. */
const AFTERMATH_MS = 1000;
const SHOWN_LINES = 25;

/** QEMU's own file descriptor of the port's socket, which it inherits. */
const PORT_FD = 3;

export interface Boot {
  readonly machine: Machine;
  readonly qemu: Qemu;
  readonly kernel: string;
  readonly initramfs: string;
  /** Sockets to make for QEMU's machine protocol and its gdb stub. */
  readonly controls?: Controls;
}

/** Where a running machine can be looked into. */
export interface Controls {
  readonly qmp: string;
  readonly gdb: string;
}

export interface JobOptions {
  readonly onProgress: (line: string) => void;
  /** From QEMU's start to the result. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Called with what the script prints and the files that it leaves. */
  readonly onOutput?: ((frame: OutputFrame) => void) | undefined;
  /** Called with the result while the machine still runs. */
  readonly inspect?: ((result: Json) => Promise<void>) | undefined;
}

function qemuArguments({ machine, qemu, kernel, initramfs, controls }: Boot): string[] {
  const server = (path: string) => `unix:${path},server=on,wait=off`;
  return [
    ...qemu.args,
    ...(controls === undefined ? [] : ['-qmp', server(controls.qmp), '-gdb', server(controls.gdb)]),
    ...machine.machine,
    ...['-smp', '1', '-display', 'none', '-monitor', 'none', '-nic', 'none', '-no-reboot'],
    ...['-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console'],
    ...['-kernel', kernel, '-initrd', initramfs, '-append', machine.append],
  ];
}

function portArguments({ machine }: Boot): string[] {
  return [
    ...['-device', machine.serialController, '-chardev', `socket,id=port,fd=${PORT_FD}`],
    ...['-device', `virtserialport,chardev=port,name=${PORT_NAME}`],
  ];
}

/**
 * Boots a machine whose init runs a job, and waits for the job's result. The machine is gone when this returns, whatever happened.
 *
 * @throws LabError with the guest's last console lines
 */
export async function runJob(boot: Boot, options: JobOptions): Promise<Json> {
  options.signal?.throwIfAborted();
  const qemu = spawnOwned(boot.qemu.command, [...qemuArguments(boot), ...portArguments(boot)], {
    env: { ...process.env, ...boot.qemu.env },
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  });
  const closed = new Promise<void>((resolve) => qemu.once('close', () => resolve()));
  const console = new ConsoleLog();
  const abort = new AbortController();
  const onAbort = () => abort.abort(options.signal?.reason);
  options.signal?.addEventListener('abort', onAbort);
  try {
    return await outcomeOf(qemu, console, options, abort);
  } catch (error) {
    options.signal?.throwIfAborted();
    throw error instanceof LabError ? new LabError(error.message, console.last(SHOWN_LINES)) : error;
  } finally {
    options.signal?.removeEventListener('abort', onAbort);
    abort.abort();
    killOwned(qemu);
    await closed;
  }
}

function outcomeOf(qemu: ChildProcess, console: ConsoleLog, options: JobOptions, stop: AbortController): Promise<Json> {
  const { promise, resolve, reject } = promiseParts<Json>();
  const timers: NodeJS.Timeout[] = [];
  const failAfter = (ms: number, message: () => string) => {
    const timer = setTimeout(() => reject(new LabError(message())), ms);
    timers.push(timer);
    return timer;
  };
  stop.signal.addEventListener('abort', () => {
    for (const timer of timers) clearTimeout(timer);
    reject(stop.signal.reason);
  });

  const seconds = (ms: number) => `${Math.round(ms / 1000)} s`;
  const failLate = (ms: number, what: string) =>
    failAfter(ms, () => `The guest did not ${what} within ${seconds(ms)}.${whereTimeWent(qemu.pid)}`);
  const booting = failLate(BOOT_TIMEOUT_MS, 'start Node');
  failLate(options.timeoutMs, 'finish');

  let failing = false;
  const onConsole = (chunk: Buffer) => {
    console.push(chunk);
    if (console.failure === undefined || failing) return;
    failing = true;
    failAfter(AFTERMATH_MS, () => `The guest gave up: ${console.failure}.`);
  };
  qemu.stdout?.on('data', onConsole);
  qemu.stderr?.on('data', onConsole);

  const finish = async (value: Json) => {
    await options.inspect?.(value);
    resolve(value);
  };
  const onFrame = (frame: Frame) => {
    if (frame.kind === 'started') clearTimeout(booting);
    else if (frame.kind === 'progress') options.onProgress(frame.text);
    else if (frame.kind === 'result') finish(frame.value).catch(reject);
    else if (frame.kind === 'failure') reject(new LabError(`The script failed in the guest: ${frame.message}`));
    else options.onOutput?.(frame);
  };
  const reader = new FrameReader();
  const port = qemu.stdio[PORT_FD] as Duplex;
  port.on('data', (chunk: Buffer) => {
    try {
      for (const frame of reader.push(chunk)) onFrame(frame);
    } catch (error) {
      reject(new LabError(`What the guest sent cannot be read: ${(error as Error).message}`));
    }
  });
  port.on('error', () => {}); // QEMU's end, which is noticed here:
  qemu.on('error', (error) => reject(new LabError(`QEMU cannot be started: ${error.message}`)));
  qemu.on('close', (code, signal) => {
    const reason = console.failure ?? `QEMU ended with ${signal ?? `status ${code ?? 'unknown'}`} before the result`;
    reject(new LabError(`The guest stopped: ${reason}.`));
  });
  return promise;
}

/** Boots a machine with the user's terminal on its console, until the guest powers off or Ctrl-] is pressed. */
export async function attachTerminal(boot: Boot, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  const qemu = spawnOwned(boot.qemu.command, qemuArguments(boot), {
    env: { ...process.env, ...boot.qemu.env },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const closed = new Promise<void>((resolve) => qemu.once('close', () => resolve()));
  const { stdin, stdout } = process;
  const onInput = (chunk: Buffer) => {
    if (chunk.includes(0x1d)) killOwned(qemu);
    else qemu.stdin?.write(chunk);
  };
  const onAbort = () => killOwned(qemu);
  signal?.addEventListener('abort', onAbort);
  qemu.stdin?.on('error', () => {}); // QEMU is gone, which `closed` says.
  qemu.stdout?.on('data', (chunk: Buffer) => stdout.write(chunk));
  if (stdin.isTTY) stdin.setRawMode(true);
  stdin.on('data', onInput);
  try {
    await closed;
  } finally {
    signal?.removeEventListener('abort', onAbort);
    stdin.off('data', onInput);
    if (stdin.isTTY) stdin.setRawMode(false);
    stdin.pause();
  }
}

function promiseParts<T>(): {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (reason: unknown) => void;
} {
  let resolve!: (value: T) => void;
  let reject!: (reason: unknown) => void;
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}
