import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const PROGRAM = 'qemu-storage-daemon';

/** Why there is none; undefined when there is one. */
export const daemonMissing =
  spawnSync(PROGRAM, ['--version']).error === undefined
    ? undefined
    : `there is no ${PROGRAM} (Debian: qemu-system-common)`;

/** QEMU's own vhost-user back end for disks. */
export class StorageDaemon {
  readonly path: string;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, path: string) {
    this.#child = child;
    this.path = path;
  }

  static async start(image: string, path: string): Promise<StorageDaemon> {
    const args = [
      ...['--blockdev', `driver=file,node-name=disk,filename=${image}`],
      ...['--export', `type=vhost-user-blk,id=e,node-name=disk,writable=on,addr.type=unix,addr.path=${path}`],
      // Written when it listens.
      ...['--pidfile', `${path}.pid`],
    ];
    const child = spawn(PROGRAM, args, { stdio: ['ignore', 'ignore', 'inherit'] });
    while (!existsSync(`${path}.pid`)) {
      if (child.exitCode !== null) throw new Error(`${PROGRAM} ended with ${child.exitCode}`);
      await sleep(5);
    }
    return new StorageDaemon(child, path);
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill(signal);
    await exited;
  }
}
