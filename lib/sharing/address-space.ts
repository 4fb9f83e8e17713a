import { fstatSync } from 'node:fs';
import { checkFunction, checkInstance, checkInteger, checkOptions, checkText, takeOptions } from '../base/arguments.ts';
import { invalidArgType, KvmError, ofOtherCopy } from '../base/errors.ts';
import { isClosed } from '../calls/failure.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { RegionSet, type RegionSetOptions } from '../memory/region-set.ts';
import type { SpaceChange } from '../memory/space-user.ts';
import { ERRNO } from '../uapi/errno.ts';
import { Binding, type BindingClass, type BoundSpace } from './binding.ts';
import { checkFd, Descriptor, sharingOf } from './descriptor.ts';
import { UnixConnection } from './socket.ts';
import { AttachedSpace, type AttachOptions, checkAttachOptions } from './table/attached-space.ts';
import { MESSAGE_BYTES } from './table/consumer-connection.ts';
import { type Consumer, type ConsumerEvent, Consumers } from './table/consumers.ts';
import { isShareable, SpaceTable, type TableOptions } from './table/space-table.ts';

/** What an address space must know of the machine. */
export interface AddressSpaceOptions extends RegionSetOptions {}

export interface BindOptions {
  /** Who it is, for errors and lists. */
  readonly name?: string;
}

export interface ShareOptions extends TableOptions {
  /** The addon's calls. By default those of the first region that is a memfd. */
  readonly calls?: KvmCalls;
  /** How long memory that was removed is kept for consumers that don't let it go, in milliseconds; 5000 by default. */
  readonly patienceMs?: number;
  /** Called when a consumer has left, died, or is late. */
  readonly onConsumer?: (event: ConsumerEvent) => void;
}

/**
 * Names a shared address space for other threads of the process: plain data, for `postMessage` and `workerData`. It holds
 * nothing: the space must be there when it is used, and somebody must have it, or the collector closes it.
 */
export interface SpaceToken {
  readonly type: 'kvm-bridge.AddressSpace';
  readonly pid: number;
  readonly fd: number;
  readonly inode: bigint;
}

const PATIENCE_MS = 5000;

/**
 * Guest physical memory: a sorted set of regions that don't overlap, each RAM, a device's memory, or MMIO with
 * handlers. It needs no KVM. Any number of VMs is bound to it ({@link Vm.bind}), of the real kernel and of emulated ones at
 * once, and of consumers ({@link bind}); every change is made by all of the VMs, or by none, and then seen by everybody.
 *
 * Others use it from other threads and processes once it is shared ({@link share}): docs/sharing.md.
 *
 * @example
 * const ram = kvm.mapAnonymous(64 << 20);
 * vm.memory.addRam(0, ram);
 * vm.memory.addMmio(0xd000_0000, 0x1000, { read: () => 0x42 }, { name: 'status' });
 * vm.memory.writeU32(0x1000, 0xf4);
 */
export class AddressSpace extends RegionSet implements BoundSpace {
  readonly #bindings = new Set<Binding>();
  #shared: { readonly table: SpaceTable; readonly consumers: Consumers } | undefined;

