import { inspect } from 'node:util';
import {
  checkBoolean,
  checkBytes,
  checkFunction,
  checkInstance,
  checkName,
  checkObject,
  checkOneOf,
  checkSize,
  isError,
  isExact,
  isIntegerIn,
  normalU64,
} from '../base/arguments.ts';
import { hex, hexRange, invalidArgType, invalidReturnValue, KvmError, outOfRange } from '../base/errors.ts';
import { type Range, RangeTable } from '../base/range-table.ts';
import { counted, table } from '../base/text.ts';
import type { U64 } from '../base/u64.ts';
import { ERRNO } from '../uapi/errno.ts';
import { exactEnd, exactGpa, splitGpa } from './gpa.ts';

/** What a device does with the guest's loads and stores. Values of up to 4 bytes are numbers, longer ones bigints. */
export interface MmioHandlers {
  /** A load of `size` bytes at `offset` from the range's start: the value the guest gets, an integer. */
  read?(offset: number, size: number): number | bigint;
  /** A store. */
  write?(offset: number, value: number | bigint, size: number): void;
  /** Byte order of the device's registers; the guest's by default. */
  readonly littleEndian?: boolean;
}

/** A range of addresses, or of ports, with handlers. */
export class MmioRegion implements Range {
  readonly kind: 'mmio' | 'port';
  readonly size: number;
  readonly name: string | undefined;
  // Not enumerable: a HandlerError takes its region along to other threads, where functions cannot go.
  readonly #handlers: MmioHandlers;
  readonly #bus: MmioBus;
  /** As a double, which is exact. Changed by the bus only. */
  start: number;

  constructor(bus: MmioBus, start: number, size: number, name: string | undefined, handlers: MmioHandlers) {
    this.#bus = bus;
    this.kind = bus.kind;
    this.start = start;
    this.size = size;
    this.name = name;
    this.#handlers = handlers;
  }

  get handlers(): MmioHandlers {
    return this.#handlers;
  }

  get end(): number {
    return this.start + this.size;
  }

  /** First address, or port. */
  get gpa(): U64 {
    return normalU64(this.start);
  }

  /**
   * Moves the handlers to another address, as a BAR is moved: each of the guest's accesses meets them at the old place or at
   * the new one. What the kernel does there (ioeventfds, coalescing) stays where it is registered.
   * @throws KvmError EEXIST naming what is there, EINVAL out of reach: then nothing is changed; EBADF once it was removed, or the VM or
   *   the address space was closed
   */
  move(address: U64): void {
    this.#bus.move(this, address, 'address');
  }

  /** Takes the handlers off the bus; the guest's accesses are exits again. Does nothing the second time. */
  remove(): void {
    this.#bus.remove(this);
  }

  [Symbol.dispose](): void {
    this.remove();
  }

  toString(): string {
    return describeRange(this, this.start);
  }

  [inspect.custom](): string {
    // Those of a class instance are its prototype's.
    const handled = (['read', 'write'] as const).filter((access) => this.handlers[access] !== undefined);
    return `${this}, handlers ${handled.join(' and ') || 'that do nothing'}`;
  }
}

/** A range of the guest's with handlers: on a bus, or memory that is read-only and takes stores. */
export interface HandledRegion extends Range {
  readonly kind: 'mmio' | 'port' | 'ram' | 'device';
  readonly name: string | undefined;
  readonly size: number;
}

/** A handler threw: `code` is ERR_HANDLER, `cause` what it threw, `region` whose it is. */
export class HandlerError extends Error {
  override readonly name = 'HandlerError';
  readonly code = 'ERR_HANDLER';
  readonly region: HandledRegion;

  constructor(
    handler: 'read' | 'write' | 'store',
    region: HandledRegion,
    offset: number,
    size: number,
    cause: unknown,
  ) {
    const said = isError(cause) ? cause.message : inspect(cause);
    super(`The ${handler} handler of ${accessOf(region, offset, size)} threw: ${said}`, { cause });
    this.region = region;
  }
}

const accessOf = (region: HandledRegion, offset: number, size: number): string =>
  `${region}, for ${counted(size, 'byte')} at offset ${hex(offset)},`;

function checkHandlers(handlers: MmioHandlers): void {
  const { read, write, littleEndian } = checkObject(handlers, 'handlers');
  if (read !== undefined) checkFunction(read, 'handlers.read');
  if (write !== undefined) checkFunction(write, 'handlers.write');
  if (littleEndian !== undefined) checkBoolean(littleEndian, 'handlers.littleEndian');
}

