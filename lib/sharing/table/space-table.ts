import { fstatSync } from 'node:fs';
import { checkInteger, checkU64 } from '../../base/arguments.ts';
import { hex, KvmError } from '../../base/errors.ts';
import { counted } from '../../base/text.ts';
import type { U64 } from '../../base/u64.ts';
import { callError } from '../../calls/failure.ts';
import { type KvmCalls, type SharingCalls, VIEW_WINDOW } from '../../calls/kvm-calls.ts';
import type { CallName } from '../../calls/signatures.ts';
import type { Mapping } from '../../memory/mapping.ts';
import type { MemoryRegion } from '../../memory/region.ts';
import type { RegionSet } from '../../memory/region-set.ts';
import type { SpaceChange, SpaceUser } from '../../memory/space-user.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { SEAL } from '../../uapi/flags.ts';
import { sharingOf } from '../descriptor.ts';
import {
  CONSUMER,
  HEADER,
  HOST_IS_LITTLE_ENDIAN,
  LITTLE_ENDIAN_GUEST,
  LOG_PAGE,
  MAGIC,
  OWNER_LOCK,
  putText,
  REGION,
  REGION_FLAG,
  shapeOf,
  VERSION,
} from './layout.ts';
import { TableMemory } from './table-memory.ts';

/** How large the table of a space is made. */
export interface TableOptions {
  /** Most regions that the space can have while it is shared; 1024 by default. */
  readonly regions?: number;
  /** Most consumers at a time; 64 by default. */
  readonly consumers?: number;
  /** Guest physical addresses that the dirty log has bits for: no region may end beyond. 2^40 by default, 2^44 at most; rounded up to 2 GiB. */
  readonly end?: U64;
}

const MOST_END = 2 ** 44;

/** With the lock goes the owner, for those who use a space that nobody here has any more. */
const dropped = new FinalizationRegistry<{ readonly calls: KvmCalls; readonly fd: number }>(({ calls, fd }) =>
  calls.close(fd),
);

/** The inodes of memfds, by which a consumer knows which is which. */
const inodes = new WeakMap<Mapping, bigint>();

/** Whether others can be given the memory: only a memfd of this machine. */
export function isShareable({ kind, fd, calls }: Mapping): boolean {
  return kind === 'memfd' && fd >= 0 && calls.sharing !== undefined;
}

/** @throws Error of fs.fstat */
export function inodeOf(mapping: Mapping): bigint {
  let inode = inodes.get(mapping);
  if (inode === undefined) {
    inode = fstatSync(mapping.fd, { bigint: true }).ino;
    inodes.set(mapping, inode);
  }
  return inode;
}

/**
 * An address space as others see it: a memfd with the regions, a record for each consumer, and the dirty log. Nothing of it is
 * believed here: everybody who has it can write it. What consumers wrote becomes dirty when pages are collected.
 */
export class SpaceTable implements SpaceUser {
  readonly calls: KvmCalls;
  readonly memory: TableMemory;
  readonly onlyChecks = true;
  readonly #space: RegionSet;
  readonly #sharing: SharingCalls;
  /** Its locks are ours alone: whoever is given the table's descriptor has another open file description. */
  readonly #lockFd: number;
  readonly #gather = () => this.gather();

