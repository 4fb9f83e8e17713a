import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Mapping } from '../../lib/memory/mapping.ts';
import { AddressSpace } from '../../lib/sharing/address-space.ts';
import { BlockDriver, VhostUserFrontEnd } from '../../lib/vhost-user/index.ts';
import { type Bench, type Benchmark, nativeCalls } from './benchmark.ts';
import type { Case } from './measure.ts';

export const DAEMON = 'qemu-storage-daemon';
const DISK = 4 << 20;
const BUFFERS = 0x8_0000;

/** One at a time, and a full queue. */
const DEPTHS = [1, 32];

export function startDaemon(image: string, path: string) {
  const child = spawn(DAEMON, [
    ...['--blockdev', `driver=file,node-name=disk,filename=${image}`],
    ...['--export', `type=vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path=${path}`],
    // Written when it listens.
    ...['--pidfile', `${path}.pid`],
  ]);
  const pause = new Int32Array(new SharedArrayBuffer(4));
  while (!existsSync(`${path}.pid`) && child.exitCode === null) Atomics.wait(pause, 0, 0, 10);
  return child;
}

/** Reads of a sector from a real qemu-storage-daemon, each front end with a daemon of its own. */
export const vhostUserReads: Benchmark = {
  name: 'vhost-user-reads',
  needsKvm: false,
  *cases({ comparators: { c } }: Bench): Generator<Case> {
    if (spawnSync(DAEMON, ['--version']).error !== undefined) {
      console.log(`Left out, for there is no ${DAEMON}.\n`);
      return;
    }
    const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-bench-'));
    const image = join(folder, 'image');
    closeSync(openSync(image, 'w'));
    truncateSync(image, DISK);
    const [ours, theirs] = ['ours', 'theirs'].map((name) => join(folder, name));
    const daemons = [ours!, theirs!].map((path) => startDaemon(image, path));
    const calls = nativeCalls();
    const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
    space.addRam(0, Mapping.memfd(calls, 1 << 20));
    let frontEnd: VhostUserFrontEnd | undefined;
    const connecting = (async () => {
      frontEnd = await VhostUserFrontEnd.connect(calls, ours!);
      return BlockDriver.start(calls, frontEnd, space, { area: 0 });
    })();
    c.vhostOpen(theirs!);
    try {
      for (const depth of DEPTHS) {
        yield {
          title: `reads of 512 bytes from ${DAEMON}, ${depth} at a time`,
          meter: 'clock',
          per: 'request',
          contenders: [
            {
              name: 'kvm-bridge',
              run: async (n) => {
                const disk = await connecting;
                for (let done = 0; done < n; done += depth) {
                  const count = Math.min(depth, n - done);
                  await Promise.all(
                    Array.from({ length: count }, (_, i) => disk.read((done + i) % 8192, BUFFERS + 512 * i, 512)),
                  );
                }
              },
            },
            { name: 'C', run: (n) => c.vhostRead(depth, n) },
          ],
          comparisons: [{ of: 'kvm-bridge', to: 'C' }],
        };
      }
    } finally {
      frontEnd?.close();
      for (const daemon of daemons) daemon.kill();
      rmSync(folder, { recursive: true });
    }
  },
};