/** An address as ranges have it: a double, beyond 2^53 of whole pages. */
function checkAddress(address: number, name: string): number {
  if (typeof address !== 'number') throw invalidArgType(name, 'a number', address);
  if (!isIntegerIn(address, 0, 2 ** 64)) throw outOfRange(name, 'an integer in [0, 2^64]', address);
  return address;
}

const PORTS = 0x1_0000;

/** A bus of ranges that don't overlap, each with the handlers of a device: MMIO addresses, or I/O ports. */
export class MmioBus {
  readonly kind: 'mmio' | 'port';
  readonly littleEndian: boolean;
  /**
   * What the guest meets where nobody answers. False, as at first: its access is an exit. True: loads read all ones and
   * stores go nowhere, as on a bus without a device.
   */
  openBus = false;
  /** @internal Has those carry out what a guest stored before, and nobody has seen yet: for the handlers as they are. */
  settle: () => void = () => {};
  /** @internal Why nobody meets its ranges any more, since the VM or the address space has gone; undefined while it is there. */
  whyClosed: () => string | undefined = () => undefined;
  readonly #table = new RangeTable<MmioRegion>();
  readonly #elsewhere: (start: number, end: number) => object | undefined;

  /** @param elsewhere what else has a part of a range, and so is in the way */
  constructor(
    kind: 'mmio' | 'port',
    littleEndian: boolean,
    elsewhere: (start: number, end: number) => object | undefined = () => undefined,
  ) {
    this.kind = checkOneOf(kind, 'kind', ['mmio', 'port'] as const);
    this.littleEndian = checkBoolean(littleEndian, 'littleEndian');
    this.#elsewhere = elsewhere;
  }

