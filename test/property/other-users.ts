import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { SpaceToken } from '../../lib/index.ts';
import { compile, compilerMissing } from '../unit/sharing/compile.ts';
import type { ViewTask, WorkerTask } from './worker-user.ts';

/** How a user of an address space ends: it lets go, it is killed, or it is killed in the middle of a write. */
export type End = 'release' | 'kill' | 'killWhileWriting';

/** An address without memory. */
export const NOWHERE = 2 ** 38;

interface User {
  /** Writes a byte; false when it has no memory there. */
  write(gpa: number, value: number): Promise<boolean>;
  /** Does something with a view, if it has one; whether that was done. */
  view?(task: ViewTask): Promise<boolean>;
  end(how: End, gpa: number, value: number): Promise<boolean>;
}

/** A worker and a program in C, which use an address space when they are asked to, for one test after the other. */
export class OtherUsers implements Disposable {
  readonly #program = compilerMissing === undefined ? compile('consumer') : undefined;
  #worker: Worker | undefined;
  #token: SpaceToken | undefined;
  #descriptors: readonly number[] = [];
  readonly #users = new Map<string, User>();

  /** The address space that they use from now on. */
  use(token: SpaceToken, descriptors: readonly number[]): void {
    this.#token = token;
    this.#descriptors = descriptors;
  }

  /** Those that there are. */
  get names(): readonly string[] {
    return [...this.#users.keys()];
  }

  /** Has one of them write a byte; false when it has no memory there. */
  async write(name: 'worker' | 'process', gpa: number, value: number): Promise<boolean> {
    return (await this.#user(name))?.write(gpa, value) ?? false;
  }

  /** Has the worker do something with its view; false when that is revoked. */
  async view(task: ViewTask): Promise<boolean> {
    return (await (await this.#user('worker'))?.view?.(task)) ?? false;
  }

  /** Ends one of them, if it is there; whether it has written the byte, or was writing 64 of them. */
  async end(name: string, how: End, gpa = 0, value = 0): Promise<boolean> {
    const user = this.#users.get(name);
    this.#users.delete(name);
    return (await user?.end(how, gpa, value)) ?? false;
  }

  [Symbol.dispose](): void {
    void this.#worker?.terminate();
    this.#program?.remove();
  }

  async #user(name: 'worker' | 'process'): Promise<User | undefined> {
    if (!this.#users.has(name)) {
      const user = name === 'worker' ? await this.#startWorker() : await this.#startProcess();
      if (user === undefined) return undefined;
      this.#users.set(name, user);
    }
    return this.#users.get(name);
  }

  /** The worker is there, whether it uses anything or not. */
  async ready(): Promise<Worker> {
    if (this.#worker === undefined) {
      this.#worker = new Worker(fileURLToPath(new URL('worker-user.ts', import.meta.url)), {
        execArgv: ['--import', new URL('../typescript/register.mjs', import.meta.url).href],
      });
      await once(this.#worker, 'message');
    }
    return this.#worker;
  }

  async #startWorker(): Promise<User> {
    const worker = await this.ready();
    const ask = async (task: WorkerTask): Promise<boolean> => {
      worker.postMessage(task);
      return (await once(worker, 'message'))[0] as boolean;
    };
    await ask({ does: 'attach', token: this.#token! });
    return {
      write: (gpa, value) => ask({ does: 'write', gpa, value }),
      view: ask,
      end: async (how, gpa, value) => {
        if (how === 'release') {
          await ask({ does: 'release' });
          return false;
        }
        this.#worker = undefined;
        const isWriting = how === 'killWhileWriting' && gpa < NOWHERE;
        if (isWriting) await ask({ does: 'storm', gpa, value });
        await worker.terminate();
        return isWriting;
      },
    };
  }

  async #startProcess(): Promise<User | undefined> {
    if (this.#program === undefined) return undefined;
    const child: ChildProcess = spawn(this.#program.path, [], {
      stdio: ['pipe', 'pipe', 'ignore', ...this.#descriptors],
    });
    const exited = once(child, 'exit');
    const answers = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    const next = async () => (await answers.next()).value as string | undefined;
    const ask = (command: string, gpa: number, value: number) => {
      child.stdin!.write(`${command} ${gpa.toString(16)} ${value.toString(16)}\n`);
      return next();
    };
    await next();
    return {
      write: async (gpa, value) => (await ask('w', gpa, value)) === 'written',
      end: async (how, gpa, value) => {
        let isWritten = false;
        if (how === 'release') child.stdin!.end();
        else if (how === 'kill') child.kill('SIGKILL');
        else isWritten = (await ask('k', gpa, value)) === undefined;
        if (!isWritten) child.kill(how === 'release' ? 0 : 'SIGKILL');
        await exited;
        return isWritten;
      },
    };
  }
}
