import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { Descriptor, EventFd, Kvm, UnixConnection, UnixListener } from '../../../lib/index.ts';
import { ERRNO, type KvmCalls, SEAL, SOCK } from '../../../lib/raw.ts';
import { ended, runChild, spawnChild } from './child.ts';
import { hostCalls, openDescriptors } from './host.ts';

const PAGE = 4096;
const NONE = new Int32Array(0);
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();

let calls: KvmCalls;
let before: number;
const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-socket-'));

beforeEach((test) => {
  calls = hostCalls(test);
  before = openDescriptors();
});
afterEach(() => {
  expect(openDescriptors()).toBe(before);
});

/** Receives one message of at most 64 bytes. */
async function receive(connection: UnixConnection) {
  const into = new Uint8Array(64);
  const descriptors: Descriptor[] = [];
  const count = await connection.receive(into, descriptors);
  return { text: text(into.subarray(0, count)), descriptors };
}

describe('a connection', () => {
  it('carries bytes and descriptors in both directions', async () => {
    const [left, right] = UnixConnection.pair(calls);
    using memfd = new Descriptor(calls, calls.memfdCreate('shared', PAGE, 0));
    writeSync(memfd.fd, 'in the memfd');
    using eventfd = new EventFd(calls);
    await left.send(Buffer.from('two'), [memfd.fd, eventfd.fd]);
    const got = await receive(right);
    expect(got).toMatchObject({ text: 'two', descriptors: [expect.any(Descriptor), expect.any(Descriptor)] });
    const [theirMemfd, theirEventfd] = got.descriptors as [Descriptor, Descriptor];
    expect(theirMemfd.fd).not.toBe(memfd.fd);
    const content = Buffer.alloc(12);
    readSync(theirMemfd.fd, content, 0, 12, 0);
    expect(text(content)).toBe('in the memfd');
    using theirs = new EventFd(calls, theirEventfd);
    expect(theirEventfd.closed).toBe(true);
    const told = theirs.wait();
    eventfd.signal(4n);
    expect(await told).toBe(4n);
    await right.send(Buffer.from('back'), [theirMemfd.fd]);
    const back = await receive(left);
    expect(back.text).toBe('back');
    expect(fstatSync(back.descriptors[0]!.fd).ino).toBe(fstatSync(memfd.fd).ino);
    for (const each of [left, right, theirMemfd, ...back.descriptors]) each.close();
  });

  it('gives descriptors that are close-on-exec and ours, of which sealed memory may be looked at', async () => {
    const [left, right] = UnixConnection.pair(calls);
    const memfd = calls.memfdCreate('sealed', PAGE, 0);
    const file = join(folder, 'unsealed');
    writeFileSync(file, Buffer.alloc(PAGE));
    const opened = openSync(file, 'r+');
    await left.send(Uint8Array.of(1), [memfd, opened]);
    const { descriptors } = await receive(right);
    const views = descriptors.map(({ fd }) => {
      expect(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')).toMatch(/^flags:\s+02/m);
      const hva = calls.mmap(PAGE, 3, 1, fd, 0, 0, 0);
      const view = calls.view(hva, PAGE);
      calls.munmap(hva, PAGE);
      return view;
    });
    // A file may be truncated by whoever has it: no view, but copies.
    expect(views).toEqual([expect.any(ArrayBuffer), -ERRNO.EACCES]);
    calls.close(memfd);
    closeSync(opened);
    for (const each of [left, right, ...descriptors]) each.close();
  });

  it('gives no second descriptor of a VM or vCPU, which would escape all checks of its memslots', async (test) => {
    const kvm = calls.openKvm();
    if (kvm < 0) return test.skip(`/dev/kvm cannot be opened (${kvm})`);
    const vm = calls.createVm(kvm, 0);
    const vcpu = calls.createVcpu(vm, 0);
    const borrowed = calls.sharing!.duplicate(vcpu);
    expect(borrowed).toBeGreaterThan(0);
    const [left, right] = UnixConnection.pair(calls);
    const before = openDescriptors();
    for (const fd of [vm, borrowed]) {
      expect(() => Descriptor.duplicate(calls, fd)).toThrow(
        expect.objectContaining({ code: 'EPERM', explanation: expect.stringContaining('Vcpu.attach') }),
      );
    }
    for (const fd of [vm, vcpu, borrowed]) {
      await left.send(Uint8Array.of(1), [fd]);
      await expect(right.receive(new Uint8Array(1), [])).rejects.toMatchObject({ code: 'EPERM' });
    }
    expect(openDescriptors()).toBe(before);
    for (const fd of [borrowed, vcpu, vm, kvm]) expect(calls.close(fd)).toBe(0);
    for (const each of [left, right]) each.close();
  });

  it('takes as many descriptors as a message can carry, and says so of more', async () => {
    const [left, right] = UnixConnection.pair(calls);
    using eventfd = new EventFd(calls);
    await left.send(
      Uint8Array.of(1),
      Array.from({ length: 253 }, () => eventfd.fd),
    );
    const { descriptors } = await receive(right);
    expect(descriptors.length).toBe(253);
    await expect(
      left.send(
        Uint8Array.of(1),
        Array.from({ length: 254 }, () => eventfd.fd),
      ),
    ).rejects.toMatchObject({
      code: 'EINVAL',
    });
    await expect(left.send(Uint8Array.of(1), [-1])).rejects.toMatchObject({ code: 'EBADF', syscall: 'sendmsg' });
    for (const each of [left, right, ...descriptors]) each.close();
  });

  it('closes descriptors for which there is no room', () => {
    const fds = new Int32Array(2);
    expect(calls.sharing!.socketPair(SOCK.STREAM, fds)).toBe(0);
    const [left, right] = fds as unknown as [number, number];
    const eventfd = calls.eventfd(0);
    expect(calls.sharing!.sendMessage(left, Uint8Array.of(1, 2), Int32Array.of(eventfd, eventfd, eventfd))).toBe(2);
    expect(calls.sharing!.sendMessage(left, new Uint8Array(0), Int32Array.of(eventfd))).toBe(-ERRNO.EINVAL);
    const open = openDescriptors();
    const got = new Int32Array(1);
    expect(calls.sharing!.receiveMessage(right, new Uint8Array(8), got)).toBe(2);
    expect(openDescriptors()).toBe(open + 1);
    expect(calls.sharing!.receiveMessage(right, new Uint8Array(8), NONE)).toBe(-ERRNO.EAGAIN);
    for (const fd of [got[0]!, left, right, eventfd]) expect(calls.close(fd)).toBe(0);
  });

  it('sends what the socket has no room for when it has, in order', async () => {
    const [left, right] = UnixConnection.pair(calls);
    using eventfd = new EventFd(calls);
    const large = new Uint8Array(4 << 20).map((_, i) => i % 251);
    const sent = Promise.all([
      left.send(large),
      left.send(Buffer.from('tail'), [eventfd.fd]),
      left.send(Buffer.from('!')),
    ]);
    const into = new Uint8Array(large.length);
    const descriptors: Descriptor[] = [];
    expect(await right.receiveAll(into, descriptors)).toBe(true);
    expect(Buffer.compare(into, large)).toBe(0);
    expect(descriptors).toEqual([]);
    const tail = new Uint8Array(5);
    expect(await right.receiveAll(tail, descriptors)).toBe(true);
    expect([text(tail), descriptors.length]).toEqual(['tail!', 1]);
    await sent;
    for (const each of [left, right, ...descriptors]) each.close();
  });

  it('refuses to go on with an array that goes while it waits, and says how far it came', async () => {
    const [one, other] = UnixConnection.pair(calls);
    const go = (bytes: Uint8Array) => structuredClone(bytes.buffer, { transfer: [bytes.buffer as ArrayBuffer] });
    const gone = (size: number) => ({
      code: 'EFAULT',
      size,
      explanation: expect.stringContaining('detached or resized'),
    });
    const first = one.send(new Uint8Array(4 << 20));
    const bytes = new Uint8Array(1000);
    const second = one.send(bytes);
    go(bytes);
    const refused = expect(second).rejects.toMatchObject(gone(1000));
    for (let left = 4 << 20; left > 0; ) left -= await other.receive(new Uint8Array(left), []);
    await first;
    await refused;
    for (const receive of ['receive', 'receiveAll'] as const) {
      const into = new Uint8Array(16);
      const received = expect(one[receive](into, [])).rejects.toMatchObject(gone(16));
      go(into);
      await other.send(Uint8Array.of(1));
      await received;
      await one.receive(new Uint8Array(1), []);
    }
    one.close();
    other.close();
  });

  it('keeps the boundaries of messages when it was made so', async () => {
    const [left, right] = UnixConnection.pair(calls, { type: 'seqpacket' });
    await left.send(Buffer.from('one'));
    await left.send(Buffer.from('another'));
    expect([(await receive(right)).text, (await receive(right)).text]).toEqual(['one', 'another']);
    using eventfd = new EventFd(calls);
    await left.send(new Uint8Array(65), [eventfd.fd]);
    await expect(receive(right)).rejects.toMatchObject({ code: 'EMSGSIZE' });
    left.close();
    right.close();
  });

  it('notices a peer that closes between messages, in the middle of one, and before it could be told', async () => {
    const [left, right] = UnixConnection.pair(calls);
    const whole = right.receiveAll(new Uint8Array(8), []);
    await left.send(new Uint8Array(5));
    left.close();
    await expect(whole).rejects.toMatchObject({ code: 'ECONNRESET', explanation: expect.stringContaining('5 of 8') });
    expect(await right.receiveAll(new Uint8Array(8), [])).toBe(false);
    await expect(right.send(Uint8Array.of(1))).rejects.toMatchObject({ code: 'EPIPE' });
    right.close();
    await expect(right.send(Uint8Array.of(1))).rejects.toMatchObject({
      code: 'EBADF',
      explanation: 'the socket is closed',
    });
    await expect(right.receive(new Uint8Array(1), [])).rejects.toMatchObject({ code: 'EBADF' });
  });

  it('ends what waits when it is closed or told to stop', async () => {
    const [left, right] = UnixConnection.pair(calls);
    const stop = new AbortController();
    const stopped = right.receive(new Uint8Array(1), [], stop);
    const closed = right.receive(new Uint8Array(1), []);
    stop.abort(new Error('enough'));
    await expect(stopped).rejects.toThrow('enough');
    const [near, far] = UnixConnection.pair(calls);
    const full = near.send(new Uint8Array(4 << 20));
    far.close();
    await expect(full).rejects.toMatchObject({ code: 'EPIPE' });
    right.close();
    await expect(closed).rejects.toMatchObject({ code: 'EBADF', explanation: 'the socket is closed' });
    near.close();
    left.close();
  });

  it('is refused on calls that have none', () => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 's390x' });
    expect(() => UnixConnection.pair(kvm.calls)).toThrow(
      expect.objectContaining({ code: 'ENOSYS', explanation: expect.stringContaining('only the addon') }),
    );
  });
});

