import { inspect } from 'node:util';
import { checkSize, normalU64 } from '../base/arguments.ts';
import { hexRange, invalidArgType, KvmError } from '../base/errors.ts';
import { table } from '../base/text.ts';
import type { U64 } from '../base/u64.ts';
import { ERRNO } from '../uapi/errno.ts';
import { exactGpa } from './gpa.ts';
import { type Range, RangeTable } from './range-table.ts';

/** What a device does with the guest's loads and stores. Values of up to 4 bytes are numbers, longer ones bigints. */
export interface MmioHandlers {
  /** A load of `size` bytes at `offset` from the range's start: the value the guest gets. */
  read?(offset: number, size: number): number | bigint;
  /** A store. */
  write?(offset: number, value: number | bigint, size: number): void;
  /** Byte order of the device's registers; the guest's by default. */
  readonly littleEndian?: boolean;
}

/** A range of addresses, or of ports, with handlers. */
export class MmioRegion implements Range {
  readonly kind: 'mmio' | 'port';
  readonly start: number;
  readonly size: number;
  readonly name: string | undefined;
  readonly handlers: MmioHandlers;
  readonly #bus: MmioBus;

  constructor(bus: MmioBus, start: number, size: number, name: string | undefined, handlers: MmioHandlers) {
    this.#bus = bus;
    this.kind = bus.kind;
    this.start = start;
    this.size = size;
    this.name = name;
    this.handlers = handlers;
  }

  get end(): number {
    return this.start + this.size;
  }

  /** First address, or port. */
  get gpa(): U64 {
    return normalU64(this.start);
  }

  /** Takes the handlers off the bus; the guest's accesses are exits again. Does nothing the second time. */
  remove(): void {
    this.#bus.remove(this);
  }

  [Symbol.dispose](): void {
    this.remove();
  }

  toString(): string {
    return `${this.kind}${this.name === undefined ? '' : ` '${this.name}'`} ${hexRange(BigInt(this.start), this.size)}`;
  }
}

const PORTS = 0x1_0000;

/** A bus of ranges that don't overlap, each with the handlers of a device: MMIO addresses, or I/O ports. */
export class MmioBus {
  readonly kind: 'mmio' | 'port';
  readonly littleEndian: boolean;
  readonly #table = new RangeTable<MmioRegion>();

  constructor(kind: 'mmio' | 'port', littleEndian: boolean) {
    this.kind = kind;
    this.littleEndian = littleEndian;
  }

  /** In ascending order of address. */
  get regions(): readonly MmioRegion[] {
    return this.#table.entries;
  }

  /**
   * Puts handlers on a range of addresses.
   * @throws KvmError EEXIST naming both ranges when it overlaps another, EINVAL when it is empty or out of reach
   * @example vm.ports.add(0x3f8, 8, { write: (offset, value) => uart.write(offset, value) }, 'uart')
   */
  add(address: U64, size: number, handlers: MmioHandlers, name?: string): MmioRegion {
    const start = exactGpa(address, this.kind === 'mmio' ? 'gpa' : 'port');
    checkSize(size, 'size');
    if (typeof handlers !== 'object' || handlers === null) throw invalidArgType('handlers', 'an object', handlers);
    const region = new MmioRegion(this, start, size, name, handlers);
    const limit = this.kind === 'port' ? PORTS : 2 ** 64;
    if (size === 0 || region.end > limit) {
      throw this.#refusal(ERRNO.EINVAL, region, `${region} is empty or reaches beyond ${limit.toString(16)}`);
    }
    const other = this.#table.overlapping(start, region.end);
    if (other !== undefined) throw this.#refusal(ERRNO.EEXIST, region, `${region} overlaps ${other}`);
    this.#table.insert(region);
    return region;
  }

  remove(region: MmioRegion): void {
    this.#table.remove(region);
  }

  /** The range that contains an address. */
  find(address: number): MmioRegion | undefined {
    return this.#table.find(address);
  }

  /** A range that has a part of [start, end). */
  overlapping(start: number, end: number): MmioRegion | undefined {
    return this.#table.overlapping(start, end);
  }

  /** Answers a guest's load by filling `data`; false when no handler is there for it. */
  read(address: number, data: Uint8Array): boolean {
    const region = this.#table.find(address);
    if (region?.handlers.read === undefined || address + data.length > region.end) return false;
    const value = region.handlers.read(address - region.start, data.length);
    putValue(data, value, region.handlers.littleEndian ?? this.littleEndian);
    return true;
  }

  /** Carries out a guest's store of `data`; false when no handler is there for it. */
  write(address: number, data: Uint8Array): boolean {
    const region = this.#table.find(address);
    if (region?.handlers.write === undefined || address + data.length > region.end) return false;
    const value = takeValue(data, region.handlers.littleEndian ?? this.littleEndian);
    region.handlers.write(address - region.start, value, data.length);
    return true;
  }

  [inspect.custom](): string {
    const rows = this.regions.map((region) => [hexRange(BigInt(region.start), region.size), region.name ?? '']);
    const head = `MmioBus (${this.kind}), ${rows.length} range${rows.length === 1 ? '' : 's'}`;
    return rows.length === 0 ? head : `${head}\n${table([this.kind, 'name'], rows)}`;
  }

  #refusal(errno: number, region: MmioRegion, explanation: string): KvmError {
    return new KvmError(errno, { syscall: `add ${this.kind} range`, gpa: region.gpa, size: region.size, explanation });
  }
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
  if (length <= 4 && typeof value === 'number' && Number.isInteger(value)) {
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
