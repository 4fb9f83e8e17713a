import { inspect } from 'node:util';
import { callBack } from '../base/callback.ts';
import { hexRange, KvmError, outOfRange } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';
import { callError } from '../calls/failure.ts';
import { VIEW_WINDOW } from '../calls/kvm-calls.ts';
import { advance, joinGpa, splitGpa } from '../memory/gpa.ts';
import type { GpaTranslation, HostMemory, MemoryRange } from '../memory/lookup.ts';
import type { ViewHolder } from '../memory/mapping.ts';
import { ERRNO } from '../uapi/errno.ts';

/** The memory of a region as consumers use it. */
export interface BoundMemory extends HostMemory {
  /** An array of its own over a part of one window; undefined where it isn't mapped directly. */
  giveArray(offset: number, length: number): Uint8Array | undefined;
  takeArray(bytes: Uint8Array): void;
  pin(holder: ViewHolder): void;
  unpin(holder: ViewHolder): void;
}

/** A region as consumers see it. */
export interface BoundRange extends MemoryRange {
  readonly mapping: BoundMemory;
  /** Whether guests may only read. Consumers may write nevertheless. */
  readonly readOnly: boolean;
}

/** Why a view was taken away. */
export interface Revocation {
  /**
   * Its region was removed, or moved; the memory was protected or unmapped (`inaccessible`); or the binding was released.
   */
  readonly reason: 'removed' | 'moved' | 'inaccessible' | 'released';
  /** How many changes the address space had seen. */
  readonly generation: number;
  /** The region, as text. */
  readonly region: string;
}

export interface VmapOptions {
  /** It is going to be written: what it covers is dirty at each {@link Vmap.flush}, and when it ends. Default false. */
  readonly write?: boolean;
  /** Called once, when the view has been taken away; not when its own `release` ends it. */
  readonly onRevoke?: (revocation: Revocation) => void;
}

/** What a view needs of the binding that it is a part of. */
export interface VmapOwner {
  readonly generation: number;
  translate(gpa: U64): GpaTranslation<BoundRange> | undefined;
  markDirty(gpa: U64, length: number): void;
  /** The view has ended. */
  forget(vmap: Vmap): void;
}

interface Piece {
  readonly gpa: U64;
  readonly region: BoundRange;
  readonly mapping: BoundMemory;
  /** Where it begins in the mapping. */
  readonly offset: number;
  readonly length: number;
  bytes: Uint8Array;
}

/**
 * The memory of a range of guest physical addresses itself, in as many pieces as there are regions (and windows of 1 GiB). It
 * keeps the memory. When a region of it goes or moves the view is revoked: its arrays are detached, so that their length is 0,
 * and whoever made it is told why.
 */
export class Vmap implements ViewHolder {
  readonly gpa: U64;
  readonly length: number;
  /** What is written to it is noted as dirty. */
  readonly writable: boolean;
  readonly #owner: VmapOwner;
  readonly #pieces: Piece[] = [];
  readonly #onRevoke: VmapOptions['onRevoke'];
  #ended = false;
  #revocation: Revocation | undefined;

  /** Made by a binding. @throws KvmError EFAULT where there is no memory, EACCES where it isn't mapped directly */
  constructor(owner: VmapOwner, gpa: U64, length: number, writable: boolean, onRevoke: VmapOptions['onRevoke']) {
    this.#owner = owner;
    this.gpa = gpa;
    this.length = length;
    this.writable = writable;
    this.#onRevoke = onRevoke;
    try {
      this.#map();
    } catch (error) {
      this.#end();
      throw error;
    }
  }

  /** The arrays, in ascending order of address; none once it was revoked or released. */
  get pieces(): readonly Uint8Array[] {
    return this.#ended ? [] : this.#pieces.map(({ bytes }) => bytes);
  }

  /** The array of a view that is one piece. @throws RangeError when it is several; KvmError EBADF when it was revoked or released */
  get bytes(): Uint8Array {
    this.#assertThere('vmap');
    if (this.#pieces.length > 1) {
      throw outOfRange('length', `at most ${this.#pieces[0]!.length}, where the first of its pieces ends`, this.length);
    }
    return this.#pieces[0]?.bytes ?? new Uint8Array(0);
  }

  /** Why it was taken away; undefined while it wasn't. */
  get revocation(): Revocation | undefined {
    return this.#revocation;
  }

  /** Whether its arrays are there. */
  get active(): boolean {
    return !this.#ended;
  }

  /**
   * Notes what it covers as dirty, if it is a view for writing: what was written until now.
   * @throws KvmError EBADF when it was revoked or released (which has noted it)
   */
  flush(): void {
    this.#assertThere('flush');
    this.#mark();
  }

