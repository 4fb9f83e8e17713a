import { IOEVENTFD_RULES } from '../rules/io-bus.ts';
import { refusal } from '../rules/rule.ts';
import { ERRNO } from '../uapi/errno.ts';
import { IOEVENTFD } from '../uapi/flags.ts';
import { KVM_COALESCED_MMIO } from '../uapi/structs.ts';
import { SharedArea } from './backing.ts';
import type { Machine } from './machine.ts';
import type { EmulatedEventfd } from './open-file.ts';

/** When a bus has this many devices that are not ioeventfds, it takes no more of either kind (`NR_IOBUS_DEVS`). */
const MAX_DEVICES = 1000;

interface IoEvent {
  readonly eventfd: EmulatedEventfd;
  readonly addr: bigint;
  readonly len: number;
  readonly pio: boolean;
  /** The value to match, or undefined for any. */
  readonly datamatch: bigint | undefined;
}

interface CoalescedZone {
  readonly addr: bigint;
  readonly size: number;
  readonly pio: boolean;
}

/** What the kernel keeps on a VM's MMIO and port buses: ioeventfds and coalesced zones. */
export class IoBus {
  #events: IoEvent[] = [];
  #zones: CoalescedZone[] = [];
  /** The ring page that all vCPUs of the VM share; absent where the architecture has no coalesced MMIO. */
  readonly ring: SharedArea | undefined;
  readonly #little: boolean;
  readonly #hasRoom: (first: number, last: number, capacity: number) => boolean;

  constructor({ coalescedMmioPage, pageSize, littleEndian, release }: Machine) {
    this.ring = coalescedMmioPage !== 0 ? new SharedArea(pageSize) : undefined;
    this.#little = littleEndian;
    this.#hasRoom = release.since(6, 12) ? hasRoom : hasRoomBefore612;
  }