  /** @throws KvmError ENOSYS without the addon, E2BIG when the regions don't fit, ENOMEM, EMFILE */
  constructor(space: RegionSet, calls: KvmCalls, options: TableOptions) {
    const sharing = sharingOf(calls, 'addSeals');
    const regions = checkInteger(options.regions ?? 1024, 'options.regions', 1, 0x10_0000);
    const consumers = checkInteger(options.consumers ?? 64, 'options.consumers', 1, 0x1_0000);
    const end = checkInteger(
      Number(checkU64(options.end ?? 2 ** 40, 'options.end')),
      'options.end',
      LOG_PAGE,
      MOST_END,
    );
    const shape = shapeOf(regions, consumers, Math.ceil(end / LOG_PAGE / 8));
    if (shape.tableBytes > VIEW_WINDOW) {
      throw new KvmError(ERRNO.E2BIG, {
        syscall: 'share',
        size: shape.tableBytes,
        explanation: 'the table may have 1 GiB',
      });
    }
    this.#space = space;
    this.#sharing = sharing;
    this.calls = calls;
    const fd = this.#check('memfdCreate', calls.memfdCreate('kvm-bridge-space', shape.tableBytes, 0));
    const mapping = TableMemory.map(calls, fd, shape.tableBytes);
    if (mapping === undefined) {
      const explanation = 'the memfd cannot be mapped directly (vm.overcommit_memory is 2, or calls are recorded)';
      throw new KvmError(ERRNO.ENOMEM, { syscall: 'share', size: shape.tableBytes, explanation });
    }
    this.memory = new TableMemory(mapping, shape);
    this.#lockFd = sharing.reopen(fd);
    try {
      this.#check('reopen', this.#lockFd);
      dropped.register(this, { calls, fd: this.#lockFd }, this);
      this.#check('lockRange', sharing.lockRange(this.#lockFd, OWNER_LOCK.START, OWNER_LOCK.LENGTH));
      this.#check('addSeals', sharing.addSeals(fd, SEAL.GROW | SEAL.SEAL));
      for (const region of space.memoryRegions) this.add(region);
    } catch (error) {
      this.#closeFiles();
      throw error;
    }
    this.#writeHeader();
    this.publish();
    space.written.addSource(this.#gather);
  }

  get closed(): boolean {
    return this.memory.mapping.closed;
  }

  /** The table's descriptor, and those of the memory in ascending order of first address. */
  get descriptors(): readonly number[] {
    const mappings = this.#space.memoryRegions.map(({ mapping }) => mapping).filter(isShareable);
    return [this.memory.mapping.fd, ...new Set(mappings.map(({ fd }) => fd))];
  }

  /** Whether there is room for a region. @throws KvmError E2BIG */
  add(region: MemoryRegion): void {
    const { maxRegions } = this.memory.shape;
    if (this.#space.memoryRegions.length > maxRegions - (this.#space.memoryRegions.includes(region) ? 0 : 1)) {
      throw this.#tooBig(
        region,
        `the shared table has room for ${counted(maxRegions, 'region')}: share the space with more`,
      );
    }
    this.#requireInLog(region, region.start);
    if (!isShareable(region.mapping)) return;
    const seals = SEAL.SHRINK | SEAL.GROW;
    const { fd } = region.mapping;
    // EPERM: somebody has sealed it for good.
    this.#sharing.addSeals(fd, SEAL.GROW | SEAL.SEAL);
    if ((this.#sharing.getSeals(fd) & seals) === seals) return;
    const explanation = `the memfd of ${region} is not sealed against shrinking and growing, and cannot be any more`;
    throw new KvmError(ERRNO.EPERM, { syscall: 'share', gpa: region.gpa, size: region.size, explanation });
  }

  remove(): void {}

  move(region: MemoryRegion, _from: number, to: number): void {
    this.#requireInLog(region, to);
  }

  setReadOnly(): void {}

  /** Changes were made: everybody may see them now, at once. */
  committed(changes: readonly SpaceChange[]): void {
    this.publish();
    for (const change of changes) if (change.kind === 'move') this.#takeMoved(change);
  }

  /** Who did not know of a move yet has set bits where the region was. */
  #takeMoved({ region, from }: SpaceChange): void {
    const before = Number(from);
    const distance = region.start - before;
    this.memory.log.take(before, before + region.size, (address) => {
      this.#mark(address);
      if (address >= before && address < before + region.size) this.#mark(address + distance);
    });
  }

  /** Writes the regions where nobody reads, and then says so. */
  publish(): void {
    const { view, shape } = this.memory;
    const generation = BigInt(this.#space.generation);
    const parity = Number(generation & 1n);
    const regions = this.#space.memoryRegions;
    let at = shape.regionsOffset + parity * shape.maxRegions * REGION.BYTES;
    for (const region of regions) {
      this.#writeRegion(at, region);
      at += REGION.BYTES;
    }
    view.setUint32(HEADER.REGION_COUNT + 4 * parity, regions.length, HOST_IS_LITTLE_ENDIAN);
    this.memory.generation = generation;
  }

  /** Takes what others noted as written. */
  gather(): void {
    for (const { start, end } of this.#space.memoryRegions) {
      this.memory.log.take(start, end, (address) => this.#mark(address));
    }
  }

  /** Nobody knows what a consumer has written: everything is dirty. */
  markAll(): void {
    for (const { gpa, size } of this.#space.memoryRegions) this.#space.written.mark(gpa, size);
  }

  /** Whether somebody has locked a consumer's record. */
  isAlive(index: number): boolean {
    return this.#sharing.isLocked(this.#lockFd, this.memory.consumerAt(index), CONSUMER.BYTES) === 1;
  }

  /** Empties the record of a consumer that is dead; false when there is one after all. */
  clear(index: number): boolean {
    const at = this.memory.consumerAt(index);
    if (this.#sharing.lockRange(this.#lockFd, at, CONSUMER.BYTES) !== 0) return false;
    this.memory.setWord(at + CONSUMER.WRITERS, 0);
    this.memory.bytes.fill(0, at + CONSUMER.NAME, at + CONSUMER.BYTES);
    this.memory.setWord(at + CONSUMER.PID, 0);
    this.#sharing.unlockRange(this.#lockFd, at, CONSUMER.BYTES);
    return true;
  }

  /** The owner gives it up: consumers keep the memory that they have. */
  close(): void {
    if (this.closed) return;
    this.gather();
    this.#space.written.removeSource(this.#gather);
    this.memory.setWord(HEADER.CLOSED, 1);
    this.#closeFiles();
  }

  #closeFiles(): void {
    dropped.unregister(this);
    this.calls.close(this.#lockFd);
    this.memory.close();
  }

  #mark(address: number): void {
    this.#space.written.mark(address, LOG_PAGE);
  }

  #requireInLog(region: MemoryRegion, start: number): void {
    const { end } = this.memory.log;
    if (start + region.size <= end) return;
    throw this.#tooBig(
      region,
      `it would end beyond ${hex(end)}, where the shared dirty log ends: share the space with a larger \`end\``,
    );
  }

  #tooBig(region: MemoryRegion, explanation: string): KvmError {
    return new KvmError(ERRNO.E2BIG, { syscall: 'share', gpa: region.gpa, size: region.size, explanation });
  }

  #writeHeader(): void {
    const { view, bytes, shape } = this.memory;
    const u32 = (offset: number, value: number) => view.setUint32(offset, value, HOST_IS_LITTLE_ENDIAN);
    const u64 = (offset: number, value: number) => view.setBigUint64(offset, BigInt(value), HOST_IS_LITTLE_ENDIAN);
    bytes.set(Buffer.from(MAGIC), HEADER.MAGIC);
    u32(HEADER.VERSION, VERSION);
    u32(HEADER.PAGE_SIZE, this.#space.pageSize);
    u32(HEADER.FLAGS, this.#space.littleEndian ? LITTLE_ENDIAN_GUEST : 0);
    u32(HEADER.OWNER_PID, process.pid);
    u64(HEADER.TABLE_BYTES, shape.tableBytes);
    u32(HEADER.MAX_REGIONS, shape.maxRegions);
    u32(HEADER.MAX_CONSUMERS, shape.maxConsumers);
    u64(HEADER.REGIONS_OFFSET, shape.regionsOffset);
    u64(HEADER.CONSUMERS_OFFSET, shape.consumersOffset);
    u64(HEADER.LOG_OFFSET, shape.logOffset);
    u64(HEADER.LOG_BYTES, shape.logBytes);
  }

  #writeRegion(at: number, { start, size, offset, mapping, readOnly, kind, name }: MemoryRegion): void {
    const { view, bytes } = this.memory;
    const u64 = (field: number, value: bigint) => view.setBigUint64(at + field, value, HOST_IS_LITTLE_ENDIAN);
    const shareable = isShareable(mapping);
    u64(REGION.GPA, BigInt(start));
    u64(REGION.SIZE, BigInt(size));
    u64(REGION.OFFSET, BigInt(offset));
    u64(REGION.MEMORY, shareable ? inodeOf(mapping) : 0n);
    u64(REGION.MEMORY_BYTES, BigInt(mapping.size));
    const flags = (readOnly ? REGION_FLAG.READ_ONLY : 0) | (kind === 'device' ? REGION_FLAG.DEVICE : 0);
    view.setUint32(at + REGION.FLAGS, flags, HOST_IS_LITTLE_ENDIAN);
    view.setInt32(at + REGION.OWNER_FD, shareable ? mapping.fd : -1, HOST_IS_LITTLE_ENDIAN);
    putText(bytes.subarray(at + REGION.NAME, at + REGION.BYTES), name ?? '');
  }

  #check(name: CallName, result: number): number {
    if (result < 0) throw callError(name, result);
    return result;
  }
}