  /** Ends it: what it covers is dirty if it is a view for writing, and its arrays are detached. Does nothing the second time. */
  release(): void {
    if (this.#ended) return;
    this.#mark();
    this.#end();
  }

  [Symbol.dispose](): void {
    this.release();
  }

  /** @internal A region is about to go or move, and its addresses with it. */
  changing(region: BoundRange): void {
    if (this.#shows(region)) this.#mark();
  }

  /** @internal A region has gone or moved. */
  revoke(region: BoundRange, reason: 'removed' | 'moved'): void {
    if (!this.#shows(region)) return;
    // What was written since the change began is where the region is now.
    if (this.writable && reason === 'moved') this.#markMoved(region);
    this.#revoke(region, reason);
  }

  /** @internal Its binding is released. */
  revokeAll(reason: Revocation['reason']): void {
    if (this.#ended) return;
    this.#mark();
    this.#revoke(this.#pieces[0]?.region, reason);
  }

  /** @internal The arrays of a mapping were detached. */
  dropViews(): void {
    if (this.#ended) return;
    for (const piece of this.#pieces) {
      if (piece.bytes.length > 0) continue;
      const bytes = piece.mapping.giveArray(piece.offset, piece.length);
      if (bytes === undefined) {
        this.#revoke(piece.region, 'inaccessible');
        return;
      }
      piece.bytes = bytes;
    }
  }

  [inspect.custom](): string {
    const state = this.#revocation === undefined ? (this.#ended ? ', released' : '') : `, ${this.#revocation.reason}`;
    return `Vmap ${hexRange(this.gpa, this.length)}, ${this.#pieces.length} pieces${this.writable ? ', for writing' : ''}${state}`;
  }

  /** Maps all pieces as one generation has them: a region that goes meanwhile is one that nobody would revoke. */
  #map(): void {
    for (;;) {
      const { generation } = this.#owner;
      this.#mapPieces();
      if (this.#owner.generation === generation) return;
      this.#unmap();
      this.#pieces.length = 0;
    }
  }

  #mapPieces(): void {
    const at = splitGpa(this.gpa);
    for (let left = this.length; left > 0; ) {
      const gpa = joinGpa(at);
      const found = this.#owner.translate(gpa);
      if (found === undefined) {
        throw callError('vmap', ERRNO.EFAULT, { gpa, size: left, explanation: 'there is no memory' });
      }
      const { region, offset } = found;
      const { mapping } = region;
      const length = Math.min(left, found.available, VIEW_WINDOW - (offset % VIEW_WINDOW));
      const bytes = mapping.giveArray(offset, length);
      if (bytes === undefined) {
        const explanation = `${region} cannot be touched directly: ${mapping.whyNot(offset)}`;
        throw callError('vmap', ERRNO.EACCES, { gpa, size: left, explanation });
      }
      mapping.pin(this);
      this.#pieces.push({ gpa, region, mapping, offset, length, bytes });
      advance(at, length);
      left -= length;
    }
  }

  #shows(region: BoundRange): boolean {
    return !this.#ended && this.#pieces.some((piece) => piece.region === region);
  }

  #mark(): void {
    if (this.writable) for (const { gpa, length } of this.#pieces) this.#owner.markDirty(gpa, length);
  }

  #markMoved(region: BoundRange): void {
    for (const piece of this.#pieces) {
      if (piece.region !== region) continue;
      const at = { page: region.start, rest: 0 };
      advance(at, piece.offset - region.offset);
      this.#owner.markDirty(joinGpa(at), piece.length);
    }
  }

  #revoke(region: BoundRange | undefined, reason: Revocation['reason']): void {
    // Where marking found out that its region has gone it was revoked for that.
    if (this.#ended) return;
    this.#revocation = { reason, generation: this.#owner.generation, region: String(region ?? '') };
    this.#end();
    callBack(this.#onRevoke, this.#revocation);
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#owner.forget(this);
    this.#unmap();
  }

  #unmap(): void {
    for (const { mapping, bytes } of this.#pieces) {
      mapping.takeArray(bytes);
      mapping.unpin(this);
    }
  }

  #assertThere(syscall: string): void {
    if (!this.#ended) return;
    const explanation =
      this.#revocation === undefined
        ? 'the view was released'
        : `the view was revoked: ${this.#revocation.region} was ${this.#revocation.reason}`;
    throw new KvmError(ERRNO.EBADF, { syscall, gpa: this.gpa, size: this.length, explanation });
  }
}
