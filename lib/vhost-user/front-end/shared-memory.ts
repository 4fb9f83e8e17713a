import { hex, KvmError } from '../../base/errors.ts';
import type { Mapping } from '../../memory/mapping.ts';
import type { MemoryRegion } from '../../memory/region.ts';
import type { SpaceUser } from '../../memory/space-user.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { encodeMemoryRegion, encodeMemoryTable, type TableEntry } from '../message.ts';
import { REQUEST } from '../protocol.ts';
import type { Requests } from './requests.ts';

/** A region as the back end has it, whose memory stays until it has given that back. */
interface Sent extends TableEntry {
  readonly mapping: Mapping;
  readonly end: number;
}

export interface SharingLimits {
  /** Regions that the back end takes. */
  readonly maxRegions: number;
  /** Whether it takes them one by one (CONFIGURE_MEM_SLOTS). */
  readonly oneByOne: boolean;
  /** Called before regions are added that reach up to an address. */
  beforeAdding(end: number): Promise<void>;
}

/**
 * Keeps a back end's table like the regions of an address space. Changes are told in order, and a region that goes stays pinned
 * until the back end has confirmed that it lets it go, or is gone itself.
 */
export class SharedMemory implements SpaceUser {
  readonly #requests: Requests;
  readonly #limits: SharingLimits;
  readonly #regions = new Set<MemoryRegion>();
  readonly #sent = new Map<string, Sent>();
  #work: Promise<void> | undefined;

  constructor(requests: Requests, limits: SharingLimits) {
    this.#requests = requests;
    this.#limits = limits;
    void requests.ended.then(() => this.#letGo());
  }

  get closed(): boolean {
    return this.#requests.closed;
  }

  /** What the back end has, or gets next. */
  get regions(): ReadonlySet<MemoryRegion> {
    return this.#regions;
  }

  /** One past the last address that is shared. */
  get end(): number {
    return Math.max(0, ...[...this.#regions].map(({ end }) => end));
  }

  /** @throws KvmError EINVAL when the memory has no descriptor that could be sent, ENOSPC beyond the back end's limit */
  add(region: MemoryRegion): void {
    if (isShared(region)) this.#add(region);
  }

  remove(region: MemoryRegion): void {
    if (this.#regions.delete(region)) this.#changed();
  }

  move(region: MemoryRegion): void {
    if (this.#regions.has(region)) this.#changed();
  }

  setReadOnly(region: MemoryRegion, readOnly: boolean): void {
    if (readOnly) this.remove(region);
    else if (region.kind === 'ram') this.#add(region);
  }

  /** Resolves when the back end has what is there now. @throws what ended the connection */
  async settled(): Promise<void> {
    while (this.#work !== undefined) await this.#work;
  }

  /** Where the front end has so many bytes of a guest: the address that stands for them in messages. @throws KvmError EFAULT */
  userAddress(gpa: number, size: number, what: string): number {
    for (const region of this.#regions) {
      if (gpa >= region.start && gpa + size <= region.end) return region.hva + (gpa - region.start);
    }
    const explanation = `${what} at ${hex(gpa)} is not inside one region that is shared`;
    throw new KvmError(ERRNO.EFAULT, { syscall: 'SET_VRING_ADDR', gpa, size, explanation });
  }

  #add(region: MemoryRegion): void {
    const { gpa, size, mapping } = region;
    if (mapping.fd < 0) {
      const explanation = `${region} is ${mapping.kind} memory, of which another process can have nothing: use mapMemfd`;
      throw new KvmError(ERRNO.EINVAL, { syscall: 'share region', gpa, size, explanation });
    }
    if (this.#regions.size >= this.#limits.maxRegions) {
      const explanation = `${region} is one too many: the back end takes ${this.#limits.maxRegions}`;
      throw new KvmError(ERRNO.ENOSPC, { syscall: 'share region', gpa, size, explanation });
    }
    this.#regions.add(region);
    this.#changed();
  }

  #changed(): void {
    if (this.closed) return;
    this.#work ??= this.#tell().catch((error: Error) => {
      this.#requests.fail(error);
      throw error;
    });
    // Whoever wants to know asks settled(); everybody else hears of it by the end of the connection.
    this.#work.catch(() => {});
  }

  /** Tells what has changed, until nothing has. */
  async #tell(): Promise<void> {
    // All changes of this turn at once.
    await Promise.resolve();
    try {
      for (;;) {
        const wanted = this.#wanted();
        const gone = [...this.#sent].filter(([key]) => !wanted.has(key));
        const added = [...wanted].filter(([key]) => !this.#sent.has(key));
        if (gone.length === 0 && added.length === 0) return;
        if (added.length > 0) await this.#limits.beforeAdding(Math.max(...added.map(([, { end }]) => end)));
        for (const [key, entry] of added) {
          entry.mapping.pin();
          this.#sent.set(key, entry);
        }
        if (this.#limits.oneByOne) await this.#tellEach(gone, added);
        else await this.#tellAll([...wanted.values()]);
        for (const [key, { mapping }] of gone) {
          this.#sent.delete(key);
          mapping.unpin();
        }
      }
    } finally {
      this.#work = undefined;
    }
  }

  async #tellEach(gone: readonly [string, Sent][], added: readonly [string, Sent][]): Promise<void> {
    for (const [, entry] of gone) await this.#requests.tell(REQUEST.REM_MEM_REG, encodeMemoryRegion(entry));
    for (const [, entry] of added) {
      await this.#requests.tell(REQUEST.ADD_MEM_REG, encodeMemoryRegion(entry), [entry.mapping.fd]);
    }
  }

  #tellAll(entries: readonly Sent[]): Promise<void> {
    const fds = entries.map(({ mapping }) => mapping.fd);
    return this.#requests.tell(REQUEST.SET_MEM_TABLE, encodeMemoryTable(entries), fds);
  }

  #wanted(): Map<string, Sent> {
    return new Map([...this.#regions].map((region) => [keyOf(region), entryOf(region)]));
  }

  #letGo(): void {
    for (const { mapping } of this.#sent.values()) mapping.unpin();
    this.#sent.clear();
    this.#regions.clear();
  }
}

/** RAM that a device may write. */
function isShared({ kind, readOnly }: MemoryRegion): boolean {
  return kind === 'ram' && !readOnly;
}

function entryOf({ start, end, size, hva, offset, mapping }: MemoryRegion): Sent {
  return { gpa: start, end, size, userAddress: hva, mmapOffset: offset, mapping };
}

function keyOf({ start, size, hva, offset }: MemoryRegion): string {
  return [start, size, hva, offset].join();
}
