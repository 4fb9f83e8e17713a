import { readFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import type { KvmCalls } from '../../lib/calls/kvm-calls.ts';
import { UnixListener } from '../../lib/sharing/socket.ts';
import { BLOCK, BlockDevice, type Chain, VhostUserBackEnd, type VirtioDevice } from '../../lib/vhost-user/index.ts';
import { bootSector, COUNTER, END_PAGE, FIRST_PAGE } from './boot-sector.ts';
import { QemuMachine } from './qemu-machine.ts';

/** What it needs. */
export const QEMU = 'qemu-system-x86_64';

// Our back end serves a disk to a real QEMU, whose firmware boots from it and reads without end, while QEMU migrates the
// guest to another QEMU. QEMU copies a page again only if it is marked: at the end both must have the same memory.

const MEMORY = 64 << 20;
const PAGE = 4096;
const DISK = 1 << 20;

/** A disk whose second sector is another each time it is read. */
class ChangingDisk implements VirtioDevice {
  readonly queues = 1;
  readonly features: bigint;
  readonly config: Uint8Array;
  readonly #disk: BlockDevice;
  requests = 0;

  constructor(file: FileHandle) {
    this.#disk = new BlockDevice(file, { size: DISK });
    this.features = this.#disk.features;
    this.config = this.#disk.config;
  }

  async handle(chain: Chain): Promise<number> {
    const written = await this.#disk.handle(chain);
    const header = new Uint8Array(16);
    chain.read(0, header);
    const view = new DataView(header.buffer);
    this.requests++;
    if (view.getUint32(0, true) !== BLOCK.IN || view.getBigUint64(8, true) !== 1n) return written;
    const stamp = Uint32Array.of(0x6b76_6d62, this.requests);
    chain.write(0, new Uint8Array(stamp.buffer));
    return written;
  }
}

function machineArgs(disk: string): string[] {
  return [
    ...['-nodefaults', '-display', 'none', '-m', '64'],
    ...['-object', `memory-backend-memfd,id=m,size=${MEMORY},share=on`, '-machine', 'pc,accel=tcg,memory-backend=m'],
    ...['-chardev', `socket,id=c,path=${disk}`, '-device', 'vhost-user-blk-pci,chardev=c,bootindex=0'],
  ];
}

async function memoryOf(machine: QemuMachine, path: string): Promise<Buffer> {
  await machine.execute('pmemsave', { val: 0, size: MEMORY, filename: path });
  return readFileSync(path);
}

export async function backEndUnderQemu(calls: KvmCalls, folder: string): Promise<boolean> {
  const at = (name: string): string => join(folder, name);
  const file = await open(at('disk'), 'w+');
  await file.truncate(DISK);
  await file.write(bootSector(), 0, 512, 0);
  const disk = new ChangingDisk(file);
  const errors: Error[] = [];
  const backEnd = new VhostUserBackEnd(calls, disk, { onError: (error) => errors.push(error) });
  const machines: QemuMachine[] = [];
  const listeners = ['source', 'target'].map((name) => UnixListener.listen(calls, at(`${name}.sock`)));
  try {
    for (const listener of listeners) {
      listener
        .accept()
        .then((connection) => backEnd.serve(connection))
        .catch((error: Error) => errors.push(error));
    }
    const source = await QemuMachine.start(QEMU, machineArgs(at('source.sock')), at('source.qmp'));
    machines.push(source);
    const incoming = ['-incoming', `unix:${at('migration.sock')}`, '-S'];
    const target = await QemuMachine.start(QEMU, [...machineArgs(at('target.sock')), ...incoming], at('target.qmp'));
    machines.push(target);
    await until(() => disk.requests > 300);
    const before = disk.requests;
    // Slowly, so that the guest has time to read meanwhile.
    await source.execute('migrate-set-parameters', { 'max-bandwidth': 4 << 20, 'downtime-limit': 300 });
    await source.execute('migrate', { uri: `unix:${at('migration.sock')}` });
    interface Migration {
      readonly status: string;
      readonly ram?: { readonly 'dirty-sync-count': number };
    }
    const migrated = await source.until<Migration>('query-migrate', ({ status }) => /completed|failed/.test(status));
    const during = disk.requests - before;
    await target.until<{ readonly status: string }>('query-status', ({ status }) => status === 'paused');
    const [here, there] = [await memoryOf(source, at('here')), await memoryOf(target, at('there'))];
    const differing = differences(here, there);
    const written = new Set(
      Array.from({ length: END_PAGE - FIRST_PAGE }, (_, i) => here.readUInt32LE((FIRST_PAGE + i) * PAGE + 4)),
    );
    const counted = there.readUInt16LE(COUNTER);
    const moved = disk.requests;
    await target.execute('cont');
    await until(() => disk.requests > moved + 100);
    await target.execute('stop');
    const counter = (await memoryOf(target, at('later'))).readUInt16LE(COUNTER);
    console.log(`migration: ${migrated.status}, ${migrated.ram?.['dirty-sync-count']} passes`);
    console.log(`requests: ${before} before, ${during} during the migration, ${disk.requests - moved} in the target`);
    console.log(
      `the guest's pages hold ${written.size} different sectors; ${differing.length} of ${MEMORY / PAGE} pages differ`,
    );
    console.log(`the guest counted ${counted} sectors when it moved, and ${counter} later`);
    for (const error of errors) console.log(`error: ${error.message}`);
    if (differing.length > 0)
      console.log(`they differ: ${differing.slice(0, 16).map((page) => `0x${page.toString(16)}`)}`);
    const isRight = migrated.status === 'completed' && during > 0 && differing.length === 0 && errors.length === 0;
    return isRight && written.size === END_PAGE - FIRST_PAGE && counter > counted;
  } finally {
    for (const machine of machines) await machine.stop();
    for (const listener of listeners) listener.close();
    backEnd.close();
    await file.close();
  }
}

/** Waits for what a guest does. @throws Error when that takes too long */
export async function until(isSo: () => boolean, otherwise = 'the guest reads no more'): Promise<void> {
  for (const end = Date.now() + 120_000; !isSo(); ) {
    if (Date.now() > end) throw new Error(otherwise);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function differences(left: Buffer, right: Buffer): number[] {
  const pages: number[] = [];
  for (let page = 0; page < MEMORY / PAGE; page++) {
    const range = [page * PAGE, (page + 1) * PAGE] as const;
    if (!left.subarray(...range).equals(right.subarray(...range))) pages.push(page);
  }
  return pages;
}
