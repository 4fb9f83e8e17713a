import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { LabError } from '../../../lib/lab/lab-error.ts';

interface Register {
  readonly number: number;
  readonly bytes: number;
}

/** Registers of a stopped machine's first processor, through QEMU's gdb stub. */
export class GdbStub {
  readonly #socket: Socket;
  readonly #registers = new Map<string, Register>();
  readonly #little: boolean;
  #received = '';
  #settle: ((packet: string) => void) | undefined;
  #last: Promise<unknown> = Promise.resolve();
  readonly #gone: Promise<never>;

  private constructor(socket: Socket, littleEndian: boolean) {
    this.#socket = socket;
    this.#little = littleEndian;
    this.#gone = new Promise((_, reject) => {
      socket.once('close', () => reject(new LabError("QEMU's gdb stub is gone.")));
    });
    this.#gone.catch(() => {}); // Of interest only to those who wait for an answer.
    socket.on('data', (chunk: Buffer) => {
      this.#received += chunk.toString('latin1');
      const packet = /^[^$]*\$([^#]*)#../.exec(this.#received);
      if (packet === null) return;
      this.#received = this.#received.slice(packet[0].length);
      socket.write('+');
      this.#settle?.(packet[1]!);
    });
  }

  /** @param littleEndian the guest's byte order, in which registers are sent */
  static async connect(path: string, littleEndian: boolean): Promise<GdbStub> {
    const socket = createConnection(path);
    await once(socket, 'connect');
    const stub = new GdbStub(socket, littleEndian);
    await stub.#ask('qSupported:xmlRegisters=s390;powerpc');
    await stub.#describe();
    return stub;
  }

  async read(name: string): Promise<bigint> {
    const { number } = this.#register(name);
    const reply = await this.#ask(`p${number.toString(16)}`);
    if (!/^([0-9a-f]{2})+$/.test(reply)) throw new LabError(`QEMU's gdb stub does not give ${name}: ${reply}.`);
    return BigInt(`0x${this.#order(reply)}`);
  }

  async write(name: string, value: bigint): Promise<void> {
    const { number, bytes } = this.#register(name);
    const hex = this.#order(value.toString(16).padStart(2 * bytes, '0'));
    const reply = await this.#ask(`P${number.toString(16)}=${hex}`);
    if (reply !== 'OK') throw new LabError(`QEMU's gdb stub does not set ${name}: ${reply}.`);
  }

  close(): void {
    this.#socket.destroy();
  }

  #register(name: string): Register {
    const register = this.#registers.get(name);
    if (register === undefined) throw new LabError(`QEMU's gdb stub has no register ${name}.`);
    return register;
  }

  #order(hex: string): string {
    return this.#little ? Buffer.from(hex, 'hex').reverse().toString('hex') : hex;
  }

  /** Packets go one at a time: the next when the last is answered. */
  #ask(packet: string): Promise<string> {
    const sum = [...packet].reduce((total, character) => total + character.charCodeAt(0), 0) & 0xff;
    const asked = this.#last.then(async () => {
      const reply = new Promise<string>((resolve) => {
        this.#settle = resolve;
      });
      this.#socket.write(`$${packet}#${sum.toString(16).padStart(2, '0')}`);
      return Promise.race([reply, this.#gone]);
    });
    this.#last = asked.catch(() => {}); // It is the asker's to handle.
    return asked;
  }

  /** Registers are numbered in the order of their descriptions, unless one says its number. */
  async #describe(): Promise<void> {
    const target = await this.#file('target.xml');
    let next = 0;
    for (const [, name] of target.matchAll(/<xi:include href="([^"]+)"/g)) {
      const feature = await this.#file(name!);
      for (const [element] of feature.matchAll(/<reg [^>]*>/g)) {
        const attribute = (key: string) => new RegExp(`\\b${key}="([^"]*)"`).exec(element)?.[1];
        const number = Number(attribute('regnum') ?? next);
        this.#registers.set(attribute('name')!, { number, bytes: Number(attribute('bitsize')) / 8 });
        next = number + 1;
      }
    }
  }

  async #file(name: string): Promise<string> {
    let text = '';
    for (;;) {
      const part = await this.#ask(`qXfer:features:read:${name}:${text.length.toString(16)},800`);
      text += part.slice(1);
      if (part[0] !== 'm') return text;
    }
  }
}
