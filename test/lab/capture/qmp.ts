import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { Json } from '../../../lib/lab/frames.ts';
import { LabError } from '../../../lib/lab/lab-error.ts';

interface Reply {
  readonly return?: Json;
  readonly error?: { readonly desc: string };
  readonly event?: string;
}

/** QEMU's machine protocol: one JSON object per line, a reply to each command in order, events in between. */
export class Qmp {
  readonly #socket: Socket;
  readonly #waiting: ((reply: Reply) => void)[] = [];

  private constructor(socket: Socket) {
    this.#socket = socket;
    createInterface({ input: socket }).on('line', (line) => {
      const reply = JSON.parse(line) as Reply;
      if (reply.return !== undefined || reply.error !== undefined) this.#waiting.shift()?.(reply);
    });
    socket.once('close', () => {
      for (const settle of this.#waiting.splice(0)) settle({ error: { desc: 'QEMU is gone' } });
    });
  }

  static async connect(path: string): Promise<Qmp> {
    const socket = createConnection(path);
    await once(socket, 'connect');
    const qmp = new Qmp(socket);
    await qmp.execute('qmp_capabilities');
    return qmp;
  }

  /** @throws LabError with QEMU's own words */
  async execute(command: string, args: { readonly [key: string]: Json } = {}): Promise<Json> {
    const reply = await new Promise<Reply>((resolve) => {
      this.#waiting.push(resolve);
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    });
    if (reply.error !== undefined) throw new LabError(`QEMU refused ${command}: ${reply.error.desc}.`);
    return reply.return ?? null;
  }

  /** What the human monitor answers to a line. */
  async monitor(line: string): Promise<string> {
    return (await this.execute('human-monitor-command', { 'command-line': line })) as string;
  }

  close(): void {
    this.#socket.destroy();
  }
}