  assign(eventfd: EmulatedEventfd | number, addr: bigint, len: number, flags: number, datamatch: bigint): number {
    const refused = refusal(IOEVENTFD_RULES, { addr, len, flags });
    if (refused !== 0) return refused;
    if (typeof eventfd === 'number') return eventfd;
    const event: IoEvent = {
      eventfd,
      addr,
      len,
      pio: (flags & IOEVENTFD.PIO) !== 0,
      datamatch: (flags & IOEVENTFD.DATAMATCH) !== 0 ? datamatch : undefined,
    };
    if (this.#events.some((other) => collide(other, event))) return -ERRNO.EEXIST;
    if (this.#isFull(event.pio)) return -ERRNO.ENOSPC;
    this.#events.push(event);
    return 0;
  }

  deassign(eventfd: EmulatedEventfd | number, addr: bigint, len: number, flags: number, datamatch: bigint): number {
    if (typeof eventfd === 'number') return eventfd;
    const pio = (flags & IOEVENTFD.PIO) !== 0;
    const wanted = (flags & IOEVENTFD.DATAMATCH) !== 0 ? datamatch : undefined;
    const index = this.#events.findIndex(
      (event) =>
        event.eventfd === eventfd &&
        event.addr === addr &&
        event.len === len &&
        event.pio === pio &&
        event.datamatch === wanted,
    );
    if (index < 0) return -ERRNO.ENOENT;
    this.#events.splice(index, 1);
    return 0;
  }

  registerCoalesced(addr: bigint, size: number, pio: number): number {
    if (this.ring === undefined) return -ERRNO.ENOTTY;
    if (pio > 1) return -ERRNO.EINVAL;
    if (this.#isFull(pio === 1)) return -ERRNO.ENOSPC;
    this.#zones.push({ addr, size, pio: pio === 1 });
    return 0;
  }

  unregisterCoalesced(addr: bigint, size: number, pio: number): number {
    if (this.ring === undefined) return -ERRNO.ENOTTY;
    if (pio > 1) return -ERRNO.EINVAL;
    this.#zones = this.#zones.filter((zone) => zone.pio !== (pio === 1) || !contains(zone, addr, size));
    return 0;
  }

  /** Whether a write was taken by an ioeventfd or a coalesced zone, so that it makes no exit. */
  write(addr: bigint, bytes: Uint8Array, pio: boolean): boolean {
    for (const event of this.#events) {
      if (event.pio !== pio || event.addr !== addr || (event.len !== 0 && event.len !== bytes.length)) continue;
      if (event.datamatch !== undefined && event.datamatch !== this.#value(bytes)) continue;
      event.eventfd.signal();
      return true;
    }
    return this.#coalesce(addr, bytes, pio);
  }

  #isFull(pio: boolean): boolean {
    return this.#zones.reduce((count, zone) => count + (zone.pio === pio ? 1 : 0), 0) >= MAX_DEVICES;
  }

  #coalesce(addr: bigint, bytes: Uint8Array, pio: boolean): boolean {
    const ring = this.ring?.view;
    if (ring === undefined || !this.#zones.some((zone) => zone.pio === pio && contains(zone, addr, bytes.length))) {
      return false;
    }
    const layout = KVM_COALESCED_MMIO;
    const capacity = Math.floor((ring.byteLength - layout.entries) / layout.entrySize);
    const last = ring.getUint32(layout.last, this.#little);
    const first = ring.getUint32(layout.first, this.#little);
    if (last >= capacity || !this.#hasRoom(first, last, capacity)) return false;
    const entry = layout.entries + last * layout.entrySize;
    ring.setBigUint64(entry + layout.phys_addr, addr, this.#little);
    ring.setUint32(entry + layout.len, bytes.length, this.#little);
    ring.setUint32(entry + layout.pio, pio ? 1 : 0, this.#little);
    new Uint8Array(ring.buffer).set(bytes, entry + layout.data);
    ring.setUint32(layout.last, (last + 1) % capacity, this.#little);
    return true;
  }

  #value(bytes: Uint8Array): bigint {
    let value = 0n;
    for (let i = 0; i < bytes.length; i++) {
      value = (value << 8n) | BigInt(bytes[this.#little ? bytes.length - 1 - i : i]!);
    }
    return value;
  }
}

function collide(a: IoEvent, b: IoEvent): boolean {
  if (a.pio !== b.pio || a.addr !== b.addr) return false;
  if (a.len === 0 || b.len === 0) return true;
  return a.len === b.len && (a.datamatch === undefined || b.datamatch === undefined || a.datamatch === b.datamatch);
}

/** One entry of the ring stays empty. */
function hasRoom(first: number, last: number, capacity: number): boolean {
  return (last + 1) % capacity !== first;
}

/**
 * Before 6.12 the free entries were counted in u32, whose range is no multiple of the capacity: where `last` is not below `first`
 * the count is off, and an empty ring of 170 entries whose indexes are 0 takes 85.
 */
function hasRoomBefore612(first: number, last: number, capacity: number): boolean {
  return ((first - last - 1) >>> 0) % capacity !== 0;
}

function contains(zone: CoalescedZone, addr: bigint, size: number): boolean {
  return addr >= zone.addr && addr + BigInt(size) <= zone.addr + BigInt(zone.size);
}

/** The irqfds of a VM. An eventfd is an irqfd once, whatever the gsi. */
export class Irqfds {
  readonly #gsis = new Map<EmulatedEventfd, number>();

  add(eventfd: EmulatedEventfd, gsi: number): number {
    if (this.#gsis.has(eventfd)) return -ERRNO.EBUSY;
    this.#gsis.set(eventfd, gsi);
    eventfd.onReleased.add(() => this.#gsis.delete(eventfd));
    return 0;
  }

  /** Nothing to delete is no error. */
  delete(eventfd: EmulatedEventfd, gsi: number): void {
    if (this.#gsis.get(eventfd) === gsi) this.#gsis.delete(eventfd);
  }
}
