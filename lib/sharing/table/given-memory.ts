import { fstatSync } from 'node:fs';
import { hex, KvmError } from '../../base/errors.ts';
import { callError } from '../../calls/failure.ts';
import type { KvmCalls } from '../../calls/kvm-calls.ts';
import { Mapping } from '../../memory/mapping.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { SEAL } from '../../uapi/flags.ts';
import { Descriptor, sharingOf } from '../descriptor.ts';
import type { BoundMemory } from '../vmap.ts';
import type { TableRegion } from './snapshot.ts';

/** Memory of a region that this process has no descriptor of. */
class MissingMemory implements BoundMemory {
  readonly hva = 0;
  readonly #why: string;

  constructor(why: string) {
    this.#why = why;
  }

  window(): undefined {}
  giveArray(): undefined {}
  takeArray(): void {}
  pin(): void {}
  unpin(): void {}

  read(): number {
    return 0;
  }

  write(): number {
    return 0;
  }

  whyNot(): string {
    return this.#why;
  }
}

const NOT_SHAREABLE = new MissingMemory("it is no memfd, so that its owner can't give it to others");
const NOT_GIVEN = new MissingMemory('its descriptor was not given to this process, or has not come yet');

interface Given {
  readonly descriptor: Descriptor;
  /**
   * It came by itself, the last time when the table had this generation, and goes with the last region. It may come before the table
   * tells of any. Undefined for what stays.
   */
  since: bigint | undefined;
  mapping: Mapping | undefined;
}

/** The memory that a consumer was given, by inode. */
export class GivenMemory {
  readonly #calls: KvmCalls;
  readonly #given = new Map<bigint, Given>();
  /** In the owner's own process its descriptors are ours too. */
  readonly #isOwnProcess: boolean;

  constructor(calls: KvmCalls, ownerPid: number) {
    this.#calls = calls;
    this.#isOwnProcess = ownerPid === process.pid;
  }

  /** Takes over a descriptor. @param since the table's generation, where it came by itself */
  add(descriptor: Descriptor, since: bigint | undefined): void {
    const { ino } = fstatSync(descriptor.fd, { bigint: true });
    const given = this.#given.get(ino);
    if (given === undefined) {
      this.#given.set(ino, { descriptor, since, mapping: undefined });
      return;
    }
    descriptor.close();
    // It may have gone and be coming again, of which nobody here has heard yet.
    if (given.since !== undefined) given.since = since;
  }

  /** The memory of a region. @throws KvmError EPROTO when the table lies about it */
  of({ memory, memoryBytes, ownerFd }: Pick<TableRegion, 'memory' | 'memoryBytes' | 'ownerFd'>): BoundMemory {
    if (memory === 0n) return NOT_SHAREABLE;
    if (!this.#given.has(memory) && this.#isOwnProcess) this.#takeOwners(memory, ownerFd);
    const given = this.#given.get(memory);
    if (given === undefined) return NOT_GIVEN;
    given.mapping ??= this.#map(given.descriptor, memoryBytes);
    return given.mapping;
  }

  /** Lets go of what no region has in a generation. */
  keepOnly(memories: ReadonlySet<bigint>, generation: bigint): void {
    for (const [inode, given] of this.#given) {
      if (memories.has(inode)) continue;
      given.mapping?.close();
      given.mapping = undefined;
      if (given.since === undefined || given.since >= generation) continue;
      given.descriptor.close();
      this.#given.delete(inode);
    }
  }

  close(): void {
    for (const { mapping, descriptor } of this.#given.values()) {
      mapping?.close();
      descriptor.close();
    }
    this.#given.clear();
  }

  #takeOwners(memory: bigint, ownerFd: number): void {
    const fd = ownerFd < 0 ? ownerFd : sharingOf(this.#calls, 'duplicate').duplicate(ownerFd);
    if (fd < 0) return;
    const descriptor = new Descriptor(this.#calls, fd);
    // The number may be another file's by now.
    if (fstatSync(fd, { bigint: true }).ino === memory) this.add(descriptor, 0n);
    else descriptor.close();
  }

  #map({ fd }: Descriptor, told: number): Mapping {
    const sharing = sharingOf(this.#calls, 'getSeals');
    const { size } = fstatSync(fd);
    const seals = sharing.getSeals(fd);
    if (seals < 0 || (seals & SEAL.SHRINK) === 0) {
      throw new KvmError(ERRNO.EPROTO, {
        syscall: 'attach',
        explanation: 'a memory is no memfd that is sealed against shrinking',
      });
    }
    if (size < told) {
      const explanation = `the table tells of a memory of ${hex(told)} bytes, and its file has ${hex(size)}`;
      throw new KvmError(ERRNO.EPROTO, { syscall: 'attach', size, explanation });
    }
    const own = sharing.duplicate(fd);
    if (own < 0) throw callError('duplicate', own);
    return Mapping.ofMemfd(this.#calls, own, size);
  }
}
