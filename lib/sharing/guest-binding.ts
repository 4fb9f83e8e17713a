import { checkOptions } from '../base/arguments.ts';
import type { U64 } from '../base/u64.ts';
import { MmioBus, type MmioHandlers, type MmioRegion } from '../memory/mmio-bus.ts';
import { Binding, type BoundSpace, wasReleased } from './binding.ts';

/**
 * A binding of a thread that runs a vCPU: guest memory as every binding has it, and MMIO handlers that are called in this
 * thread.
 */
export class GuestBinding extends Binding {
  /** The MMIO ranges that this thread answers. */
  readonly mmio: MmioBus;

  constructor(space: BoundSpace, name: string) {
    super(space, name);
    const overlapping = (start: number, end: number) =>
      space.lookup.ranges.entries.find((region) => region.start < end && start < region.end);
    this.mmio = new MmioBus('mmio', space.littleEndian, overlapping);
    this.mmio.whyClosed = () => (this.released ? wasReleased(name) : undefined);
  }

  /**
   * Adds handlers for a range of addresses, as {@link AddressSpace.addMmio} does; nobody else hears of them.
   * @throws KvmError EEXIST naming both ranges when it overlaps another region, EINVAL when it is empty, EBADF once it was released; RangeError
   */
  addMmio(gpa: U64, size: number, handlers: MmioHandlers, options: { readonly name?: string } = {}): MmioRegion {
    return this.mmio.add(gpa, size, handlers, checkOptions(options, { name: true }).name);
  }

  /** @internal Answers an access that took the guest out of KVM_RUN; false when nobody is there for it. */
  answerGuest(gpa: U64, data: Uint8Array, isStore: boolean): boolean {
    return isStore ? this.mmio.write(gpa, data) : this.mmio.read(gpa, data);
  }
}
