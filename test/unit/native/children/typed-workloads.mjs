// The same as workloads.mjs for what the typed layer does over the addon: both ends of vhost-user, a shared table, served pages, tracked writes.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import '../../../typescript/register.mjs';
import { calls } from './addon.mjs';

const lib = (path) => import(new URL(`../../../../lib/${path}`, import.meta.url).href);
const { AddressSpace, EventFd, KvmError, Mapping, PageFaults, TrackedWrites, UnixConnection, UnixListener } =
  await lib('index.ts');
const { BlockDevice, BlockDriver, VhostUserBackEnd, VhostUserFrontEnd } = await lib('vhost-user/index.ts');

// An address space is closed while it is used.
process.removeAllListeners('warning');

const MEBIBYTE = 1 << 20;
const PATIENCE_MS = 5000;
const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
process.on('exit', () => rmSync(folder, { recursive: true }));

/** What must be closed at the end, in the opposite order, and the errors that there were. */
class Work {
  errors = [];
  #open = [];

  own(open) {
    this.#open.push(open);
    return open;
  }

  note(error) {
    if (error instanceof KvmError) this.errors.push(error.errno);
    else if (error.message === 'kvm-bridge: no memory') this.errors.push(-12);
    else throw error;
  }

  /** Does something, in time, and then closes everything. */
  async do(what) {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error('it hangs')), PATIENCE_MS);
    });
    try {
      await Promise.race([what(), late]);
    } catch (error) {
      this.note(error);
    } finally {
      clearTimeout(timer);
      for (const open of this.#open.reverse()) {
        try {
          open[Symbol.dispose]();
        } catch (error) {
          this.note(error);
        }
      }
    }
    return this.errors;
  }
}

function spaceOf(work) {
  const space = work.own(new AddressSpace({ littleEndian: true, pageSize: calls.pageSize }));
  space.addRam(0, work.own(Mapping.memfd(calls, MEBIBYTE)));
  return space;
}

/** A disk of zeros. */
const file = {
  read: async (bytes, at, length) => ({ bytesRead: bytes.fill(0, at, at + length) && length }),
  write: async (_bytes, _at, length) => ({ bytesWritten: length }),
  datasync: async () => {},
};

/** A disk, a program that has a guest and uses it, and a log of what was written. */
export function vhostUser() {
  const work = new Work();
  return work.do(async () => {
    const space = spaceOf(work);
    const path = join(folder, 'disk');
    rmSync(path, { force: true });
    const backEnd = work.own(new VhostUserBackEnd(calls, new BlockDevice(file, { size: MEBIBYTE })));
    const listener = work.own(UnixListener.listen(calls, path));
    void (async () => {
      for await (const connection of listener) void backEnd.serve(connection).catch((error) => work.note(error));
    })().catch((error) => {
      if (listener.closed) return;
      work.note(error);
      // Else those who connected would wait for somebody.
      listener.close();
    });
    const frontEnd = work.own(await VhostUserFrontEnd.connect(calls, path));
    const disk = await BlockDriver.start(calls, frontEnd, space, { area: 0x8_0000, queueSize: 16 });
    await disk.write(0, 0x1000, 1024);
    await frontEnd.startLog();
    await disk.read(0, 0x1000, 1024);
    await frontEnd.stopLog();
    await disk.stop();
  });
}

/** An address space whose descriptors another process gets over a socket: a table, its log, a view. */
export function shared() {
  const work = new Work();
  return work.do(async () => {
    const space = spaceOf(work);
    space.share({ calls, regions: 8, consumers: 4, end: 2 ** 32 });
    const [one, other] = UnixConnection.pair(calls).map((end) => work.own(end));
    space.accept(one);
    const binding = await AddressSpace.attach(calls, other);
    work.own({ [Symbol.dispose]: () => binding.release() });
    binding.writeU32(64, 1);
    const vmap = binding.vmap(0, 64, { write: true });
    vmap.bytes[0] = 1;
    vmap.release();
    space.addRam(2 ** 30, work.own(Mapping.memfd(calls, MEBIBYTE)));
    const doorbell = work.own(new EventFd(calls));
    await Promise.all([doorbell.wait(), (async () => doorbell.signal())()]);
    space.settled({ timeoutMs: 100 });
  });
}

/** Pages that are brought, and writes that are tracked. */
export function served() {
  const work = new Work();
  return work.do(async () => {
    const ram = work.own(Mapping.anonymous(calls, MEBIBYTE));
    const page = new Uint8Array(calls.pageSize).fill(1);
    const faults = work.own(new PageFaults(ram, { missing: () => page, store: () => {} }));
    const byte = new Uint8Array(1);
    ram.read(0, byte);
    faults.protect(0, page.length);
    ram.write(0, byte);
    faults.copy(page.length, page);
    faults.zero(2 * page.length, page.length);
    const tracked = work.own(Mapping.anonymous(calls, MEBIBYTE));
    const writes = work.own(new TrackedWrites(tracked));
    tracked.write(0, byte);
    if (writes.collect().count !== 1) throw new Error('the write was not seen');
  });
}