  constructor(options: AddressSpaceOptions) {
    super(checkOptions(options, { littleEndian: true, pageSize: true }));
    this.follow({
      changing: (region) => {
        for (const binding of this.#bindings) binding.changing(region);
        this.written.gather();
      },
      changed: (change) => this.#tellBindings(change),
    });
  }

  /**
   * Uses the address space of another thread or process.
   * @param source a connection to the owner, who {@link accept}s it, and which is the binding's from now on; or descriptors that
   *   were inherited (the table's first, which stay open); or a token of this process
   * @throws KvmError EPROTO for what is no table, or one that tells what can't be; ESTALE for a token whose space is not there;
   *   ENOSPC when it has as many consumers as it takes; ENOSYS without the addon
   * @example
   * using binding = await AddressSpace.attach(calls, [3, 4], { name: 'disk' });
   */
  static async attach(
    calls: KvmCalls,
    source: UnixConnection | readonly number[] | SpaceToken,
    given: AttachOptions = {},
  ): Promise<Binding> {
    sharingOf(calls, 'duplicate');
    const options = checkAttachOptions(given);
    if (source instanceof UnixConnection) return attachOver(calls, source, options);
    if (Array.isArray(source)) return attachTo(calls, source as readonly number[], options, Binding);
    if (isToken(source)) return attachToken(calls, source, options, Binding);
    const note = ofOtherCopy(source, UnixConnection.name);
    throw invalidArgType('source', 'a UnixConnection, an array of descriptors, or a token', source, note);
  }

  /** Those who use it from within this thread, and have not released it. */
  get bindings(): readonly Binding[] {
    return [...this.#bindings];
  }

  /** Those who use it from other threads and processes; none before {@link share}. */
  get consumers(): readonly Consumer[] {
    return this.#shared?.consumers.list() ?? [];
  }

  /** A counted use of it by somebody outside the VMs. @throws KvmError EBADF when it is closed */
  bind(options: BindOptions = {}): Binding {
    const { name = `consumer ${this.#bindings.size + 1}` } = checkOptions(options, { name: true });
    checkText(name, 'options.name');
    this.hold();
    const binding = new Binding(this, name);
    this.#bindings.add(binding);
    return binding;
  }

  /**
   * Makes the table by which other threads and processes use it. Regions that are no memfds stay ours alone. Does nothing the
   * second time. @throws KvmError ENOSYS without the addon; E2BIG for regions that don't fit; EBADF, ENOMEM, EMFILE
   */
  share(shareOptions: ShareOptions = {}): this {
    const {
      calls,
      patienceMs = PATIENCE_MS,
      onConsumer,
      ...options
    } = takeOptions(shareOptions, {
      calls: true,
      patienceMs: true,
      onConsumer: true,
      regions: true,
      consumers: true,
      end: true,
    });
    if (onConsumer !== undefined) checkFunction(onConsumer, 'options.onConsumer');
    const patience = checkInteger(patienceMs, 'options.patienceMs', 0, Number.MAX_SAFE_INTEGER);
    if (this.#shared !== undefined) return this;
    const chosen = calls ?? this.memoryRegions.find(({ mapping }) => isShareable(mapping))?.mapping.calls;
    if (chosen === undefined) {
      const explanation = "name the addon's `calls`: no region is a memfd, by which they would be known";
      throw new KvmError(ERRNO.ENOSYS, { syscall: 'share', explanation });
    }
    this.hold();
    try {
      const table = new SpaceTable(this, chosen, options);
      const consumers = new Consumers(this, table, patience, onConsumer);
      // Whoever died in the middle of a write has left pages dirty that nobody knows.
      this.written.addSource(() => consumers.look());
      this.#shared = { table, consumers };
      this.addUser(table);
    } finally {
      this.letGo();
    }
    return this;
  }

  /** Descriptor of the table, which {@link share} makes; −1 when it is not shared, or closed. */
  get fd(): number {
    return this.#shared?.table.memory.mapping.fd ?? -1;
  }

  /** The table's descriptor and those of all memory, for a process that inherits them. @throws KvmError EBADF when it isn't shared */
  get descriptors(): readonly number[] {
    return this.#assertShared('descriptors').table.descriptors;
  }

  /** @internal Where the table's dirty log is; undefined when it isn't shared, or closed. */
  get sharedLog(): { readonly fd: number; readonly offset: number; readonly size: number } | undefined {
    const { memory, closed } = this.#shared?.table ?? { closed: true };
    if (memory === undefined || closed) return undefined;
    return { fd: memory.mapping.fd, offset: memory.shape.logOffset, size: memory.shape.logBytes };
  }

  /** For `attach` in other threads of this process. @throws KvmError EBADF when it isn't shared */
  get token(): SpaceToken {
    const { fd } = this.#assertShared('token').table.memory.mapping;
    return { type: 'kvm-bridge.AddressSpace', pid: process.pid, fd, inode: fstatSync(fd, { bigint: true }).ino };
  }

  /** Hands it to whoever is at the other end of a connection, which is the space's from now on. @throws KvmError EBADF */
  accept(connection: UnixConnection): void {
    this.#assertShared('accept').consumers.accept(checkInstance(connection, 'connection', UnixConnection));
  }

  /**
   * Waits until every consumer knows of every change, so that nobody uses memory any more that was removed or moved.
   * @throws KvmError ETIMEDOUT, naming those who don't know after `timeoutMs`
   */
  async settled(options: { readonly timeoutMs?: number } = {}): Promise<void> {
    const { timeoutMs = PATIENCE_MS } = checkOptions(options, { timeoutMs: true });
    checkInteger(timeoutMs, 'options.timeoutMs', 0, Number.MAX_SAFE_INTEGER);
    await this.#shared?.consumers.settled(timeoutMs);
  }

  /**
   * Gives the regions back: now, or when the last VM and the last binding of this thread go. Other threads and processes keep
   * the memory that they have, and are told. Who has not released it is named by a warning. Does nothing the second time.
   */
  override close(): void {
    if (!this.closed) this.#warnOfUsers();
    super.close();
  }

  /** @internal A binding was released. */
  unbind(binding: Binding): void {
    this.#bindings.delete(binding);
    this.letGo();
  }

  override dropViews(): void {
    super.dropViews();
    for (const binding of this.#bindings) binding.dropViews();
  }

  protected override committed(changes: readonly SpaceChange[]): void {
    this.#shared?.consumers.committing();
    this.#shared?.table.committed(changes);
    this.#shared?.consumers.committed(changes);
  }

  protected override released(): void {
    this.#shared?.table.close();
    this.#shared?.consumers.close();
  }

  #tellBindings({ kind, region }: SpaceChange): void {
    if (kind !== 'remove' && kind !== 'move') return;
    for (const binding of this.#bindings) binding.changed(region, kind);
  }

  #warnOfUsers(): void {
    const names = [...this.bindings, ...this.consumers].map(({ name }) => `'${name}'`);
    if (names.length === 0) return;
    process.emitWarning(`an address space was closed that is still used by ${names.join(', ')}`, {
      code: 'KVM_BRIDGE_STILL_BOUND',
    });
  }

  #assertShared(syscall: string): { readonly table: SpaceTable; readonly consumers: Consumers } {
    if (this.#shared !== undefined && !this.#shared.table.closed) return this.#shared;
    const explanation = this.closed
      ? isClosed('the address space')
      : 'the address space is not shared: share() comes first';
    throw new KvmError(ERRNO.EBADF, { syscall, explanation });
  }
}

async function attachOver(calls: KvmCalls, connection: UnixConnection, options: AttachOptions): Promise<Binding> {
  const descriptors: Descriptor[] = [];
  try {
    if (!(await connection.receiveAll(new Uint8Array(MESSAGE_BYTES), descriptors)) || descriptors.length === 0) {
      const explanation = 'the owner closed the connection, or sent no table';
      throw new KvmError(ERRNO.EPROTO, { syscall: 'attach', explanation });
    }
    const [table, ...memories] = descriptors as [Descriptor, ...Descriptor[]];
    return new AttachedSpace(calls, table, memories, options, Binding, connection).binding;
  } catch (error) {
    for (const descriptor of descriptors) descriptor.close();
    connection.close();
    throw error;
  }
}

/** @internal `AddressSpace.attach` by a token, with a binding of any class. */
export async function attachToken<B extends Binding>(
  calls: KvmCalls,
  token: SpaceToken,
  options: AttachOptions,
  bindingClass: BindingClass<B>,
): Promise<B> {
  return attachTo(calls, [fdOfToken(token)], options, bindingClass);
}

function attachTo<B extends Binding>(
  calls: KvmCalls,
  fds: readonly number[],
  options: AttachOptions,
  bindingClass: BindingClass<B>,
): B {
  const own: Descriptor[] = [];
  try {
    for (const [index, fd] of fds.entries()) checkFd(fd, `source[${index}]`);
    for (const fd of fds) own.push(Descriptor.duplicate(calls, fd));
    const [table, ...memories] = own;
    if (table === undefined) throw invalidArgType('source', "an array that begins with the table's descriptor", fds);
    return new AttachedSpace(calls, table, memories, options, bindingClass).binding;
  } catch (error) {
    for (const descriptor of own) descriptor.close();
    throw error;
  }
}

/** @internal Whether it says that it is one. */
export function isToken(value: unknown): value is SpaceToken {
  return typeof value === 'object' && value !== null && 'type' in value && value.type === 'kvm-bridge.AddressSpace';
}

/** @throws KvmError ESTALE when it names nothing that is there; TypeError, RangeError for what is no token that was ever given */
function fdOfToken({ pid, fd, inode }: SpaceToken): number {
  checkInteger(pid, 'token.pid', 0, 0x7fff_ffff);
  if (typeof inode !== 'bigint') throw invalidArgType('token.inode', 'a bigint', inode);
  const stale = (explanation: string) => new KvmError(ERRNO.ESTALE, { syscall: 'attach', explanation });
  if (pid !== process.pid)
    throw stale(`the token is of process ${pid}, and this is ${process.pid}: connect by a socket`);
  checkFd(fd, 'token.fd');
  let found: bigint | undefined;
  try {
    found = fstatSync(fd, { bigint: true }).ino;
  } catch {
    // Nothing is open there.
  }
  if (found !== inode) throw stale(`the token's address space is closed: descriptor ${fd} is not its table`);
  return fd;
}
