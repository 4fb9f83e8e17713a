import { checkBoolean, checkInstance, checkOptions, checkU32, checkU64 } from '../base/arguments.ts';
import { hex, hexRange } from '../base/errors.ts';
import type { U64 } from '../base/u64.ts';
import { type Callee, callFailure, isClosed, whyClosed } from '../calls/failure.ts';
import type { CoalescedWrite } from '../memory/coalesced-mmio.ts';
import { MmioBus } from '../memory/mmio-bus.ts';
import { IOEVENTFD_RULES } from '../rules/io-bus.ts';
import { explain } from '../rules/rule.ts';
import type { AddressSpace } from '../sharing/address-space.ts';
import { EventFd } from '../sharing/eventfd.ts';
import { isLittleEndianHost } from '../uapi/arch.ts';
import { ERRNO } from '../uapi/errno.ts';
import { IOEVENTFD, IRQFD } from '../uapi/flags.ts';
import { CoalescedStores, type CoalescingVcpu } from './coalesced-stores.ts';
import { Registration } from './registration.ts';

export interface IoeventfdOptions {
  /** Address, or port with `pio`. */
  readonly addr: U64;
  /** Bytes of the store that matches: 1, 2, 4, 8; 0 for any (KVM_CAP_IOEVENTFD_ANY_LENGTH). */
  readonly len: number;
  readonly eventfd: EventFd;
  /** Only stores of this value match. */
  readonly datamatch?: U64;
  readonly pio?: boolean;
}

export interface IrqfdOptions {
  readonly eventfd: EventFd;
  readonly gsi: number;
  /** Signalled when the guest acknowledges a level-triggered interrupt. */
  readonly resample?: EventFd;
}

/** The VM whose I/O it is. */
export interface IoVm extends Callee {
  readonly memory: AddressSpace;
  readonly vcpus: readonly CoalescingVcpu[];
}

/**
 * A VM's I/O: ports, and what the kernel does with the guest's stores, and with its interrupts, without leaving the guest.
 * What happens at MMIO addresses is in `vm.memory`.
 *
 * @example
 * vm.io.ports.add(0x3f8, 8, { write: (offset, value) => uart.write(offset, value) }, 'uart');
 * using doorbell = vm.io.ioeventfd({ addr: 0xd000_0000, len: 4, eventfd });
 */
export class VmIo {
  /** I/O ports with handlers (x86_64). */
  readonly ports: MmioBus;
  readonly #vm: IoVm;
  readonly #coalesced: CoalescedStores;
  readonly #registrations = new Set<Registration>();

