import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AddressSpace, KvmError, Mapping } from '../../lib/index.ts';
import type { KvmCalls } from '../../lib/raw.ts';
import { BlockDriver, VhostUserFrontEnd } from '../../lib/vhost-user/index.ts';
import { daemonMissing, StorageDaemon } from '../unit/vhost-user/storage-daemon.ts';
import { held, until } from './held.ts';

const MIB = 2 ** 20;
const BUFFERS = 0x8_0000;

/** Uses a disk in every way there is, over and over, until that fails. */
class DiskUser {
  /** What it did last. */
  state = 'connecting';
  steps = 0;
  reads = 0;
  readonly #calls: KvmCalls;
  readonly #space: AddressSpace;
  readonly #extra: Mapping;
  readonly #random: (below: number) => number;

  constructor(calls: KvmCalls, space: AddressSpace, extra: Mapping, random: (below: number) => number) {
    this.#calls = calls;
    this.#space = space;
    this.#extra = extra;
    this.#random = random;
  }

  async use(path: string): Promise<never> {
    for (;;) {
      this.state = 'connecting';
      const frontEnd = await VhostUserFrontEnd.connect(this.#calls, path);
      try {
        await this.#useOnce(frontEnd);
      } finally {
        frontEnd.close();
      }
    }
  }

  async #useOnce(frontEnd: VhostUserFrontEnd): Promise<void> {
    await this.#in('negotiating', () => frontEnd.negotiate(frontEnd.features));
    await this.#in('sharing memory', () => frontEnd.share(this.#space));
    const disk = await this.#in('starting the queue', () =>
      BlockDriver.start(this.#calls, frontEnd, this.#space, { area: 0 }),
    );
    for (let rounds = this.#random(4); rounds >= 0; rounds--) {
      await this.#in('reading', () => this.#read(disk));
      await this.#in('starting the log', () => frontEnd.startLog());
      const region = this.#space.addRam(4 * MIB, this.#extra);
      try {
        await this.#in('adding a region', () => frontEnd.settled());
        await this.#in('reading while it logs', () => this.#read(disk));
        await this.#in('writing', () => disk.write(8, BUFFERS, 4096));
        await this.#in('flushing', () => disk.flush());
      } finally {
        region.remove();
      }
      await this.#in('removing a region', () => frontEnd.settled());
      await this.#in('ending the log', () => frontEnd.stopLog());
      await this.#in('reading the configuration', () => frontEnd.readConfig(0, 8));
    }
    await this.#in('stopping the queue', () => disk.stop());
  }

  async #read(disk: BlockDriver): Promise<void> {
    const count = 1 + this.#random(32);
    await Promise.all(Array.from({ length: count }, (_, i) => disk.read(i, BUFFERS + 512 * i, 512)));
    this.reads += count;
  }

  #in<T>(state: string, what: () => Promise<T>): Promise<T> {
    this.state = state;
    this.steps++;
    return what();
  }
}

/** Kills qemu-storage-daemons whose disk is used; everything must end with a reason, and nothing be left. */
export async function killBackEnds(calls: KvmCalls, count: number, random: (below: number) => number): Promise<void> {
  if (daemonMissing !== undefined) {
    console.log(`no back ends were killed: ${daemonMissing}`);
    return;
  }
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-kills-'));
  const image = join(folder, 'image');
  writeFileSync(image, '');
  truncateSync(image, 4 * MIB);
  const started = performance.now();
  const states = new Map<string, number>();
  let reads = 0;
  let before: object | undefined;
  for (let i = 0; i <= count; i++) {
    const path = join(folder, `${i}.sock`);
    const daemon = await StorageDaemon.start(image, path);
    const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
    const [ram, extra] = [Mapping.memfd(calls, MIB), Mapping.memfd(calls, MIB)] as const;
    space.addRam(0, ram);
    const user = new DiskUser(calls, space, extra, random);
    const using = user.use(path).catch((error: unknown) => error);
    // After so many steps, whatever the machine's speed.
    const steps = random(40);
    await until(() => user.steps >= steps);
    await new Promise((resolve) => setTimeout(resolve, random(3)));
    const killed = user.state;
    await daemon.stop('SIGKILL');
    const error = await using;
    if (!(error instanceof KvmError)) throw error;
    states.set(killed, (states.get(killed) ?? 0) + 1);
    reads += user.reads;
    if (ram.pins !== 1 || extra.pins !== 0 || space.users.length !== 0) {
      throw new Error(`${killed}: memory is still held after the back end was killed: ${ram.pins}, ${extra.pins}`);
    }
    space.close();
    ram.close();
    extra.close();
    before ??= held();
    if (JSON.stringify(held()) !== JSON.stringify(before)) {
      throw new Error(`${killed}: ${JSON.stringify(held())} are held, and before ${JSON.stringify(before)}`);
    }
    if (i > 0 && i % 100 === 0) console.log(`${i} of ${count}`);
  }
  rmSync(folder, { recursive: true });
  console.log(
    `${count} back ends killed in ${Math.round((performance.now() - started) / 1000)} s, after ${reads} reads:`,
  );
  console.log(`  while ${[...states].map(([state, times]) => `${state} (${times})`).join(', ')}`);
  console.log('  everything that waited ended with a reason, and nothing is left');
}
