import { RegionSet, type RegionSetOptions } from '../memory/region-set.ts';
import type { SpaceChange } from '../memory/space-user.ts';
import { Binding, type BoundSpace } from './binding.ts';

/** What an address space must know of the machine. */
export interface AddressSpaceOptions extends RegionSetOptions {}

export interface BindOptions {
  /** Who it is, for errors and lists. */
  readonly name?: string;
}

/**
 * Guest physical memory: a sorted set of regions that don't overlap, each RAM, a device's memory, or MMIO with
 * handlers. It needs no KVM. Any number of VMs is bound to it ({@link Vm.bind}), of the real kernel and of emulated ones at
 * once, and of consumers ({@link bind}); every change is made by all of the VMs, or by none, and then seen by everybody.
 *
 * @example
 * const ram = kvm.mapAnonymous(64 << 20);
 * vm.memory.addRam(0, ram);
 * vm.memory.addMmio(0xd000_0000, 0x1000, { read: () => 0x42 }, { name: 'status' });
 * vm.memory.writeU32(0x1000, 0xf4);
 */
export class AddressSpace extends RegionSet implements BoundSpace {
  readonly #bindings = new Set<Binding>();

  constructor(options: AddressSpaceOptions) {
    super(options);
    this.follow({
      changing: (region) => {
        for (const binding of this.#bindings) binding.changing(region);
      },
      changed: (change) => this.#tellBindings(change),
    });
  }

  /** Those who use it from within this thread, and have not released it. */
  get bindings(): readonly Binding[] {
    return [...this.#bindings];
  }

  /** A counted use of it by somebody outside the VMs. @throws KvmError EBADF when it is closed */
  bind({ name = `consumer ${this.#bindings.size + 1}` }: BindOptions = {}): Binding {
    this.hold();
    const binding = new Binding(this, name);
    this.#bindings.add(binding);
    return binding;
  }

  /** @internal A binding was released. */
  unbind(binding: Binding): void {
    this.#bindings.delete(binding);
    this.letGo();
  }

  #tellBindings({ kind, region }: SpaceChange): void {
    for (const binding of this.#bindings) {
      binding.dropViews();
      if (kind === 'remove' || kind === 'move') binding.changed(region, kind);
    }
  }
}
