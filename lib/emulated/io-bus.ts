import { IOEVENTFD_RULES } from '../rules/io-bus.ts';
import { refusal } from '../rules/rule.ts';
import { ERRNO } from '../uapi/errno.ts';
import { IOEVENTFD } from '../uapi/flags.ts';
import { BusDevices, type BusRange } from './bus-devices.ts';
import { CoalescedRing } from './coalesced-ring.ts';
import type { Machine } from './machine.ts';
import type { EmulatedEventfd } from './open-file.ts';
import { integerOf } from './values.ts';

/** When a bus has this many devices that are not ioeventfds, it takes no more of either kind (`NR_IOBUS_DEVS`). */
const MAX_DEVICES = 1000;

/** An ioeventfd: it takes stores of its size, or of any, and signals. */
interface IoEvent extends BusRange {
  readonly eventfd: EmulatedEventfd;
  /** The value to match, or undefined for any. */
  readonly datamatch: bigint | undefined;
}

/** A coalesced zone: it takes stores into the ring while there is room. */
interface CoalescedZone extends BusRange {
  readonly eventfd: undefined;
}

type Device = IoEvent | CoalescedZone;

/** What the kernel keeps on a VM's MMIO and port buses: ioeventfds and coalesced zones. */
export class IoBus {
  readonly #mmio = new BusDevices<Device>();
  readonly #ports = new BusDevices<Device>();
  /** Which all architectures keep, and only s390x has notifications for. */
  readonly #ccwNotifications = new BusDevices<Device>();
  /** Absent where the architecture has no coalesced MMIO. */
  readonly ring: CoalescedRing | undefined;
  readonly #little: boolean;

  constructor(machine: Machine) {
    this.ring = machine.coalescedMmioPage !== 0 ? new CoalescedRing(machine) : undefined;
    this.#little = machine.littleEndian;
  }

  assign(eventfd: EmulatedEventfd | number, addr: bigint, len: number, flags: number, datamatch: bigint): number {
    const refused = refusal(IOEVENTFD_RULES, { addr, len, flags });
    if (refused !== 0) return refused;
    if (typeof eventfd === 'number') return eventfd;
    const devices = this.#busOf(flags);
    const event = { eventfd, addr, size: BigInt(len), datamatch: matchOf(flags, datamatch) };
    for (const other of devices) {
      if (other.eventfd !== undefined && collide(other, event)) return -ERRNO.EEXIST;
    }
    if (isFull(devices)) return -ERRNO.ENOSPC;
    devices.add(event);
    return 0;
  }

  deassign(eventfd: EmulatedEventfd | number, addr: bigint, len: number, flags: number, datamatch: bigint): number {
    if (typeof eventfd === 'number') return eventfd;
    const devices = this.#busOf(flags);
    const wanted = matchOf(flags, datamatch);
    for (const event of devices) {
      if (event.eventfd !== eventfd || event.addr !== addr || event.size !== BigInt(len)) continue;
      if (event.datamatch !== wanted) continue;
      devices.delete(event);
      return 0;
    }
    return -ERRNO.ENOENT;
  }

  registerCoalesced(addr: bigint, size: number, pio: number): number {
    if (this.ring === undefined) return -ERRNO.ENOTTY;
    if (pio > 1) return -ERRNO.EINVAL;
    const devices = this.#devices(pio === 1);
    if (isFull(devices)) return -ERRNO.ENOSPC;
    devices.add({ eventfd: undefined, addr, size: BigInt(size) });
    return 0;
  }

  /** All zones go that have the whole range in them. */
  unregisterCoalesced(addr: bigint, size: number, pio: number): number {
    if (this.ring === undefined) return -ERRNO.ENOTTY;
    if (pio > 1) return -ERRNO.EINVAL;
    const devices = this.#devices(pio === 1);
    const range = { addr, size: BigInt(size) };
    for (const zone of [...devices]) if (zone.eventfd === undefined && contains(zone, range)) devices.delete(zone);
    return 0;
  }

  /** Whether a write was taken by an ioeventfd or a coalesced zone, so that it makes no exit. */
  write(addr: bigint, bytes: Uint8Array, pio: boolean): boolean {
    const access = { addr, size: BigInt(bytes.length) };
    for (const device of this.#devices(pio).asked(access)) {
      if (device.eventfd === undefined) {
        if (contains(device, access) && this.ring!.put(addr, bytes, pio)) return true;
      } else if (this.#matches(device, bytes)) {
        device.eventfd.signal();
        return true;
      }
    }
    return false;
  }

  #busOf(flags: number): BusDevices<Device> {
    if ((flags & IOEVENTFD.PIO) !== 0) return this.#ports;
    return (flags & IOEVENTFD.VIRTIO_CCW_NOTIFY) !== 0 ? this.#ccwNotifications : this.#mmio;
  }

  #devices(pio: boolean): BusDevices<Device> {
    return pio ? this.#ports : this.#mmio;
  }

  /** Whether a store is for an ioeventfd that was asked about it: one of the same size is at the same address then. */
  #matches(event: IoEvent, bytes: Uint8Array): boolean {
    if (event.size !== 0n && event.size !== BigInt(bytes.length)) return false;
    return event.datamatch === undefined || event.datamatch === integerOf(bytes, this.#little);
  }
}

const matchOf = (flags: number, datamatch: bigint): bigint | undefined =>
  (flags & IOEVENTFD.DATAMATCH) !== 0 ? datamatch : undefined;

function isFull(devices: Iterable<Device>): boolean {
  let zones = 0;
  for (const { eventfd } of devices) if (eventfd === undefined) zones++;
  return zones >= MAX_DEVICES;
}

function collide(a: IoEvent, b: IoEvent): boolean {
  if (a.addr !== b.addr) return false;
  if (a.size === 0n || b.size === 0n) return true;
  return a.size === b.size && (a.datamatch === undefined || b.datamatch === undefined || a.datamatch === b.datamatch);
}

function contains(zone: BusRange, { addr, size }: BusRange): boolean {
  return addr >= zone.addr && addr + size <= zone.addr + zone.size;
}
