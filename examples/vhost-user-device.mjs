// A device written in JavaScript, for programs that have guests. With a path it waits there for QEMU:
//   node examples/vhost-user-device.mjs /tmp/disk.sock
//   qemu-system-x86_64 -m 64 -object memory-backend-memfd,id=m,size=64M,share=on -machine pc,memory-backend=m \
//     -chardev socket,id=c,path=/tmp/disk.sock -device vhost-user-blk-pci,chardev=c
// Without one it serves a driver of our own, and looks whether all is as it should be.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AddressSpace, Mapping, UnixListener } from 'kvm-bridge';
import { loadNative } from 'kvm-bridge/raw';
import { BLOCK, BlockDriver, VhostUserBackEnd, VhostUserFrontEnd } from 'kvm-bridge/vhost-user';

const SECTORS = 1 << 20;
const SECTOR = 512;

/** A disk of half a gigabyte without any memory: each sector holds its own number, over and over. */
class NumberDisk {
  queues = 1;
  config = new Uint8Array(60);
  requests = 0;

  constructor() {
    new DataView(this.config.buffer).setBigUint64(0, BigInt(SECTORS), true);
  }

  /** @param {import('kvm-bridge/vhost-user').Chain} chain */
  handle(chain) {
    this.requests++;
    const header = new Uint8Array(16);
    chain.read(0, header);
    const view = new DataView(header.buffer);
    const room = chain.writableLength - 1;
    const first = Number(view.getBigUint64(8, true));
    const isRead = view.getUint32(0, true) === BLOCK.IN;
    const isThere = room % SECTOR === 0 && first + room / SECTOR <= SECTORS;
    if (isRead && isThere) {
      const words = Uint32Array.from({ length: room / 4 }, (_, i) => first + Math.floor((4 * i) / SECTOR));
      chain.write(0, new Uint8Array(words.buffer));
    }
    chain.write(room, Uint8Array.of(!isRead ? BLOCK.UNSUPP : isThere ? BLOCK.OK : BLOCK.IOERR));
    return isRead && isThere ? room + 1 : 0;
  }
}

const native = loadNative();
const [path] = process.argv.slice(2);
if (!('calls' in native)) {
  console.log(`Left out: ${native.reason}`);
} else if (path === undefined) {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-device-'));
  try {
    await tryIt(native.calls, join(folder, 'disk.sock'));
  } finally {
    rmSync(folder, { recursive: true });
  }
} else {
  const disk = new NumberDisk();
  const backEnd = new VhostUserBackEnd(native.calls, disk, { onError: console.error });
  for await (const connection of UnixListener.listen(native.calls, path)) {
    console.log('a front end has come');
    await backEnd.serve(connection);
    console.log(`it has gone; ${disk.requests} requests so far`);
  }
}

async function tryIt(calls, socket) {
  const disk = new NumberDisk();
  const listener = UnixListener.listen(calls, socket);
  const served = listener.accept().then((connection) => new VhostUserBackEnd(calls, disk).serve(connection));

  const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  space.addRam(0, Mapping.memfd(calls, 4 << 20));
  const frontEnd = await VhostUserFrontEnd.connect(calls, socket);
  const driver = await BlockDriver.start(calls, frontEnd, space, { area: 0 });

  const [count, length] = [2000, 4096];
  let wrong = 0;
  const start = performance.now();
  for (let i = 0; i < count; i++) {
    const sector = (i * 7919) % (SECTORS - 8);
    await driver.read(sector, 1 << 20, length);
    for (let k = 0; k < 8; k++) if (space.readU32((1 << 20) + k * SECTOR) !== sector + k) wrong++;
  }
  const seconds = (performance.now() - start) / 1000;
  const refused = await driver.write(0, 1 << 20, SECTOR).then(
    () => 'a write is taken',
    ({ code }) => `a write is refused with ${code}`,
  );
  await driver.stop();
  frontEnd.close();
  await served;
  listener.close();
  space.close();
  console.log(
    `${disk.requests} requests, ${wrong} wrong sectors; ${refused}; ${Math.round(count / seconds)} a second, one at a time`,
  );
  if (wrong > 0 || disk.requests !== count + 1 || !refused.endsWith('EIO')) process.exitCode = 1;
}
