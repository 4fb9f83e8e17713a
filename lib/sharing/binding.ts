import { inspect } from 'node:util';
import { checkBoolean, checkBytes, checkFunction, checkOptions, checkSize } from '../base/arguments.ts';
import { KvmError } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';
import { GuestMemory } from '../memory/guest-memory.ts';
import type { MemoryLookup } from '../memory/lookup.ts';
import type { WrittenPages } from '../memory/written-pages.ts';
import { ERRNO } from '../uapi/errno.ts';
import { type BoundRange, Vmap, type VmapOptions, type VmapOwner } from './vmap.ts';

/** An address space as a binding uses it: one of this process, or the table of another's. */
export interface BoundSpace {
  readonly lookup: MemoryLookup<BoundRange>;
  readonly littleEndian: boolean;
  readonly pageSize: number;
  readonly written: WrittenPages;
  /** How many changes there were. */
  readonly generation: number;
  /** The binding is released. */
  unbind(binding: Binding): void;
}

export type BindingClass<B extends Binding> = new (space: BoundSpace, name: string) => B;

/**
 * A counted use of an address space by someone outside the VM: typed access as {@link GuestMemory} has it, copies, and views
 * ({@link vmap}). Everything that is written through it is in the dirty state of all VMs. The memory stays while the binding
 * does, also after the VMs and the space were closed.
 *
 * It remembers where addresses were. A change of the address space makes it look again, so that no access ever reaches a
 * region that is not at the address any more.
 *
 * @example
 * using disk = space.bind({ name: 'disk' });
 * disk.copyTo(0x1000, sector);
 */
export class Binding extends GuestMemory<BoundRange> implements VmapOwner {
  /** Who it is, for errors and lists. */
  readonly name: string;
  readonly #space: BoundSpace;
  readonly #state: { released: boolean };
  #releasing = false;
  readonly #vmaps = new Set<Vmap>();

  /** Made by `space.bind()` and `AddressSpace.attach()`. */
  constructor(space: BoundSpace, name: string) {
    const state = { released: false };
    super(lookupUntil(space.lookup, state, name), space);
    this.#space = space;
    this.#state = state;
    this.name = name;
  }

  get released(): boolean {
    return this.#state.released;
  }

  /** How many changes the address space has seen. */
  get generation(): number {
    return this.#space.generation;
  }

  /** The views that are there. */
  get vmaps(): readonly Vmap[] {
    return [...this.#vmaps];
  }

  /** The regions, in ascending order of address. @throws KvmError EBADF */
  get regions(): readonly BoundRange[] {
    this.#assertBound('regions');
    this.#space.lookup.remote?.refresh();
    return [...this.#space.lookup.ranges.entries];
  }

  /** Copies all bytes to guest memory. @throws KvmError EFAULT with the first address that has none; those before it are written */
  copyTo(gpa: U64, from: Uint8Array): void {
    this.writeExact(gpa, from);
  }

  /** Fills the array from guest memory. @throws KvmError EFAULT with the first address that has none */
  copyFrom(gpa: U64, into: Uint8Array): void {
    this.readExact(gpa, checkBytes(into, 'into'));
  }

  /**
   * The memory of a range itself, not a copy, until it is released or revoked.
   * @throws KvmError EFAULT where there is no memory, EACCES where it isn't mapped directly, EBADF
   */
  vmap(gpa: U64, length: number, options: VmapOptions = {}): Vmap {
    checkSize(length, 'length');
    const { write = false, onRevoke } = checkOptions(options, { write: true, onRevoke: true });
    checkBoolean(write, 'options.write');
    if (onRevoke !== undefined) checkFunction(onRevoke, 'options.onRevoke');
    // A getter may have released it, and who hears of a view's revocation may want another when it is released.
    if (this.#releasing) throw releasedError('vmap', this.name);
    if (write) this.written.viewOpened();
    const vmap = new Vmap(this, gpa, length, write, onRevoke);
    this.#vmaps.add(vmap);
    return vmap;
  }

  override markDirty(gpa: U64, length: number): void {
    this.#assertBound('markDirty');
    super.markDirty(gpa, length);
  }

  /** Gives the address space back; views that are left are revoked. Does nothing the second time. */
  release(): void {
    if (this.#releasing) return;
    this.#releasing = true;
    for (const vmap of this.vmaps) vmap.revokeAll('released');
    this.#state.released = true;
    this.dropViews();
    this.#space.unbind(this);
  }

  [Symbol.dispose](): void {
    this.release();
  }

  /** @internal A view has ended. */
  forget(vmap: Vmap): void {
    this.#vmaps.delete(vmap);
    if (vmap.writable) this.written.viewEnded();
  }

  /** @internal A region is about to go or to move. */
  changing(region: BoundRange): void {
    for (const vmap of this.#vmaps) vmap.changing(region);
  }

  /** @internal Regions have gone or moved. */
  changed(region: BoundRange, kind: 'remove' | 'move'): void {
    for (const vmap of this.vmaps) vmap.revoke(region, kind === 'move' ? 'moved' : 'removed');
  }

  [inspect.custom](): string {
    const state = this.released ? 'released' : `${this.#vmaps.size} views, generation ${this.generation}`;
    return `Binding '${this.name}', ${state}`;
  }

  #assertBound(syscall: string): void {
    if (this.#state.released) throw releasedError(syscall, this.name);
  }
}

/** A lookup that ends with the binding. */
function lookupUntil(
  lookup: MemoryLookup<BoundRange>,
  state: { readonly released: boolean },
  name: string,
): MemoryLookup<BoundRange> {
  const { remote } = lookup;
  return {
    get ranges() {
      if (state.released) throw releasedError('access', name);
      return lookup.ranges;
    },
    describe: (at) => lookup.describe(at),
    ...(remote === undefined ? {} : { remote }),
  };
}

/** What is said of a binding that cannot be used any more. */
export const wasReleased = (name: string): string => `the binding '${name}' was released`;

function releasedError(syscall: string, name: string): KvmError {
  return new KvmError(ERRNO.EBADF, { syscall, explanation: wasReleased(name) });
}