  /** In ascending order of address, as they are now. */
  get regions(): readonly MmioRegion[] {
    return [...this.#table.entries];
  }

  /**
   * Puts handlers on a range of addresses.
   * @throws KvmError EEXIST naming both ranges when it overlaps another, EINVAL when it is empty or out of reach, EBADF when the VM or
   *   the address space is closed; RangeError when it reaches to 2^53 or beyond and is not made of whole 4096-byte pages
   * @example vm.io.ports.add(0x3f8, 8, { write: (offset, value) => uart.write(offset, value) }, 'uart')
   */
  add(address: U64, size: number, handlers: MmioHandlers, name?: string): MmioRegion {
    const start = this.#exactStart(address, checkSize(size, 'size'));
    checkHandlers(handlers);
    checkName(name, 'name');
    const region = new MmioRegion(this, start, size, name, handlers);
    this.#requireOpen(region, start, 'add');
    this.#requireFree(region, start, 'add');
    this.#table.insert(region);
    return region;
  }

  /** @param name of the argument, as whoever calls this has it */
  move(region: MmioRegion, address: U64, name?: string): void {
    if (!this.#table.has(checkInstance(region, 'region', MmioRegion))) {
      throw this.#refusal(ERRNO.EBADF, region, region.start, 'move', `${region} was removed from its bus`);
    }
    const start = this.#exactStart(address, region.size, name);
    this.settle();
    this.#requireOpen(region, start, 'move');
    // A handler of what was stored before may have removed it, or put another where it is to go.
    if (!this.#table.has(region)) return;
    this.#requireFree(region, start, 'move');
    this.#table.remove(region);
    region.start = start;
    this.#table.insert(region);
  }

  remove(region: MmioRegion): void {
    if (!this.#table.has(checkInstance(region, 'region', MmioRegion))) return;
    this.settle();
    this.#table.remove(region);
  }

  /** @internal @returns what makes the ranges those that they are now */
  keep(): () => void {
    const kept = this.regions.map((region) => ({ region, start: region.start }));
    return () => {
      for (const region of this.regions) this.#table.remove(region);
      for (const { region, start } of kept) {
        region.start = start;
        this.#table.insert(region);
      }
    };
  }

  /** The range that contains an address. */
  find(address: U64): MmioRegion | undefined {
    if (typeof address === 'number') return this.#table.find(checkAddress(address, 'address'));
    const { page, rest } = splitGpa(address, 'address');
    // Beyond 2^53 only whole pages are exact, and ranges are made of these.
    return this.#table.find(page < Number.MAX_SAFE_INTEGER ? page + rest : page);
  }

  /** A range that has a part of [start, end). */
  overlapping(start: number, end: number): MmioRegion | undefined {
    return this.#table.overlapping(checkAddress(start, 'start'), checkAddress(end, 'end'));
  }

  /** Answers a guest's load by filling `data`; false when no handler is there for it. */
  read(address: U64, data: Uint8Array): boolean {
    checkBytes(data, 'data');
    const region = this.find(address);
    const offset = region === undefined ? 0 : offsetIn(region, address);
    if (region?.handlers.read === undefined || offset + data.length > region.size) {
      if (this.openBus) data.fill(0xff);
      return this.openBus;
    }
    let value: number | bigint | undefined;
    try {
      value = region.handlers.read(offset, data.length);
    } catch (error) {
      throw new HandlerError('read', region, offset, data.length, error);
    }
    if (typeof value !== 'bigint' && !(typeof value === 'number' && isExact(value))) {
      throw invalidReturnValue(
        'an integer (a bigint from 2^53 on)',
        `the read handler of ${accessOf(region, offset, data.length)}`,
        value,
      );
    }
    putValue(data, value, region.handlers.littleEndian ?? this.littleEndian);
    return true;
  }

  /** Carries out a guest's store of `data`; false when no handler is there for it. */
  write(address: U64, data: Uint8Array): boolean {
    checkBytes(data, 'data');
    const region = this.find(address);
    const offset = region === undefined ? 0 : offsetIn(region, address);
    if (region?.handlers.write === undefined || offset + data.length > region.size) return this.openBus;
    const value = takeValue(data, region.handlers.littleEndian ?? this.littleEndian);
    try {
      region.handlers.write(offset, value, data.length);
    } catch (error) {
      throw new HandlerError('write', region, offset, data.length, error);
    }
    return true;
  }

  [inspect.custom](): string {
    const rows = this.regions.map((region) => [hexRange(BigInt(region.start), region.size), region.name ?? '']);
    const head = `MmioBus (${this.kind}), ${counted(rows.length, 'range')}`;
    return rows.length === 0 ? head : `${head}\n${table([this.kind, 'name'], rows)}`;
  }

  #exactStart(address: U64, size: number, name: string = this.kind === 'mmio' ? 'gpa' : 'port'): number {
    exactEnd(address, size, name);
    return exactGpa(address, name);
  }

  #requireOpen(region: MmioRegion, start: number, what: string): void {
    const why = this.whyClosed();
    if (why !== undefined) throw this.#refusal(ERRNO.EBADF, region, start, what, why);
  }

  #requireFree(region: MmioRegion, start: number, what: string): void {
    const { kind, size } = region;
    const end = start + size;
    const limit = kind === 'port' ? PORTS : 2 ** 64;
    const place = describeRange(region, start);
    if (size === 0 || end > limit) {
      throw this.#refusal(
        ERRNO.EINVAL,
        region,
        start,
        what,
        size === 0 ? `${place} is empty` : `${place} reaches beyond ${hex(limit)}`,
      );
    }
    const other = this.#table.overlapping(start, end, region) ?? this.#elsewhere(start, end);
    if (other !== undefined) throw this.#refusal(ERRNO.EEXIST, region, start, what, `${place} overlaps ${other}`);
  }

  #refusal(errno: number, { kind, size }: MmioRegion, start: number, what: string, explanation: string): KvmError {
    return new KvmError(errno, { syscall: `${what} ${kind} range`, gpa: normalU64(start), size, explanation });
  }
}

function describeRange({ kind, name, size }: MmioRegion, start: number): string {
  return `${kind}${name === undefined ? '' : ` '${name}'`} ${hexRange(BigInt(start), size)}`;
}

function offsetIn({ start }: MmioRegion, address: U64): number {
  return typeof address === 'number' ? address - start : Number(address - BigInt(start));
}

/** The integer that bytes stand for. */
export function takeValue(data: Uint8Array, littleEndian: boolean): number | bigint {
  const { length } = data;
  if (length > 4) {
    let wide = 0n;
    for (let i = 0; i < length; i++) wide = (wide << 8n) | BigInt(data[littleEndian ? length - 1 - i : i]!);
    return wide;
  }
  let value = 0;
  for (let i = 0; i < length; i++) value = value * 256 + data[littleEndian ? length - 1 - i : i]!;
  return value;
}

/** The bytes of an integer; what doesn't fit is cut off, as a device's wider register would be. */
export function putValue(data: Uint8Array, value: number | bigint, littleEndian: boolean): void {
  const { length } = data;
  if (length <= 4 && typeof value === 'number' && isExact(value)) {
    // A shift takes an integer's lowest 32 bits, of negative ones too.
    for (let i = 0; i < length; i++) data[littleEndian ? i : length - 1 - i] = value >>> (8 * i);
    return;
  }
  let rest = BigInt(value);
  for (let i = 0; i < length; i++) {
    data[littleEndian ? i : length - 1 - i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
}
