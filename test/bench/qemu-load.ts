import { type ChildProcess, spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { UnixListener } from '../../lib/sharing/socket.ts';
import { BlockDevice, VhostUserBackEnd } from '../../lib/vhost-user/index.ts';
import { bootSector, COUNTER } from '../proofs/boot-sector.ts';
import { QemuMachine } from '../proofs/qemu-machine.ts';
import { type Bench, type Benchmark, nativeCalls } from './benchmark.ts';
import type { Case } from './measure.ts';
import { DAEMON, startDaemon } from './vhost-user.ts';

const QEMU = 'qemu-system-x86_64';
const MEMORY = 64 << 20;
const DISK = 1 << 20;
/** Requests between two looks at the clock: QEMU is told to go on, and to stop. */
const AT_ONCE = 256;

/** A QEMU whose firmware reads a sector after the other from the disk of a back end, one at a time, while it is let. */
class ReadingGuest {
  readonly #machine: QemuMachine;
  readonly #memory: number;

  private constructor(machine: QemuMachine, memory: number) {
    this.#machine = machine;
    this.#memory = memory;
  }

  static async start(folder: string, name: string, socket: string): Promise<ReadingGuest> {
    const memory = join(folder, `${name}.memory`);
    const args = [
      ...['-nodefaults', '-display', 'none', '-m', '64', '-machine', 'pc,accel=tcg,memory-backend=m'],
      ...['-object', `memory-backend-file,id=m,size=${MEMORY},mem-path=${memory},share=on`],
      ...['-chardev', `socket,id=c,path=${socket}`, '-device', 'vhost-user-blk-pci,chardev=c,bootindex=0'],
    ];
    const machine = await QemuMachine.start(QEMU, args, join(folder, `${name}.qmp`));
    const guest = new ReadingGuest(machine, openSync(memory, 'r'));
    await guest.#read(300);
    await machine.execute('stop');
    return guest;
  }

  /** Lets the guest read so many sectors. */
  async read(count: number): Promise<void> {
    await this.#machine.execute('cont');
    await this.#read(count);
    await this.#machine.execute('stop');
  }

  async stop(): Promise<void> {
    await this.#machine.stop();
    closeSync(this.#memory);
  }

  async #read(count: number): Promise<void> {
    const bytes = Buffer.alloc(2);
    const counter = () => {
      readSync(this.#memory, bytes, 0, 2, COUNTER);
      return bytes.readUInt16LE();
    };
    for (let last = counter(), done = 0; done < count; ) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      const now = counter();
      // It counts to 65535, and begins again.
      done += (now - last) & 0xffff;
      last = now;
    }
  }
}

/** Two back ends, each under a QEMU of its own, of which one runs at a time. */
export const backEndsUnderQemu: Benchmark = {
  name: 'vhost-user-back-ends',
  needsKvm: false,
  *cases(_bench: Bench): Generator<Case> {
    const missing = [QEMU, DAEMON].find((program) => spawnSync(program, ['--version']).error !== undefined);
    if (missing !== undefined) {
      console.log(`Left out, for there is no ${missing}.\n`);
      return;
    }
    const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-bench-'));
    const image = join(folder, 'image');
    const content = new Uint8Array(DISK);
    content.set(bootSector());
    writeFileSync(image, content);
    const calls = nativeCalls();
    const listener = UnixListener.listen(calls, join(folder, 'ours'));
    let daemon: ChildProcess | undefined;
    const guests: Promise<ReadingGuest>[] = [];
    const ours = async () => {
      const backEnd = new VhostUserBackEnd(calls, new BlockDevice(await open(image, 'r+'), { size: DISK }));
      void listener.accept().then((connection) => backEnd.serve(connection));
      return ReadingGuest.start(folder, 'ours', listener.path);
    };
    const theirs = async () => {
      const socket = join(folder, 'theirs');
      daemon = startDaemon(image, socket);
      return ReadingGuest.start(folder, 'theirs', socket);
    };
    const reading = (index: number, start: () => Promise<ReadingGuest>) => async (n: number) => {
      guests[index] ??= start();
      await (await guests[index]).read(n * AT_ONCE);
    };
    try {
      yield {
        title: 'reads of 512 bytes by the firmware of a QEMU (TCG), one at a time',
        meter: 'clock',
        per: 'request',
        times: AT_ONCE,
        contenders: [
          { name: 'kvm-bridge', run: reading(0, ours) },
          { name: DAEMON, run: reading(1, theirs) },
        ],
        comparisons: [{ of: 'kvm-bridge', to: DAEMON }],
      };
    } finally {
      for (const guest of guests) void guest?.then((started) => started.stop());
      daemon?.kill();
      listener.close();
      rmSync(folder, { recursive: true });
    }
  },
};
