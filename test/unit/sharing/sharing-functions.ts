import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  AddressSpace,
  Descriptor,
  EventFd,
  Mapping,
  SharedDirtyLog,
  UnixConnection,
  UnixListener,
  Vcpu,
} from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { type Attacked, type Functions, methodsOf } from '../handles/functions/table.ts';

type Make = (...args: never[]) => unknown;

/** What a function gives is closed at once, also what it gives later. */
export const closing =
  (make: Make): Attacked[0] =>
  async (...args: never[]) => {
    for (const open of [await make(...args)].flat()) (open as Partial<Disposable>)[Symbol.dispose]?.();
  };

export const construct =
  (of: abstract new (...args: never[]) => unknown): Make =>
  (...args) =>
    Reflect.construct(of, args);

/** Constructors and statics of what is shared. */
export function sharingFunctions(addon: KvmCalls): Functions {
  // Of its many parts none is exchanged here: test/unit/calls/wrapped.test.ts does that.
  const calls = Object.create(addon) as KvmCalls;
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
  const ram = Mapping.memfd(calls, 0x10_0000);
  const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  space.addRam(0, ram);
  space.share({ calls, regions: 4, consumers: 64, end: 2 ** 32 });
  const listener = UnixListener.listen(calls, join(folder, 'there'));
  void (async () => {
    for await (const connection of listener) connection.close();
  })();
  let named = 0;
  // Whoever is refused doesn't take it over.
  let lent: Descriptor | undefined;
  const lend = (): Descriptor => {
    lent?.close();
    lent = new Descriptor(calls, calls.eventfd(0));
    return lent;
  };
  const signal = new AbortController().signal;
  const address = { align: 4096, alignOffset: 0 };
  const attaching = { name: 'x', onChange: () => {}, onEnd: () => {} };
  const vcpu = {
    type: 'kvm-bridge.Vcpu',
    pid: process.pid,
    fd: 0,
    id: 0,
    runSize: 4096,
    space: space.token,
    there: new SharedArrayBuffer(4),
  };
  const attach = closing((source: never) => AddressSpace.attach(calls, source));
  return {
    'AddressSpace.attach': [
      closing(AddressSpace.attach),
      () => ({ calls, source: space.token, options: { name: 'x' } }),
    ],
    // What is no table calls nobody back.
    'AddressSpace.attach to no table': [
      closing(AddressSpace.attach),
      () => ({ calls, source: [ram.fd], options: { ...attaching } }),
    ],
    'AddressSpace.attach by descriptors': [attach, () => ({ source: [...space.descriptors] })],
    'AddressSpace.attach by a token': [attach, () => ({ source: { ...space.token } })],
    'Vcpu.attach': [closing(Vcpu.attach), () => ({ calls, token: { ...vcpu }, options: { name: 'x' } })],
    'Vcpu.attach to what is gone': [
      closing(Vcpu.attach),
      () => ({ calls, token: { ...vcpu, space: { ...space.token, inode: 0n } }, options: { ...attaching } }),
    ],
    'new Descriptor': [
      (...args) => (construct(Descriptor)(...args) as Descriptor).giveUp(),
      () => ({ calls, fd: ram.fd }),
    ],
    'Descriptor.duplicate': [closing(Descriptor.duplicate), () => ({ calls, fd: ram.fd })],
    'new EventFd': [closing(construct(EventFd)), () => ({ calls, initial: 0 })],
    'new EventFd of a descriptor': [
      closing((initial: never) => new EventFd(calls, initial)),
      () => ({ initial: lend() }),
    ],
    'new UnixConnection': [closing(construct(UnixConnection)), () => ({ calls, fd: lend() })],
    'UnixConnection.connect': [
      closing(UnixConnection.connect),
      () => ({ calls, path: listener.path, options: { type: 'stream', signal } }),
    ],
    'UnixConnection.pair': [closing(UnixConnection.pair), () => ({ calls, options: { type: 'seqpacket' } })],
    'UnixListener.listen': [
      closing(UnixListener.listen),
      () => ({ calls, path: join(folder, `${named++}`), options: { type: 'stream' } }),
    ],
    'Mapping.anonymous': [closing(Mapping.anonymous), () => ({ calls, size: 4096, options: { prot: 3, ...address } })],
    'Mapping.memfd': [
      closing(Mapping.memfd),
      () => ({ calls, size: 4096, options: { prot: 3, name: 'x', ...address } }),
    ],
    'Mapping.ofMemfd': [
      closing((size: never, options: never) => Mapping.ofMemfd(calls, calls.memfdCreate('x', 4096, 0), size, options)),
      () => ({ size: 4096, options: { prot: 3, ...address } }),
    ],
    'Mapping.ofMemfd of a descriptor': [
      closing((of: never, fd: never) => Mapping.ofMemfd(of, fd, 4096)),
      () => ({ calls, fd: 0x7fff_ffff }),
    ],
    'Mapping.hugetlb': [closing(Mapping.hugetlb), () => ({ calls, size: 2 << 20, options: { prot: 3 } })],
    'Mapping.file': [
      closing(Mapping.file),
      () => ({ calls, file: process.execPath, options: { prot: 1, offset: 0, size: 4096, shared: false } }),
    ],
    'Mapping.device': [
      closing(Mapping.device),
      () => ({ calls, fd: ram.fd, options: { prot: 3, offset: 0, size: 4096 } }),
    ],
    'Mapping.guestMemfd': [
      closing(Mapping.guestMemfd),
      () => ({ calls, fd: ram.fd, size: 4096, options: { prot: 3 } }),
    ],
    'Mapping.containing': [Mapping.containing, () => ({ calls, hva: ram.hva, size: 4096 })],
    'new SharedDirtyLog': [construct(SharedDirtyLog), () => ({ buffer: new ArrayBuffer(64), offset: 0, length: 64 })],
    ...methodsOf('SharedDirtyLog', () => new SharedDirtyLog(new ArrayBuffer(64), 0, 64), {
      mark: () => ({ start: 0, length: 4096 }),
      take: () => ({ start: 0, end: 4096, callback: () => {} }),
    }),
  };
}
