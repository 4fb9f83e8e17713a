import { hexRange } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';
import { type Callee, callFailure } from '../calls/failure.ts';
import { CoalescedMmioRing, type CoalescedWrite } from '../memory/coalesced-mmio.ts';
import { CAP } from '../uapi/capabilities.ts';
import { ERRNO } from '../uapi/errno.ts';
import { Registration } from './registration.ts';

/** A vCPU through which the VM's ring is seen. */
export interface CoalescingVcpu {
  mapPart(offset: number, size: number): ArrayBufferLike;
}

/** The VM whose zones they are. */
export interface CoalescingVm extends Callee {
  readonly vcpus: readonly CoalescingVcpu[];
}

/** A registered range of addresses, or of ports. */
interface Zone {
  readonly start: bigint;
  readonly end: bigint;
  readonly pio: boolean;
}

/** The stores to a VM's coalesced zones: out of its one ring, to those who handle them. */
export class CoalescedStores {
  readonly #vm: CoalescingVm;
  /** Carries out a store; false when nobody handles it. */
  readonly #handle: (write: CoalescedWrite) => boolean;
  /** The VM's one ring, seen through one of its vCPUs. */
  #seen: { readonly vcpu: CoalescingVcpu; readonly ring: CoalescedMmioRing } | undefined;
  readonly #zones = new Set<Zone>();
  #unhandled: CoalescedWrite[] = [];

  constructor(vm: CoalescingVm, handle: (write: CoalescedWrite) => boolean) {
    this.#vm = vm;
    this.#handle = handle;
  }

  /** @throws KvmError ENOTTY on s390x, EINVAL, ENOSPC */
  register(addr: U64, size: number, pio: boolean): Registration {
    const { calls } = this.#vm;
    const bus = pio ? 1 : 0;
    const result = calls.registerCoalescedMmio(this.#vm.fd, addr, size, bus);
    if (result < 0) throw callFailure('registerCoalescedMmio', result, this.#vm, { gpa: addr, size });
    const zone: Zone = { start: BigInt(addr), end: BigInt(addr) + BigInt(size), pio };
    this.#zones.add(zone);
    return new Registration(`coalesced ${pio ? 'ports' : 'MMIO'} ${hexRange(addr, size)}`, () => {
      this.drain();
      const undone = this.#vm.closed ? 0 : calls.unregisterCoalescedMmio(this.#vm.fd, addr, size, bus);
      if (undone === -ERRNO.EDEADLK)
        throw callFailure('unregisterCoalescedMmio', undone, this.#vm, { gpa: addr, size });
      this.#zones.delete(zone);
      if (this.#vm.closed) return;
      // KVM takes back every zone that the range is in. One that can't be had again is stores that are exits: slower, not lost.
      for (const { start, end } of this.#around(zone)) {
        calls.registerCoalescedMmio(this.#vm.fd, start, Number(end - start), bus);
      }
    });
  }

  /** The zones that contain a whole one. */
  #around({ start, end, pio }: Zone): Zone[] {
    return [...this.#zones].filter((zone) => zone.pio === pio && zone.start <= start && zone.end >= end);
  }

  /** Gives the stores there are to those who handle them. */
  drain(): void {
    if (this.#zones.size === 0) return;
    this.#ring()?.drain((write) => {
      if (!this.#handle(write)) this.#unhandled.push(write);
    });
  }

  /** The stores that nobody handled, oldest first; they are forgotten here. */
  take(): CoalescedWrite[] {
    this.drain();
    return this.#unhandled.splice(0);
  }

  vcpuClosed(vcpu: CoalescingVcpu): void {
    if (this.#seen?.vcpu === vcpu) this.#seen = undefined;
  }

  #ring(): CoalescedMmioRing | undefined {
    if (this.#seen === undefined) {
      const { calls, fd, vcpus } = this.#vm;
      const [vcpu] = vcpus;
      if (vcpu === undefined) return undefined;
      const page = calls.checkExtension(fd, CAP.COALESCED_MMIO);
      this.#seen = {
        vcpu,
        ring: new CoalescedMmioRing(vcpu.mapPart(page * calls.pageSize, calls.pageSize), calls.arch),
      };
    }
    return this.#seen.ring;
  }
}
