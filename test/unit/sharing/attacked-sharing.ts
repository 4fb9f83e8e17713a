import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  AddressSpace,
  type Binding,
  Descriptor,
  EventFd,
  Mapping,
  type MemoryRegion,
  UnixConnection,
  UnixListener,
  type Vmap,
} from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { attachToken } from '../../../lib/sharing/address-space.ts';
import { GuestBinding } from '../../../lib/sharing/guest-binding.ts';
import type { Arena } from '../handles/attack.ts';
import { openDescriptors } from './host.ts';

export const UNIT = 0x10_0000;

/** One of everything that shares memory, on the addon. */
export interface Sharing {
  readonly calls: KvmCalls;
  readonly folder: string;
  readonly ram: Mapping;
  readonly spare: Mapping;
  readonly region: MemoryRegion;
  /** Shared, and used by the two that follow. */
  readonly space: AddressSpace;
  readonly binding: Binding;
  readonly vmap: Vmap;
  readonly attached: Binding;
  readonly guest: GuestBinding;
  /** Not shared yet. */
  readonly alone: AddressSpace;
  readonly one: UnixConnection;
  readonly other: UnixConnection;
  readonly listener: UnixListener;
  readonly waiting: UnixConnection;
  readonly eventfd: EventFd;
  readonly descriptor: Descriptor;
  readonly made: { descriptors: Descriptor[]; closed: boolean };
}

const SIZES = { littleEndian: true, pageSize: 4096 };
const SHARES = { regions: 4, consumers: 8, end: 2 ** 32 };

async function make(calls: KvmCalls): Promise<Sharing> {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
  const ram = Mapping.memfd(calls, UNIT);
  const spare = Mapping.memfd(calls, UNIT);
  const space = new AddressSpace(SIZES);
  const region = space.addRam(0, ram);
  space.share({ calls, ...SHARES });
  const alone = new AddressSpace(SIZES);
  const binding = space.bind({ name: 'attacked' });
  const [one, other] = UnixConnection.pair(calls);
  await other.send(new Uint8Array(64));
  const path = join(folder, 'socket');
  const listener = UnixListener.listen(calls, path);
  return {
    calls,
    folder,
    ram,
    spare,
    region,
    space,
    binding,
    vmap: binding.vmap(0, 64, { write: true }),
    attached: await AddressSpace.attach(calls, space.token, { name: 'elsewhere' }),
    guest: await attachToken(calls, space.token, {}, GuestBinding),
    alone,
    one,
    other,
    listener,
    waiting: await UnixConnection.connect(calls, path),
    eventfd: new EventFd(calls, 1),
    descriptor: Descriptor.duplicate(calls, ram.fd),
    made: { descriptors: [], closed: false },
  };
}

function close(sharing: Sharing): void {
  const { folder, ram, spare, space, alone, attached, guest, made } = sharing;
  const { one, other, listener, waiting, eventfd, descriptor } = sharing;
  for (const binding of [...space.bindings, ...alone.bindings, attached, guest]) binding.release();
  for (const descriptor of made.descriptors.splice(0)) descriptor.close();
  for (const open of [space, alone, one, other, listener, waiting, eventfd, descriptor, ram, spare]) open.close();
  rmSync(folder, { recursive: true, force: true });
  made.closed = true;
}

function state({ space, alone, binding, attached, one, other, eventfd, ram, spare, made }: Sharing): unknown {
  return {
    closed: [space, alone, one, other, eventfd, ram, spare].map((open) => open.closed),
    released: [binding.released, attached.released],
    regions: [space, alone].map((memory) => [...memory.regions()].map(String)),
    seen: attached.regions.map(String),
    vmaps: [binding, attached].map(({ vmaps }) => vmaps.length),
    users: [space, alone].map(({ bindings, users }) => [bindings.length, users.length]),
    consumers: space.consumers.map(({ name }) => name),
    shared: [space.fd >= 0, alone.fd >= 0],
    pins: [ram.pins, spare.pins],
    made: made.descriptors.length,
    descriptors: openDescriptors(),
  };
}

function verify({ space, attached, binding, vmap }: Sharing, works: boolean): void {
  if (!works || binding.released || attached.released || space.find(0) === undefined) return;
  attached.writeU32(64, 0x1234_5678);
  if (binding.readU32(64) !== 0x1234_5678) throw new Error('memory does not hold what was written');
  attached.writeU32(64, 0);
  if (vmap.active && vmap.bytes.length !== 64) throw new Error('the view has lost its array');
}

export function arenaOf(calls: KvmCalls): Arena<Sharing> {
  let usual: number | undefined;
  return {
    make: () => make(calls),
    close: (sharing) => {
      if (!sharing.made.closed) close(sharing);
    },
    state,
    verify,
    leftOf: ({ ram, spare }) => {
      if (ram.pins + spare.pins !== 0) return `mappings are pinned ${ram.pins}, ${spare.pins} times`;
      const open = openDescriptors();
      usual ??= open;
      return open <= usual ? undefined : `${open} descriptors are open, and were ${usual}`;
    },
    patience: 50,
    sabotage: {
      'closes the mapping': ({ spare }) => spare.close(),
      'closes the space': ({ space }) => space.close(),
      'releases the binding': ({ binding }) => binding.release(),
      'releases the attached binding': ({ attached }) => attached.release(),
      'closes everything': close,
    },
  };
}
