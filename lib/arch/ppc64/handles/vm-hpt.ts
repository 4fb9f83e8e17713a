import type { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import {
  checkBoolean,
  checkBytes,
  checkInstance,
  checkInteger,
  checkObject,
  checkOptions,
  checkSignal,
  checkU64,
  isBytes,
  type NamesOf,
  takeOptions,
} from '../../../base/arguments.ts';
import { hex, invalidArgType, KvmError, ofOtherCopy, outOfRange } from '../../../base/errors.ts';
import type { U64 } from '../../../base/u64.ts';
import { type Callee, callFailure } from '../../../calls/failure.ts';
import type { Ppc64Calls } from '../../../calls/kvm-calls.ts';
import type { CallName } from '../../../calls/signatures.ts';
import { explain, type Rule } from '../../../rules/rule.ts';
import { isLittleEndianHost } from '../../../uapi/arch.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { HTAB, MMUV3 } from '../../../uapi/flags.ts';
import { KVM_PPC_SMMU_INFO } from '../../../uapi/structs.ts';
import { ExplainedHashTranslation } from '../model/explained-translation.ts';
import { entriesOf, HPT_ORDER } from '../model/hash.ts';
import { Htab } from '../model/htab.ts';
import { chunksRead, type HtabChunkBytes, type HtabSlot } from '../model/htab-chunk.ts';
import {
  applyHtabStream,
  encodeHtabStream,
  type HtabChunk,
  type HtabLoops,
  type HtabStreamFormat,
} from '../model/htab-stream.ts';
import type { Segment } from '../model/slb.ts';
import { decodeSmmuInfo, type SmmuInfo } from '../model/smmu-info.ts';
import { checkTranslation, explainTranslation, type TranslateOptions } from '../model/translate.ts';
import {
  ALLOCATE_HTAB_RULES,
  COMMIT_HPT_RULES,
  CONFIGURE_V3_RULES,
  HTAB_CHUNK_RULES,
  HTAB_WRITE_RULES,
  NEW_HTAB_RULES,
  PATB_GR,
  REHASH_COLLISION,
  RESIZE_HPT_RULES,
  SWITCH_MMU_RULES,
} from '../rules.ts';
import { checkCopyOptions, copyPasses, type HtabCopyOptions, type HtabCopyPass } from './htab-copy.ts';
import { type HtabReadBudget, HtabReader, HtabWriter } from './htab-fd.ts';
import {
  type HtabReadStreamOptions,
  type HtabWriteStreamOptions,
  readStreamOf,
  writeStreamOf,
} from './htab-node-streams.ts';
import { LiveGroups, largePageOf } from './live-groups.ts';

const READER_OPTIONS: NamesOf<HtabReaderOptions> = { boltedOnly: true, startIndex: true };
const BUDGET_OPTIONS: NamesOf<HtabReaderOptions & HtabReadBudget> = {
  ...READER_OPTIONS,
  maxBytes: true,
  maxMs: true,
  signal: true,
};

/** The VM whose table it is. */
export interface HptOwner extends Callee {
  readonly vcpus: readonly { readonly id: number; readonly running: boolean }[];
}

export interface HtabReaderOptions {
  /** Only bolted entries; all others are told of as empty, so that writing what is read erases them. */
  readonly boltedOnly?: boolean;
  /** Slot at which the first pass begins. */
  readonly startIndex?: number;
}

/** What CONFIGURE_V3_MMU sets. */
export interface V3MmuConfig {
  /** Radix, in place of the hashed page table. */
  readonly radix: boolean;
  /** The guest may use tlbie. */
  readonly gtse?: boolean;
  /** The guest's process table: its address, and its size as log2 − 12. Bit 63 is set for radix. */
  readonly processTable?: U64;
}

export interface ResizeOptions {
  /** Aborting takes back what was prepared. */
  readonly signal?: AbortSignal;
}

/** Bytes of a read that only asks whether a slot is there. */
const PROBE_BYTES = 32;

/**
 * The hashed page table of a ppc64 VM (Book3S HV, KVM 3.16 and later): allocating and resizing it, reading it in
 * passes and writing it, translating through it.
 *
 * @example
 * vm.hpt.allocate(24);
 * const table = vm.hpt.read();
 * await vm.hpt.copyTo(other, { stop: () => stopAllVcpus() });
 * console.log(vm.hpt.translate(0xc000_0000_0000_0000n, slb));
 */
export class VmHpt {
  /** How streams of this host are read and written: byte order of the chunks' headers, and the addon's loops. */
  readonly format: HtabStreamFormat & { readonly headers: 'little' | 'big' };
  readonly #owner: HptOwner;
  readonly #ppc64: Ppc64Calls;
  readonly #readers = new Set<HtabReader>();
  readonly #writers = new Set<HtabWriter>();
  /** The order that was right when last asked. */
  #order: number = HPT_ORDER.MIN;
  #prepared: number | undefined;
  /** Counts the tables there were, one that was emptied included. */
  #generation = 0;

  /** Made by {@link Vm.hpt}. */
  constructor(owner: HptOwner, ppc64: Ppc64Calls, loops?: HtabLoops) {
    this.#owner = owner;
    this.#ppc64 = ppc64;
    this.format = { headers: isLittleEndianHost(owner.calls.arch) ? 'little' : 'big', loops };
  }

  /**
   * KVM_PPC_ALLOCATE_HTAB: an empty table of 2^order bytes, 16 per entry. A radix VM becomes a hash one. A table of
   * the same order is emptied; one of another order is freed before the kernel asks for memory for the new one, and if
   * there is none the VM has no table.
   * @param order 18 to 46
   * @throws RangeError for any other order: none is sent, since the kernel would free the table first and then refuse,
   *   and 0 crashes known kernels; KvmError ENOMEM; EBUSY while a vCPU runs on the table; EOPNOTSUPP on a host that is
   *   itself a guest
   */
  allocate(order: number): void {
    checkInteger(order, 'order', HPT_ORDER.MIN, HPT_ORDER.MAX);
    const result = this.#ppc64.allocateHtab(this.#owner.fd, order);
    // Without memory for the new table the old one has gone all the same.
    if (result >= 0 || result === -ERRNO.ENOMEM) this.#generation++;
    if (result >= 0) return;
    const context = {
      order,
      runningVcpus: this.#runningVcpus,
      nested: result === -ERRNO.EOPNOTSUPP,
      hostOrder: result === -ERRNO.ENOMEM ? order - 1 : HPT_ORDER.MAX,
    };
    throw this.#refusal(result, 'allocateHtab', [...ALLOCATE_HTAB_RULES, ...NEW_HTAB_RULES], context);
  }

  /**
   * The order of the table; undefined when there is none, as before the first KVM_RUN, or with radix. Found out by
   * looking which slots can be read, so that it is right whoever made the table.
   * @throws KvmError EBADF, EMFILE
   */
  getOrder(): number | undefined {
    const has = (order: number): boolean => order <= HPT_ORDER.MAX && this.#hasSlot(entriesOf(order) - 1);
    if (has(this.#order) && !this.#hasSlot(entriesOf(this.#order))) return this.#order;
    if (!has(HPT_ORDER.MIN)) return undefined;
    let order: number = HPT_ORDER.MIN;
    while (has(order + 1)) order++;
    this.#order = order;
    return order;
  }

  [inspect.custom](): string {
    if (this.#owner.closed) return 'VmHpt (closed)';
    const order = this.getOrder();
    return order === undefined ? 'VmHpt without a table' : `VmHpt of order ${order}, ${entriesOf(order)} slots`;
  }

  /**
   * KVM_PPC_RESIZE_HPT_PREPARE: begins to allocate a table of another order; 0 takes that back.
   * @returns 0 when it is ready, else an estimate of the milliseconds it takes
   * @throws KvmError EINVAL; ENOMEM when the host has not enough
   */
  prepareResize(order: number): number {
    checkInteger(order, 'order', 0, 0xffff_ffff);
    const result = this.#ppc64.resizeHptPrepare(this.#owner.fd, 0, order);
    if (result < 0) {
      const context = { flags: 0n, order, radix: this.getOrder() === undefined };
      throw this.#refusal(result, 'resizeHptPrepare', RESIZE_HPT_RULES, context);
    }
    this.#prepared = order === 0 ? undefined : order;
    return result;
  }

  /**
   * KVM_PPC_RESIZE_HPT_COMMIT: puts the prepared table in place of the old one. vCPUs are held meanwhile. Only bolted
   * entries get over; KVM doesn't tell open readers of that, so that they are of no use any more (ESTALE).
   * @throws KvmError EINVAL; EIO before any vCPU has run; ENXIO when it was not prepared; EBUSY when it is not ready;
   *   ENOSPC when bolted entries collide in a smaller table
   */
  commitResize(order: number): void {
    checkInteger(order, 'order', 0, 0xffff_ffff);
    const result = this.#ppc64.resizeHptCommit(this.#owner.fd, 0, order);
    const prepared = this.#prepared;
    this.#prepared = undefined;
    if (result >= 0) this.#generation++;
    if (result >= 0) return;
    const context = {
      flags: 0n,
      order,
      radix: this.getOrder() === undefined,
      ready: result !== -ERRNO.EIO,
      prepared,
    };
    const why = {
      [-ERRNO.ENOSPC]: REHASH_COLLISION,
      [-ERRNO.EBUSY]: 'the new table is not allocated yet: prepareResize(), until it gives 0',
    }[result];
    if (why !== undefined) throw this.#error(result, 'resizeHptCommit', why);
    throw this.#refusal(result, 'resizeHptCommit', COMMIT_HPT_RULES, context);
  }

  /**
   * Gives the table another order while vCPUs may run: prepares, waits, commits.
   * @throws the signal's reason, what was prepared being taken back; KvmError as {@link prepareResize} and
   *   {@link commitResize}
   */
  async resize(order: number, options: ResizeOptions = {}): Promise<void> {
    const signal = checkSignal(checkOptions(options, { signal: true }).signal, 'options.signal');
    if (order === 0) throw outOfRange('order', '18 to 46', order);
    signal?.throwIfAborted();
    for (let wait = this.prepareResize(order); wait > 0; wait = this.prepareResize(order)) {
      try {
        await sleep(wait, undefined, signal === undefined ? {} : { signal });
      } catch {
        if (!this.#owner.closed) this.prepareResize(0);
        signal?.throwIfAborted();
      }
    }
    this.commitResize(order);
  }

  /**
   * KVM_PPC_GET_HTAB_FD for reading. As long as a reader is open KVM notes changes; close it.
   * @throws KvmError EMFILE; EBUSY for one with `boltedOnly` beside one without, which would take changes away from it
   */
  openReader(options: HtabReaderOptions = {}): HtabReader {
    const { boltedOnly = false, startIndex = 0 } = checkOptions(options, READER_OPTIONS);
    checkBoolean(boltedOnly, 'options.boltedOnly');
    checkU64(startIndex, 'options.startIndex');
    if ([...this.#readers].some((reader) => reader.boltedOnly !== boltedOnly)) {
      const explanation =
        'KVM tells only one reader of a change, and a reader of bolted entries hides what it reads of others: close the other reader first';
      throw this.#error(-ERRNO.EBUSY, 'getHtabFd', explanation);
    }
    const reader = new HtabReader(this.#owner.calls, this.#openFd(this.#flags(boltedOnly), startIndex), boltedOnly, {
      format: this.format,
      generation: () => this.#generation,
      tellOthers: (teller, bytes) => this.#tellOthers(teller, bytes),
      closed: (closing) => this.#readers.delete(closing),
    });
    this.#readers.add(reader);
    return reader;
  }

  /** KVM_PPC_GET_HTAB_FD for writing. @throws KvmError EMFILE */
  openWriter(): HtabWriter {
    const writer = new HtabWriter(this.#owner.calls, this.#openFd(HTAB.WRITE, 0), {
      format: this.format,
      entryCount: () => {
        const order = this.getOrder();
        return order === undefined ? undefined : entriesOf(order);
      },
      explainWrite: (errno, chunk, bytes) => this.#explainWrite(errno, chunk, bytes),
      closed: (closing) => this.#writers.delete(closing),
    });
    this.#writers.add(writer);
    return writer;
  }

  /**
   * The whole table as it is now, in memory of its own.
   * @throws KvmError EINVAL when there is none; EMFILE
   */
  read(options: Pick<HtabReaderOptions, 'boltedOnly'> = {}): Htab {
    const table = new Htab(this.#requireOrder('read'));
    using reader = this.openReader(checkOptions(options, { boltedOnly: true }));
    for (let chunk = reader.next(); chunk !== undefined; chunk = reader.next()) {
      applyHtabStream(table, chunk.bytes, this.format);
    }
    return table;
  }

  /**
   * Writes a whole table, empty slots included, or a stream. As {@link HtabWriter.write}.
   * @throws RangeError for a table of another order; HtabStreamError; KvmError EBUSY, EINVAL, EIO
   */
  write(source: Htab | Uint8Array): void {
    const isTable = source instanceof Htab;
    if (!isTable) checkStream(source);
    if (isTable && source.order !== this.#requireOrder('write')) {
      throw outOfRange('source.order', `the order of the VM's table, ${this.#order}`, source.order);
    }
    using writer = this.openWriter();
    writer.write(isTable ? encodeHtabStream(source, this.format) : source);
  }

  /** The chunks of one pass over the whole table, up to a budget. @throws as {@link HtabReader.chunks} */
  async *chunks(options: HtabReaderOptions & HtabReadBudget = {}): AsyncGenerator<HtabChunkBytes, void, undefined> {
    const { boltedOnly = false, startIndex = 0, ...budget } = takeOptions(options, BUDGET_OPTIONS);
    using reader = this.openReader({ boltedOnly, startIndex });
    yield* reader.chunks(budget);
  }

  /** The valid entries of the whole table, up to a budget. @throws as {@link HtabReader.entries} */
  async *entries(options: HtabReaderOptions & HtabReadBudget = {}): AsyncGenerator<HtabSlot, void, undefined> {
    const { boltedOnly = false, startIndex = 0, ...budget } = takeOptions(options, BUDGET_OPTIONS);
    using reader = this.openReader({ boltedOnly, startIndex });
    yield* reader.entries(budget);
  }

  /** The stream of one pass, or more, as a Readable. @throws KvmError as {@link openReader} */
  createReadStream(options: HtabReadStreamOptions = {}): Readable {
    return readStreamOf((boltedOnly) => this.openReader({ boltedOnly }), options);
  }

  /**
   * A Writable for a stream in pieces of any size. It fails as {@link HtabWriter.write} does, and with ESTALE when the table is
   * allocated, resized or freed between two pieces. A stream that tells of more than `maxTurns` times the table's slots is refused with an
   * HtabStreamError `repeats`; what was written before stays. @throws KvmError EMFILE
   */
  createWriteStream(options: HtabWriteStreamOptions = {}): Writable {
    return writeStreamOf(
      () => this.openWriter(),
      this.format,
      () => this.#generation,
      options,
    );
  }

  /**
   * Copies the table into another VM, while vCPUs of this one run: pass after pass until little changes, then `stop`,
   * then a last pass. The other VM's memslots must be there, and its vCPUs not run; it gets a table of the same order
   * unless it has one. When either table is allocated or resized meanwhile, the copy begins anew, with a pass 0; what is
   * returned are the passes of the last time.
   * @throws the signal's reason; KvmError EINVAL when there is no table, EBUSY while the other VM runs, EIO for an
   *   entry that its host cannot map
   * @example await vm.hpt.copyTo(other, { stop: () => pauseGuest() })
   */
  async copyTo(target: { readonly hpt: VmHpt }, options: HtabCopyOptions = {}): Promise<readonly HtabCopyPass[]> {
    const hpt = checkInstance(checkObject(target, 'target').hpt, 'target.hpt', VmHpt);
    const copyOptions = checkCopyOptions(options);
    const { signal } = copyOptions;
    let stopped: Promise<void> | undefined;
    const stop = (): Promise<void> => {
      stopped ??= Promise.resolve(copyOptions.stop?.());
      return stopped;
    };
    for (;;) {
      signal?.throwIfAborted();
      const order = this.#requireOrder('copyTo');
      if (hpt.getOrder() !== order) hpt.allocate(order);
      const into = hpt.#generation;
      using reader = this.openReader();
      using writer = hpt.openWriter();
      const isStale = (): boolean => reader.isStale || hpt.#generation !== into;
      const passes = await copyPasses(reader, writer, isStale, { ...copyOptions, stop });
      if (passes !== undefined) return passes;
    }
  }

  /**
   * Translates an effective address through the VM's table as it is, and tells every step. Only the two groups that
   * the address hashes to are read, and R and C are left alone.
   * @throws RangeError when `ea` isn't a u64; KvmError EINVAL without a table
   * @example console.log(vm.hpt.translate(0x1000, [vrmaSegment()]))
   */
  translate(ea: U64, slb: readonly Segment[], options: TranslateOptions = {}): ExplainedHashTranslation {
    checkTranslation(slb, options);
    const order = this.#requireOrder('translate');
    const table = new LiveGroups(order, (slot) => this.#readGroup(slot));
    return new ExplainedHashTranslation(BigInt(checkU64(ea, 'ea')), explainTranslation(table, slb, ea, options));
  }

  /** KVM_PPC_GET_SMMU_INFO: what the hash MMU of the host can do. @throws KvmError EBADF */
  smmuInfo(): SmmuInfo {
    const bytes = new Uint8Array(KVM_PPC_SMMU_INFO.structSize);
    const result = this.#ppc64.getSmmuInfo(this.#owner.fd, bytes);
    if (result < 0) throw this.#error(result, 'getSmmuInfo');
    return decodeSmmuInfo(bytes, this.format.headers === 'little');
  }

  /**
   * KVM_PPC_CONFIGURE_V3_MMU (POWER9 and later): radix or hash. Changing to radix frees the table.
   * @throws KvmError EINVAL; EBUSY while a vCPU runs
   */
  configureV3Mmu(config: V3MmuConfig): void {
    const {
      radix,
      gtse = false,
      processTable = 0,
    } = checkOptions(config, { radix: true, gtse: true, processTable: true }, 'config');
    checkBoolean(radix, 'config.radix');
    checkBoolean(gtse, 'config.gtse');
    const flags = (radix ? MMUV3.RADIX : 0n) | (gtse ? MMUV3.GTSE : 0n);
    const word = BigInt(checkU64(processTable, 'config.processTable')) | (radix ? PATB_GR : 0n);
    const result = this.#ppc64.configureV3Mmu(this.#owner.fd, flags, word);
    if (result >= 0 && radix) this.#generation++;
    if (result >= 0) return;
    const context = { flags, processTable: word, runningVcpus: this.#runningVcpus };
    const rules = [...CONFIGURE_V3_RULES, ...SWITCH_MMU_RULES];
    throw this.#refusal(result, 'configureV3Mmu', rules, context);
  }

  /** @internal The VM is closed: so are the descriptors of its table, which would keep it in the kernel. */
  close(): void {
    for (const fd of [...this.#readers, ...this.#writers]) fd.close();
  }

  get #runningVcpus(): readonly number[] {
    return this.#owner.vcpus.filter(({ running }) => running).map(({ id }) => id);
  }

  #flags(boltedOnly: boolean): number {
    return boltedOnly ? HTAB.BOLTED_ONLY : 0;
  }

  #openFd(flags: number, startIndex: U64): number {
    const fd = this.#ppc64.getHtabFd(this.#owner.fd, flags, startIndex);
    if (fd < 0) throw this.#error(fd, 'getHtabFd');
    return fd;
  }

  #tellOthers(teller: HtabReader | undefined, bytes: Uint8Array): void {
    for (const reader of this.#readers) if (reader !== teller) reader.owe(bytes);
  }

  /** One read(2) from a slot on, which open readers are told of. */
  #readAt(slot: number, count: number): Uint8Array {
    const { calls } = this.#owner;
    const [other] = this.#readers;
    const fd = this.#openFd(this.#flags(other?.boltedOnly ?? false), slot);
    try {
      const into = new Uint8Array(count);
      const length = calls.read(fd, into);
      if (length < 0) throw this.#error(length, 'read');
      const bytes = into.subarray(0, length);
      this.#tellOthers(undefined, bytes);
      return bytes;
    } finally {
      calls.close(fd);
    }
  }

  #hasSlot(slot: number): boolean {
    return this.#readAt(slot, PROBE_BYTES).length > 0;
  }

  #readGroup(slot: number): readonly HtabChunkBytes[] {
    return chunksRead(this.#readAt(slot, LiveGroups.READ_BYTES), this.format);
  }

  /** @param syscall what errors call it that needs a table */
  #requireOrder(syscall: string): number {
    const order = this.getOrder();
    if (order !== undefined) return order;
    const explanation =
      'the VM has no hashed page table (it begins with radix on POWER9): allocate one, or write one that was saved';
    throw new KvmError(ERRNO.EINVAL, { syscall, explanation });
  }

  #explainWrite(errno: number, chunk: HtabChunk, bytes: Uint8Array): string | undefined {
    const order = this.getOrder();
    const context = { radix: order === undefined, runningVcpus: this.#runningVcpus };
    const entryCount = order === undefined ? 0 : entriesOf(order);
    const known =
      explain(HTAB_WRITE_RULES, context, errno) ?? explain(HTAB_CHUNK_RULES, { ...chunk, entryCount }, errno);
    if (known !== undefined || errno !== -ERRNO.EIO) return known;
    const { pageSize } = this.#owner.calls;
    const large = largePageOf(chunk, bytes, pageSize);
    const why = `an entry of slots ${chunk.index} to ${chunk.index + chunk.nValid - 1} cannot be mapped by this host`;
    if (large === undefined) return why;
    return `${why}: slot ${large.slot} has a page of ${hex(2 ** large.entry.shift)} bytes, larger than the host's of ${hex(pageSize)}, for which the memory behind it must be of pages that large and the memslot aligned to them`;
  }

  #error(errno: number, call: CallName, explanation?: string): KvmError {
    return callFailure(call, errno, this.#owner, { explanation });
  }

  #refusal<Context>(errno: number, call: CallName, rules: readonly Rule<Context>[], context: Context): KvmError {
    return this.#error(errno, call, explain(rules, context, errno));
  }
}

/** Checks what is written where it is no table: the bytes of a stream. */
function checkStream(source: Uint8Array): void {
  if (!isBytes(source)) {
    const note = ofOtherCopy(source, Htab.name);
    throw invalidArgType('source', 'an instance of Htab or Uint8Array', source, note);
  }
  checkBytes(source, 'source');
}