describe('a listener', () => {
  const path = () => join(folder, `socket-${Math.random().toString(16).slice(2)}`);

  it('gives each connection, and removes its file', async () => {
    const at = path();
    const listener = UnixListener.listen(calls, at);
    const served: string[] = [];
    const serving = (async () => {
      for await (const connection of listener) {
        served.push((await receive(connection)).text);
        expect(connection.peer).toEqual({ pid: process.pid, uid: process.getuid!(), gid: process.getgid!() });
        connection.close();
      }
    })();
    for (const name of ['a', 'b']) {
      const connection = await UnixConnection.connect(calls, at);
      await connection.send(Buffer.from(name));
      expect((await receive(connection)).text).toBe('');
      connection.close();
    }
    expect(existsSync(at)).toBe(true);
    listener.close();
    listener.close();
    await serving;
    expect([served, existsSync(at)]).toEqual([['a', 'b'], false]);
  });

  it.each([ERRNO.EMFILE, ERRNO.ENFILE])(
    'waits while there is no descriptor for a connection: error %i',
    async (errno) => {
      using listener = UnixListener.listen(calls, path());
      const connecting = UnixConnection.connect(calls, listener.path);
      const spy = vi.spyOn(calls.sharing!, 'socketAccept').mockReturnValueOnce(-errno).mockReturnValueOnce(-errno);
      onTestFinished(() => spy.mockRestore());
      await expect(listener.accept()).rejects.toMatchObject({ errno: -errno });
      for await (const connection of listener) {
        connection.close();
        listener.close();
      }
      expect(spy.mock.results.filter(({ value }) => value === -errno)).toHaveLength(2);
      (await connecting).close();
    },
  );

  it('says what is wrong with a path', async () => {
    const at = path();
    await expect(UnixConnection.connect(calls, at)).rejects.toMatchObject({ code: 'ENOENT', explanation: at });
    const long = join(folder, 'x'.repeat(108));
    expect(() => UnixListener.listen(calls, long)).toThrow(expect.objectContaining({ code: 'ENAMETOOLONG' }));
    const listener = UnixListener.listen(calls, at);
    expect(() => UnixListener.listen(calls, at)).toThrow(
      expect.objectContaining({ code: 'EADDRINUSE', explanation: expect.stringContaining('somebody listens') }),
    );
    listener.close();
    calls.close(calls.sharing!.socketListen(at, SOCK.STREAM, 1));
    await expect(UnixConnection.connect(calls, at)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    expect(() => UnixListener.listen(calls, at)).toThrow(
      expect.objectContaining({ code: 'EADDRINUSE', explanation: expect.stringContaining('remove it') }),
    );
    rmSync(at);
  });

  it('leaves a file alone that somebody else has put in its place', () => {
    const at = path();
    const listener = UnixListener.listen(calls, at);
    rmSync(at);
    writeFileSync(at, 'mine');
    listener.close();
    expect(readFileSync(at, 'utf8')).toBe('mine');
  });

  it('makes who connects wait while its queue is full', async () => {
    const at = path();
    const listener = UnixListener.listen(calls, at);
    const connecting = Array.from({ length: 140 }, () => UnixConnection.connect(calls, at));
    await new Promise((resolve) => setTimeout(resolve, 20));
    const accepted: UnixConnection[] = [];
    for (let i = 0; i < connecting.length; i++) accepted.push(await listener.accept());
    for (const each of [...accepted, ...(await Promise.all(connecting)), listener]) each.close();
  });
});

// Processes and workers start slowly on a machine that has other things to do.
describe('between processes', { timeout: 120_000 }, () => {
  it('descriptors and bytes arrive, and a peer that is killed is noticed', async () => {
    const at = join(folder, 'between');
    using listener = UnixListener.listen(calls, at);
    const child = spawnChild('socket', [at], { stdio: ['ignore', 'inherit', 'inherit'] });
    const connection = await listener.accept();
    expect(connection.peer.pid).toBe(child.pid);
    using memfd = new Descriptor(calls, calls.memfdCreate('shared', PAGE, 0));
    await connection.send(Buffer.from('write'), [memfd.fd]);
    expect((await receive(connection)).text).toBe('written');
    const content = Buffer.alloc(9);
    readSync(memfd.fd, content, 0, 9, 0);
    expect(text(content)).toBe('the child');
    const half = expect(connection.receiveAll(new Uint8Array(100), [])).rejects.toMatchObject({
      code: 'ECONNRESET',
      explanation: expect.stringContaining('50 of 100'),
    });
    await connection.send(Buffer.from('half'));
    await Promise.all([half, once(child, 'exit')]);
    connection.close();
  });

  it('a descriptor that was inherited becomes ours', async () => {
    const memfd = calls.memfdCreate('inherited', PAGE, 0);
    const child = spawnChild('inherited', [], { stdio: ['ignore', 'pipe', 'pipe', memfd] });
    expect(await ended(child)).toMatchObject({ status: 0, stdout: 'sealed 2, of our own: true\n', stderr: '' });
    calls.close(memfd);
    expect(() => Descriptor.duplicate(calls, 0x7fff_ffff)).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  it('a process without room for descriptors gets none, and an error', async () => {
    expect(await runChild('no-room')).toMatchObject({ status: 0, stdout: 'EMFILE, nothing left\n', stderr: '' });
  });

  it('a worker that is terminated while it waits leaves nothing', async () => {
    for (let i = 0; i < 3; i++) {
      const worker = new Worker(new URL('../native/children/worker-waits.mjs', import.meta.url));
      await once(worker, 'message');
      await worker.terminate();
    }
  });
});

it('seals what is told to be', () => {
  const memfd = calls.memfdCreate('x', PAGE, 0);
  const { getSeals, addSeals } = calls.sharing!;
  expect(getSeals(memfd)).toBe(SEAL.SHRINK);
  expect(addSeals(memfd, SEAL.GROW | SEAL.SEAL)).toBe(0);
  expect(getSeals(memfd)).toBe(SEAL.SHRINK | SEAL.GROW | SEAL.SEAL);
  expect(addSeals(memfd, SEAL.WRITE)).toBe(-ERRNO.EPERM);
  calls.close(memfd);
});
