import { checkInstance, checkU32 } from '../base/arguments.ts';
import { KvmError } from '../base/errors.ts';
import { type Callee, isClosed } from '../calls/failure.ts';
import { DirtyPages, type DirtyTracking } from '../memory/dirty-pages.ts';
import { Memslots } from '../memory/memslots.ts';
import { SpaceSlots } from '../memory/space-slots.ts';
import { AddressSpace } from '../sharing/address-space.ts';
import { isLittleEndianHost } from '../uapi/arch.ts';
import { ERRNO } from '../uapi/errno.ts';
import { memslotLimits } from './memslot-limits.ts';

/** An address space as one of a VM's. */
interface Used {
  readonly space: AddressSpace;
  readonly slots: SpaceSlots;
  readonly dirtyPages: DirtyPages;
  /** The space was made for this VM, and goes with it. */
  readonly isPrivate: boolean;
}

/** The address spaces that a VM uses, by as_id, and its memslots. */
export class VmMemory {
  readonly memslots: Memslots;
  readonly #vm: Callee;
  readonly #tracking: DirtyTracking;
  readonly #settle: () => void;
  readonly #spaces = new Map<number, Used>();

  /** @param settle carries out what guests stored before */
  constructor(vm: Callee, tracking: DirtyTracking, settle: () => void) {
    this.#settle = settle;
    this.#vm = vm;
    this.#tracking = tracking;
    this.memslots = new Memslots(vm, () => memslotLimits(vm.calls, vm.fd));
  }

  space(asId: number): AddressSpace {
    return this.#used(asId).space;
  }

  dirtyPages(asId: number): DirtyPages {
    return this.#used(asId).dirtyPages;
  }

  /** Does nothing where it is that one already. @throws KvmError as for adding the regions, EBADF; nothing is changed then */
  bind(space: AddressSpace, asId: number): void {
    checkInstance(space, 'space', AddressSpace);
    checkU32(asId, 'asId');
    this.#settle();
    // Handlers of coalesced stores may have closed it, or bound another.
    if (this.#vm.closed) throw new KvmError(ERRNO.EBADF, { syscall: 'bind', explanation: isClosed(this.#vm.noun) });
    const before = this.#spaces.get(asId);
    if (before?.space === space) return;
    before?.space.removeUser(before.slots);
    try {
      this.#use(space, asId, false);
    } catch (error) {
      before?.space.addUser(before.slots);
      throw error;
    }
    before?.dirtyPages.end('the VM was bound to another address space, and vm.dirtyPages is another since then');
    if (before?.isPrivate === true) before.space.close();
  }

  /** The VM is closed: what its slots pinned is let go. */
  close(): void {
    for (const used of this.#spaces.values()) this.#close(used);
    this.memslots.clear();
  }

  #close({ space, slots, dirtyPages, isPrivate }: Used): void {
    dirtyPages.end(isClosed(this.#vm.noun));
    space.removeUser(slots);
    if (isPrivate) space.close();
  }

  #used(asId: number): Used {
    const { arch, pageSize } = this.#vm.calls;
    return (
      this.#spaces.get(checkU32(asId, 'asId')) ??
      this.#use(new AddressSpace({ littleEndian: isLittleEndianHost(arch), pageSize }), asId, true)
    );
  }

  #use(space: AddressSpace, asId: number, isPrivate: boolean): Used {
    const slots = new SpaceSlots(this.memslots, asId, this.#settle);
    const used = { space, slots, dirtyPages: new DirtyPages(space, slots, this.#tracking), isPrivate };
    if (!this.#vm.closed) space.addUser(slots);
    else this.#close(used);
    this.#spaces.set(asId, used);
    return used;
  }
}
