import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

type Json = { readonly [key: string]: unknown };

interface Pending {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** A QEMU that is told what to do by QMP. */
export class QemuMachine {
  readonly #child: ChildProcess;
  readonly #socket: Socket;
  readonly #pending: Pending[] = [];
  readonly #errors: Buffer[];

  private constructor(child: ChildProcess, socket: Socket, errors: Buffer[]) {
    this.#child = child;
    this.#socket = socket;
    this.#errors = errors;
    createInterface(socket).on('line', (line) => this.#received(JSON.parse(line) as Json));
    socket.on('error', () => {});
    child.on('exit', (code, signal) => this.#ended(`QEMU ended: ${signal ?? code}. ${this.#said()}`));
  }

  /** @param qmp path of its socket */
  static async start(command: string, args: readonly string[], qmp: string): Promise<QemuMachine> {
    const child = spawn(command, [...args, '-qmp', `unix:${qmp},server=on,wait=off`], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const errors: Buffer[] = [];
    child.stderr!.on('data', (chunk: Buffer) => errors.push(chunk));
    const socket = await connected(child, qmp).catch((error: Error) => {
      throw new Error(`${error.message} ${Buffer.concat(errors)}`);
    });
    const machine = new QemuMachine(child, socket, errors);
    await machine.execute('qmp_capabilities');
    return machine;
  }

  execute(command: string, args?: Json): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#pending.push({ resolve, reject });
      this.#socket.write(
        `${JSON.stringify({ execute: command, ...(args === undefined ? {} : { arguments: args }) })}\n`,
      );
    });
  }

  /** Asks again and again, until the answer is the one that is waited for. */
  async until<T>(command: string, isIt: (answer: T) => boolean, timeoutMs = 60_000): Promise<T> {
    for (const end = Date.now() + timeoutMs; ; ) {
      const answer = (await this.execute(command)) as T;
      if (isIt(answer)) return answer;
      if (Date.now() > end) throw new Error(`${command} still says ${JSON.stringify(answer)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exited;
    this.#socket.destroy();
  }

  #received(message: Json): void {
    if (!('return' in message || 'error' in message)) return;
    const pending = this.#pending.shift();
    if ('error' in message) pending?.reject(new Error(JSON.stringify(message.error)));
    else pending?.resolve(message.return);
  }

  #ended(why: string): void {
    for (const { reject } of this.#pending.splice(0)) reject(new Error(why));
  }

  #said(): string {
    return Buffer.concat(this.#errors).toString();
  }
}

async function connected(child: ChildProcess, path: string): Promise<Socket> {
  for (const end = Date.now() + 10_000; Date.now() < end; ) {
    if (child.exitCode !== null || child.signalCode !== null) break;
    if (existsSync(path)) {
      const socket = connect(path);
      try {
        await once(socket, 'connect');
        return socket;
      } catch {
        // It doesn't listen yet.
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error('QEMU does not answer.');
}
