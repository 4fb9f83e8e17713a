import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it, type TestContext } from 'vitest';
import { AddressSpace, EventFd, KvmError, Mapping } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { DriverQueue, layOut, VhostUserFrontEnd } from '../../../lib/vhost-user/index.ts';
import { collector } from '../sharing/collector.ts';
import { hostCalls } from '../sharing/host.ts';

const PROGRAM = '/usr/lib/qemu/virtiofsd';
const SIZE = 64;
const RINGS = [0, 0x4000];
const REQUEST = 0x1_0000;
const ANSWER = 0x2_0000;

/** Numbers of FUSE (include/uapi/linux/fuse.h). */
const FUSE = { LOOKUP: 1, OPEN: 14, READ: 15, WRITE: 16, INIT: 26, IN_HEADER: 40, OUT_HEADER: 16, ROOT: 1n } as const;

/** QEMU's file system daemon on a folder, or the test is skipped with the reason. */
async function startDaemon(test: TestContext, source: string, path: string): Promise<ChildProcess> {
  if (!existsSync(PROGRAM)) test.skip(`there is no ${PROGRAM} (Debian 12: qemu-system-common)`);
  if (process.getuid?.() !== 0) test.skip('virtiofsd wants to be root');
  const options = [`--socket-path=${path}`, '-o', `source=${source}`, '-o', 'sandbox=chroot', '-o', 'cache=none'];
  const child = spawn(PROGRAM, options, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr!.on('data', (bytes) => {
    said += bytes;
  });
  while (!existsSync(path)) {
    if (child.exitCode !== null || child.signalCode !== null)
      test.skip(`virtiofsd does not start here: ${said.trim()}`);
    await sleep(10);
  }
  return child;
}

/** Connects to the daemon: its socket is there before it listens. */
async function connect(calls: KvmCalls, path: string, daemon: ChildProcess): Promise<VhostUserFrontEnd> {
  for (;;) {
    try {
      // One queue for requests of high priority, and one for all others.
      return await VhostUserFrontEnd.connect(calls, path, { queues: 2 });
    } catch (error) {
      const isEarly = error instanceof KvmError && error.code === 'ECONNREFUSED' && daemon.exitCode === null;
      if (!isEarly) {
        daemon.kill('SIGKILL');
        throw error;
      }
      await sleep(10);
    }
  }
}

/** A guest's FUSE over the request queue. */
class FuseDriver {
  readonly space: AddressSpace;
  readonly #queue: DriverQueue<number>;
  readonly #eventfds: readonly EventFd[];
  #unique = 1n;

  constructor(calls: KvmCalls) {
    this.space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
    using ram = Mapping.memfd(calls, 0x10_0000);
    this.space.addRam(0, ram);
    this.#queue = new DriverQueue(this.space, layOut(RINGS[1]!, SIZE));
    this.#eventfds = [0, 1, 2, 3].map(() => new EventFd(calls));
  }

  async start(frontEnd: VhostUserFrontEnd): Promise<void> {
    for (const [i, at] of RINGS.entries()) {
      const { end: _, ...layout } = layOut(at, SIZE);
      await frontEnd.startQueue(i, { ...layout, kick: this.#eventfds[2 * i]!, call: this.#eventfds[2 * i + 1]! });
    }
  }

  /** Asks for something: what is answered behind the header, which lies at {@link ANSWER} + 16. */
  async ask(opcode: number, node: bigint, payload: Uint8Array, room: number): Promise<Buffer> {
    const header = Buffer.alloc(FUSE.IN_HEADER);
    header.writeUInt32LE(FUSE.IN_HEADER + payload.length, 0);
    header.writeUInt32LE(opcode, 4);
    header.writeBigUInt64LE(this.#unique++, 8);
    header.writeBigUInt64LE(node, 16);
    this.space.writeExact(REQUEST, Buffer.concat([header, payload]));
    const readable = [
      { gpa: REQUEST, length: FUSE.IN_HEADER },
      { gpa: REQUEST + FUSE.IN_HEADER, length: payload.length },
    ];
    const writable = [
      { gpa: ANSWER, length: FUSE.OUT_HEADER },
      { gpa: ANSWER + FUSE.OUT_HEADER, length: room },
    ];
    this.#queue.add(readable, writable, 0);
    const [, , kick, call] = this.#eventfds;
    if (this.#queue.publish()) kick!.signal();
    for (let used = this.#queue.take(); used === undefined; used = this.#queue.take()) await call!.wait();
    const length = this.space.readU32(ANSWER);
    expect(this.space.readI32(ANSWER + 4), `FUSE request ${opcode}`).toBe(0);
    return Buffer.from(this.space.readExact(ANSWER + FUSE.OUT_HEADER, length - FUSE.OUT_HEADER));
  }

  close(): void {
    for (const eventfd of this.#eventfds) eventfd.close();
    this.space.close();
  }
}

const u32s = (...values: number[]): Buffer => Buffer.from(Uint32Array.from(values).buffer);
const u64s = (...values: bigint[]): Buffer => Buffer.from(BigUint64Array.from(values).buffer);

it('a file system of virtiofsd’s is read and written by a guest of ours, and what it writes there is dirty', {
  timeout: 30_000,
}, async (test) => {
  const calls = hostCalls(test);
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-fs-'));
  const source = join(folder, 'source');
  mkdirSync(source);
  const content = randomBytes(3 * 4096);
  writeFileSync(join(source, 'file'), content);
  const path = join(folder, 'fs.sock');
  const daemon = await startDaemon(test, source, path);
  const frontEnd = await connect(calls, path, daemon);
  const driver = new FuseDriver(calls);
  using vm = collector(driver.space);
  try {
    await frontEnd.negotiate(0);
    await frontEnd.share(driver.space);
    await driver.start(frontEnd);
    const init = await driver.ask(FUSE.INIT, 0n, u32s(7, 31, 0x1000, 0), 64);
    expect(init.readUInt32LE(0)).toBe(7);
    const found = await driver.ask(FUSE.LOOKUP, FUSE.ROOT, Buffer.from('file\0'), 128);
    const node = found.readBigUInt64LE(0);
    // O_RDWR
    const opened = await driver.ask(FUSE.OPEN, node, u32s(2, 0), 16);
    const handle = opened.readBigUInt64LE(0);
    await frontEnd.startLog();
    vm.pages();
    const read = Buffer.concat([u64s(handle, 0n), u32s(content.length, 0), u64s(0n), u32s(0, 0)]);
    expect(Buffer.compare(await driver.ask(FUSE.READ, node, read, content.length), content)).toBe(0);
    const first = ANSWER / 4096;
    expect(vm.pages()).toEqual(expect.arrayContaining([first, first + 1, first + 2, first + 3]));
    const write = Buffer.concat([u64s(handle, 4096n), u32s(5, 0), u64s(0n), u32s(0, 0), Buffer.from('hello')]);
    expect((await driver.ask(FUSE.WRITE, node, write, 8)).readUInt32LE(0)).toBe(5);
    expect(readFileSync(join(source, 'file')).subarray(4096, 4101).toString()).toBe('hello');
  } finally {
    frontEnd.close();
    driver.close();
    if (daemon.exitCode === null && daemon.signalCode === null) {
      const exited = once(daemon, 'exit');
      daemon.kill('SIGKILL');
      await exited;
    }
    rmSync(folder, { recursive: true });
  }
});
