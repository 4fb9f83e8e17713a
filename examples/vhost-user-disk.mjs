// A disk that another program serves: qemu-storage-daemon reads and writes our guest memory, and notes which pages it wrote.
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AddressSpace, Kvm, Mapping } from 'kvm-bridge';
import { loadNative } from 'kvm-bridge/raw';
import { BlockDriver, VhostUserFrontEnd } from 'kvm-bridge/vhost-user';
import { hex } from './support/guest.mjs';

const DAEMON = 'qemu-storage-daemon';
const RAM = 0x4000_0000;
const BUFFER = RAM + 0x10_0000;
const MEBIBYTE = 1 << 20;

const native = loadNative();
if (!('calls' in native)) {
  console.log(`Left out: ${native.reason}`);
} else if (spawnSync(DAEMON, ['--version']).error) {
  console.log(`Left out: there is no ${DAEMON} (in Debian it is in qemu-system-common).`);
} else {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-disk-'));
  try {
    await main(native.calls, folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function main(calls, folder) {
  const image = join(folder, 'image');
  const socket = join(folder, 'disk.sock');
  const content = randomBytes(4 * MEBIBYTE);
  writeFileSync(image, content);
  const daemon = spawn(DAEMON, [
    ...['--blockdev', `driver=file,node-name=disk,filename=${image}`],
    ...['--export', `type=vhost-user-blk,id=e,node-name=disk,writable=on,addr.type=unix,addr.path=${socket}`],
    // Written when it listens.
    ...['--pidfile', `${socket}.pid`],
  ]);
  while (!existsSync(`${socket}.pid`)) await sleep(10);

  // Guest memory that others can have: a memfd. A VM that is bound to it collects what is dirty.
  const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  space.addRam(RAM, Mapping.memfd(calls, 16 * MEBIBYTE));
  const vm = Kvm.open({ backend: 'emulated', arch: 'x86_64' }).createVm();
  vm.bind(space);

  const frontEnd = await VhostUserFrontEnd.connect(calls, socket);
  console.log(frontEnd);
  const disk = await BlockDriver.start(calls, frontEnd, space, { area: RAM });

  await disk.read(0, BUFFER, MEBIBYTE);
  check('1 MiB is read as it is in the image', content.subarray(0, MEBIBYTE).equals(space.readExact(BUFFER, MEBIBYTE)));

  const ours = randomBytes(8192);
  space.writeExact(BUFFER, ours);
  await disk.write(64, BUFFER, ours.length);
  await disk.flush();
  check('8 KiB are in the image as they were written', ours.equals(readFileSync(image).subarray(64 * 512, 80 * 512)));

  const dirty = vm.dirtyPages.start();
  await frontEnd.startLog();
  dirty.collect();
  await disk.read(0, BUFFER + 0x7000, 3 * 4096);
  const pages = [...dirty.collect().pages()].filter((page) => page * 4096 >= BUFFER);
  const wanted = [0x7000, 0x8000, 0x9000].map((offset) => (BUFFER + offset) / 4096);
  check(`what the daemon wrote is dirty: pages ${pages.map(hex).join(' ')}`, pages.join() === wanted.join());
  await frontEnd.stopLog();

  const requests = 5000;
  const start = performance.now();
  for (let i = 0; i < requests; i += 32) {
    await Promise.all(Array.from({ length: 32 }, (_, k) => disk.read((i + k) % 8192, BUFFER + k * 4096, 512)));
  }
  console.log(`${Math.round((requests * 1000) / (performance.now() - start))} requests a second, 32 at a time`);

  await disk.stop();
  frontEnd.close();
  vm.close();
  space.close();
  daemon.kill();
}

function check(what, isRight) {
  console.log(`${isRight ? 'yes' : 'NO '}  ${what}`);
  if (!isRight) process.exitCode = 1;
}
