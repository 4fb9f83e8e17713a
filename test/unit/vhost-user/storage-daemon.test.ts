import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AddressSpace, Kvm, Mapping, type Vm } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { BlockDriver, VhostUserFrontEnd } from '../../../lib/vhost-user/index.ts';
import { hostCalls, openDescriptors } from '../sharing/host.ts';
import { daemonMissing, StorageDaemon } from './storage-daemon.ts';

const DISK = 4 << 20;
const RAM = 16 << 20;
const GPA = 0x4000_0000;
const PAGE = 4096;
const SECTOR = 512;
const AREA = GPA;
const QUEUE_SIZE = 128;
const BUFFERS = GPA + 0x10_0000;

let calls: KvmCalls;
let folder: string;
let image: string;
let content: Buffer;
let daemon: StorageDaemon;
let descriptors: number;

beforeEach(async (test) => {
  calls = hostCalls(test);
  if (daemonMissing !== undefined) test.skip(daemonMissing);
  folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-daemon-'));
  image = join(folder, 'image');
  content = randomBytes(DISK);
  writeFileSync(image, content);
  daemon = await StorageDaemon.start(image, join(folder, 'disk.sock'));
  descriptors = openDescriptors();
});
afterEach(async () => {
  await daemon?.stop();
  expect(openDescriptors()).toBe(descriptors);
  rmSync(folder, { recursive: true });
});

function makeSpace(): AddressSpace {
  const space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
  const ram = Mapping.memfd(calls, RAM);
  space.addRam(GPA, ram);
  ram.close();
  return space;
}

/** A disk of the daemon's on a new address space. */
async function attach(space: AddressSpace) {
  const frontEnd = await VhostUserFrontEnd.connect(calls, daemon.path);
  return { frontEnd, disk: await BlockDriver.start(calls, frontEnd, space, { area: AREA, queueSize: QUEUE_SIZE }) };
}

describe('a front end with qemu-storage-daemon', () => {
  it('reads, writes and flushes what is in the image', async () => {
    using space = makeSpace();
    const { frontEnd, disk } = await attach(space);
    expect(disk.capacity).toBe(BigInt(DISK / SECTOR));
    await disk.read(0, BUFFERS, 0x10_0000);
    expect(Buffer.from(space.readExact(BUFFERS, 0x10_0000)).equals(content.subarray(0, 0x10_0000))).toBe(true);
    const ours = randomBytes(64 * SECTOR);
    space.writeExact(BUFFERS, ours);
    await disk.write(1000, BUFFERS, ours.length);
    await disk.flush();
    expect(
      readFileSync(image)
        .subarray(1000 * SECTOR, 1064 * SECTOR)
        .equals(ours),
    ).toBe(true);
    await expect(disk.read(DISK / SECTOR, BUFFERS, SECTOR)).rejects.toMatchObject({ code: 'EIO' });
    const many = Array.from({ length: 500 }, (_, i) => disk.read(i, BUFFERS + i * SECTOR, SECTOR));
    await Promise.all(many);
    expect(Buffer.from(space.readExact(BUFFERS, 500 * SECTOR)).equals(content.subarray(0, 500 * SECTOR))).toBe(true);
    await disk.stop();
    await expect(disk.flush()).rejects.toMatchObject({ code: 'EBADF' });
    frontEnd.close();
    expect(await frontEnd.ended).toBeUndefined();
  });

  it.each([
    ['a log of its own', false],
    ['the log of the shared table', true],
  ])('finds in the dirty state exactly the pages that the daemon wrote, by %s', async (_name, table) => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    using space = makeSpace();
    if (table) space.share();
    using vm = kvm.createVm();
    vm.bind(space);
    const { frontEnd, disk } = await attach(space);
    using dirty = vm.dirtyPages.start();
    await disk.read(0, BUFFERS, PAGE);
    expect([...dirty.collect().pages()]).not.toContain(BUFFERS / PAGE);
    await frontEnd.startLog({ table });
    // The addresses are told anew: the daemon may mark the used ring of what went before.
    dirty.collect();
    await disk.read(0, BUFFERS + 0x5000, 2 * PAGE);
    await disk.write(8, BUFFERS, PAGE);
    const pages = [...dirty.collect().pages()].map((page) => page - GPA / PAGE);
    // Descriptors and rings, headers, statuses; of the buffers only what was read into.
    expect(pages.filter((page) => page * PAGE >= BUFFERS - GPA)).toEqual([0x105, 0x106]);
    const ofDriver = pages.filter((page) => page * PAGE < BUFFERS - GPA);
    expect(ofDriver.length).toBeLessThanOrEqual(5);
    expect((ofDriver.at(-1)! + 1) * PAGE).toBeLessThanOrEqual(BlockDriver.areaSize(QUEUE_SIZE));
    await frontEnd.stopLog();
    dirty.collect();
    await disk.read(0, BUFFERS + 0x9000, PAGE);
    expect([...dirty.collect().pages()]).not.toContain(BUFFERS / PAGE + 9);
    if (!table) await expect(frontEnd.startLog({ table: true })).rejects.toMatchObject({ code: 'EBADF' });
    frontEnd.close();
  });

  it('goes on while the memory migrates to a second VM, which misses nothing', async () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    using space = makeSpace();
    using source = kvm.createVm();
    source.bind(space);
    using target = kvm.createVm();
    target.memory.addRam(GPA, kvm.mapAnonymous(RAM));
    const { frontEnd, disk } = await attach(space);
    let requests = 0;
    let isOver = false;
    const loads = Array.from({ length: 8 }, async (_, i) => {
      for (let n = i; !isOver; n++) {
        const sector = (n * 7919) % (DISK / SECTOR - 16);
        await disk.read(sector, BUFFERS + ((n * 104729) % 3000) * PAGE, 16 * SECTOR);
        requests++;
      }
    });
    using dirty = source.dirtyPages.start();
    await frontEnd.startLog();
    copyAll(source, target);
    const before = requests;
    let passes = 0;
    for (; passes < 50; passes++) {
      copyPages(source, target, dirty.collect().pages());
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    expect(requests - before).toBeGreaterThan(passes);
    isOver = true;
    await Promise.all(loads);
    await disk.stop();
    copyPages(source, target, dirty.collect().pages());
    const [here, there] = [source, target].map((vm) => Buffer.from(vm.memory.readExact(GPA, RAM)));
    expect(here!.equals(there!)).toBe(true);
    frontEnd.close();
  });
});

function copyAll(source: Vm, target: Vm): void {
  target.memory.writeExact(GPA, source.memory.readExact(GPA, RAM));
}

function copyPages(source: Vm, target: Vm, pages: Float64Array): void {
  for (const page of pages) target.memory.writeExact(page * PAGE, source.memory.readExact(page * PAGE, PAGE));
}