  /** Made by the VM. */
  constructor(vm: IoVm) {
    this.#vm = vm;
    this.ports = new MmioBus('port', isLittleEndianHost(vm.calls.arch));
    this.ports.settle = () => this.drainCoalesced();
    this.ports.whyClosed = () => (vm.closed ? isClosed(vm.noun) : undefined);
    this.#coalesced = new CoalescedStores(vm, ({ pio, gpa, data }) => {
      return pio ? this.ports.write(gpa, data) : vm.memory.answerGuest(gpa, data, true);
    });
  }

  /** KVM_CREATE_IRQCHIP: an interrupt controller in the kernel. @throws KvmError EEXIST for a second; EINVAL when there are vCPUs */
  createIrqchip(): void {
    const { calls, fd } = this.#vm;
    const result = calls.createIrqchip(fd);
    if (result >= 0) return;
    const explanation =
      result === -ERRNO.EEXIST
        ? 'the VM has one already'
        : result === -ERRNO.EINVAL && this.#vm.vcpus.length > 0
          ? `it comes before the first vCPU, and there are ${this.#vm.vcpus.length}`
          : undefined;
    throw callFailure('createIrqchip', result, this.#vm, { explanation });
  }

  /**
   * KVM_IOEVENTFD: a store to an address signals an eventfd, and the guest goes on without an exit. Closing takes it
   * back. @throws KvmError EINVAL, EEXIST, EBADF; EDEADLK, also of closing, while a guest runs whose pages this thread serves
   */
  ioeventfd(options: IoeventfdOptions): Registration {
    const {
      addr,
      len,
      eventfd,
      datamatch: match,
      pio = false,
    } = checkOptions(options, { addr: true, len: true, eventfd: true, datamatch: true, pio: true });
    const { calls } = this.#vm;
    checkU64(addr, 'options.addr');
    checkU32(len, 'options.len');
    checkInstance(eventfd, 'options.eventfd', EventFd);
    const datamatch = checkU64(match ?? 0, 'options.datamatch');
    checkBoolean(pio, 'options.pio');
    const flags = (match === undefined ? 0 : IOEVENTFD.DATAMATCH) | (pio ? IOEVENTFD.PIO : 0);
    const result = calls.ioeventfd(this.#vm.fd, addr, len, eventfd.fd, flags, datamatch);
    if (result < 0) {
      const explanation =
        whyClosed(result, eventfd) ??
        (result === -ERRNO.EEXIST
          ? `there is an ioeventfd at ${hex(addr)} that this one would collide with`
          : explain(IOEVENTFD_RULES, { addr: BigInt(addr), len, flags }, result));
      throw callFailure('ioeventfd', result, this.#vm, { gpa: addr, explanation });
    }
    const value = match === undefined ? '' : `, of ${hex(datamatch)}`;
    const what = `an ioeventfd, ${pio ? 'port' : 'stores to'} ${hexRange(addr, len)}${value}`;
    return this.#register(what, [eventfd], ([fd]) => {
      const undone = calls.ioeventfd(this.#vm.fd, addr, len, fd!, flags | IOEVENTFD.DEASSIGN, datamatch);
      if (undone === -ERRNO.EDEADLK) throw callFailure('ioeventfd', undone, this.#vm, { gpa: addr });
    });
  }

  /**
   * KVM_IRQFD: signalling the eventfd injects an interrupt. KVM takes the count of each signal at once, so nobody else reads it;
   * what was counted before goes when the registration ends. Closing takes it back. @throws KvmError EINVAL, EBUSY, EAGAIN
   */
  irqfd(options: IrqfdOptions): Registration {
    const { eventfd, gsi, resample } = checkOptions(options, { eventfd: true, gsi: true, resample: true });
    checkInstance(eventfd, 'options.eventfd', EventFd);
    checkU32(gsi, 'options.gsi');
    if (resample !== undefined) checkInstance(resample, 'options.resample', EventFd);
    const { calls } = this.#vm;
    const flags = resample === undefined ? 0 : IRQFD.RESAMPLE;
    const result = calls.irqfd(this.#vm.fd, eventfd.fd, gsi, flags, resample?.fd ?? 0);
    if (result < 0) {
      const explanation =
        whyClosed(result, eventfd) ??
        (result === -ERRNO.EINVAL
          ? 'it needs an interrupt controller in the kernel: createIrqchip()'
          : result === -ERRNO.EBUSY
            ? 'another irqfd, here or in another process, has this eventfd'
            : undefined);
      throw callFailure('irqfd', result, this.#vm, { explanation });
    }
    return this.#register(`an irqfd, GSI ${gsi}`, resample === undefined ? [eventfd] : [eventfd, resample], ([fd]) => {
      calls.irqfd(this.#vm.fd, fd!, gsi, IRQFD.DEASSIGN, 0);
    });
  }

  /**
   * KVM_REGISTER_COALESCED_MMIO: stores to a range are put aside, and come to the handlers (or to
   * {@link takeCoalescedWrites}) before the next exit. Closing takes it back, and nothing of other zones, though KVM alone takes
   * back all those around it.
   * @throws KvmError ENOTTY on s390x, EINVAL, ENOSPC
   */
  registerCoalescedMmio(addr: U64, size: number, options: { readonly pio?: boolean } = {}): Registration {
    checkU64(addr, 'addr');
    checkU32(size, 'size');
    const { pio = false } = checkOptions(options, { pio: true });
    return this.#coalesced.register(addr, size, checkBoolean(pio, 'options.pio'));
  }

  /** The coalesced stores that no handler took, oldest first; they are forgotten here. */
  takeCoalescedWrites(): CoalescedWrite[] {
    return this.#coalesced.take();
  }

  /** @internal Gives the coalesced stores there are to the handlers. Runs do so before each exit. */
  drainCoalesced(): void {
    this.#coalesced.drain();
  }

  /** @internal The VM is closed, and with it what was registered. */
  close(): void {
    for (const registration of [...this.#registrations]) registration.close();
  }

  /** @internal */
  vcpuClosed(vcpu: CoalescingVcpu): void {
    this.#coalesced.vcpuClosed(vcpu);
  }

  /** Holds eventfds until the registration is closed, and takes it back with their descriptors if the VM is there still. */
  #register(what: string, eventfds: readonly EventFd[], undo: (fds: readonly number[]) => void): Registration {
    const fds = eventfds.map(({ fd }) => fd);
    for (const eventfd of eventfds) eventfd.hold();
    const registration = new Registration(what, () => {
      if (!this.#vm.closed) undo(fds);
      this.#registrations.delete(registration);
      for (const eventfd of eventfds) eventfd.letGo();
    });
    this.#registrations.add(registration);
    return registration;
  }
}
