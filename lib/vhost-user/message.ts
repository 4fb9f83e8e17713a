import { endianness } from 'node:os';
import { hex, KvmError } from '../base/errors.ts';
import { counted } from '../base/text.ts';
import { ERRNO } from '../uapi/errno.ts';
import { MESSAGE_FLAG, messageName } from './protocol.ts';

/** Messages are in the byte order of the machine. */
const LITTLE_ENDIAN = endianness() === 'LE';

export const HEADER_SIZE = 12;

/** No message of the protocol is longer: a table of 8 regions has 264 bytes, a configuration space at most 268. */
export const MAX_PAYLOAD = 4096;

export interface Header {
  readonly request: number;
  /** The version is checked, and not among them. */
  readonly flags: number;
  /** Bytes of the payload. */
  readonly size: number;
}

export interface VringState {
  readonly index: number;
  readonly num: number;
}

export interface VringAddresses {
  readonly index: number;
  readonly flags: number;
  /** Addresses of the front end's own. */
  readonly desc: number;
  readonly used: number;
  readonly avail: number;
  /** Guest physical address under which the used ring is logged. */
  readonly log: number;
}

/** A part of guest memory as the front end tells of it. */
export interface TableEntry {
  readonly gpa: number;
  readonly size: number;
  /** Where the front end sees it; its rings are told by such addresses. */
  readonly userAddress: number;
  /** Where it begins in its file. */
  readonly mmapOffset: number;
}

export interface LogArea {
  readonly size: number;
  readonly offset: number;
}

/** A part of the configuration space. */
export interface ConfigPart {
  readonly offset: number;
  readonly size: number;
  readonly flags: number;
  readonly bytes: Uint8Array;
}

export interface InflightArea {
  readonly size: number;
  readonly offset: number;
  readonly queues: number;
  readonly queueSize: number;
}

/** A message that breaks the protocol. */
export function protocolError(request: number, explanation: string): KvmError {
  return new KvmError(ERRNO.EPROTO, { syscall: `vhost-user ${messageName(request)}`, explanation });
}

/** Takes the fields of a payload one after the other. */
class Fields {
  readonly #request: number;
  readonly #view: DataView;
  #at = 0;

  constructor(request: number, payload: Uint8Array) {
    this.#request = request;
    this.#view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  }

  u16(): number {
    return this.#view.getUint16(this.#advance(2), LITTLE_ENDIAN);
  }

  u32(): number {
    return this.#view.getUint32(this.#advance(4), LITTLE_ENDIAN);
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#advance(8), LITTLE_ENDIAN);
  }

  /** An address or a size: exact as a number. */
  exact(what: string): number {
    const value = this.u64();
    if (value > Number.MAX_SAFE_INTEGER) {
      throw protocolError(this.#request, `${what} ${hex(value)} is 2^53 or more`);
    }
    return Number(value);
  }

  bytes(length: number): Uint8Array {
    const at = this.#advance(length);
    return new Uint8Array(this.#view.buffer, this.#view.byteOffset + at, length);
  }

  /** @throws KvmError EPROTO when something is left */
  end(): void {
    const left = this.#view.byteLength - this.#at;
    if (left !== 0) throw protocolError(this.#request, `${left} of ${this.#view.byteLength} bytes are too many`);
  }

  #advance(size: number): number {
    const at = this.#at;
    const { byteLength } = this.#view;
    if (at + size > byteLength) {
      throw protocolError(
        this.#request,
        `the payload ends after ${counted(byteLength, 'byte')}, in the middle of a field`,
      );
    }
    this.#at = at + size;
    return at;
  }
}

function decode<T>(request: number, payload: Uint8Array, take: (fields: Fields) => T): T {
  const fields = new Fields(request, payload);
  const value = take(fields);
  fields.end();
  return value;
}

function encode(size: number, put: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(size);
  put(new DataView(bytes.buffer));
  return bytes;
}

/** A whole message. */
export function encodeMessage(request: number, flags: number, payload: Uint8Array): Uint8Array {
  const bytes = encode(HEADER_SIZE + payload.length, (view) => {
    view.setUint32(0, request, LITTLE_ENDIAN);
    view.setUint32(4, flags | MESSAGE_FLAG.VERSION, LITTLE_ENDIAN);
    view.setUint32(8, payload.length, LITTLE_ENDIAN);
  });
  bytes.set(payload, HEADER_SIZE);
  return bytes;
}

/** @throws KvmError EPROTO for another version, or a payload that is too long */
export function decodeHeader(bytes: Uint8Array): Header {
  const fields = new Fields(0, bytes);
  const [request, flags, size] = [fields.u32(), fields.u32(), fields.u32()];
  const version = flags & MESSAGE_FLAG.VERSION_MASK;
  if (version !== MESSAGE_FLAG.VERSION) throw protocolError(request, `the version is ${version}, not 1`);
  if (size > MAX_PAYLOAD) throw protocolError(request, `a payload of ${size} bytes; ${MAX_PAYLOAD} are the most`);
  return { request, flags: flags & ~MESSAGE_FLAG.VERSION_MASK, size };
}

export const NO_PAYLOAD: Uint8Array = new Uint8Array(0);

export function encodeU64(value: bigint): Uint8Array {
  return encode(8, (view) => view.setBigUint64(0, value, LITTLE_ENDIAN));
}

export function decodeU64(request: number, payload: Uint8Array): bigint {
  return decode(request, payload, (fields) => fields.u64());
}

export function encodeVringState({ index, num }: VringState): Uint8Array {
  return encode(8, (view) => {
    view.setUint32(0, index, LITTLE_ENDIAN);
    view.setUint32(4, num, LITTLE_ENDIAN);
  });
}

export function decodeVringState(request: number, payload: Uint8Array): VringState {
  return decode(request, payload, (fields) => ({ index: fields.u32(), num: fields.u32() }));
}

/** The payload of SET_VRING_KICK, CALL and ERR: a queue, and whether a descriptor comes along. */
export interface VringDescriptor {
  readonly index: number;
  readonly hasDescriptor: boolean;
}

const NO_DESCRIPTOR = 0x100n;

export function encodeVringDescriptor({ index, hasDescriptor }: VringDescriptor): Uint8Array {
  return encodeU64(BigInt(index) | (hasDescriptor ? 0n : NO_DESCRIPTOR));
}

export function decodeVringDescriptor(request: number, payload: Uint8Array): VringDescriptor {
  const value = decodeU64(request, payload);
  return { index: Number(value & 0xffn), hasDescriptor: (value & NO_DESCRIPTOR) === 0n };
}

export function encodeVringAddresses({ index, flags, desc, used, avail, log }: VringAddresses): Uint8Array {
  return encode(40, (view) => {
    view.setUint32(0, index, LITTLE_ENDIAN);
    view.setUint32(4, flags, LITTLE_ENDIAN);
    for (const [i, address] of [desc, used, avail, log].entries()) {
      view.setBigUint64(8 + 8 * i, BigInt(address), LITTLE_ENDIAN);
    }
  });
}

export function decodeVringAddresses(request: number, payload: Uint8Array): VringAddresses {
  return decode(request, payload, (fields) => ({
    index: fields.u32(),
    flags: fields.u32(),
    desc: fields.exact('the descriptor table'),
    used: fields.exact('the used ring'),
    avail: fields.exact('the available ring'),
    log: fields.exact('the log address'),
  }));
}

const ENTRY_SIZE = 32;

function putEntry(view: DataView, at: number, { gpa, size, userAddress, mmapOffset }: TableEntry): void {
  for (const [i, value] of [gpa, size, userAddress, mmapOffset].entries()) {
    view.setBigUint64(at + 8 * i, BigInt(value), LITTLE_ENDIAN);
  }
}

function takeEntry(fields: Fields): TableEntry {
  return {
    gpa: fields.exact('the guest physical address'),
    size: fields.exact('the size'),
    userAddress: fields.exact('the user address'),
    mmapOffset: fields.exact('the offset in the file'),
  };
}

/** The payload of SET_MEM_TABLE. */
export function encodeMemoryTable(entries: readonly TableEntry[]): Uint8Array {
  return encode(8 + ENTRY_SIZE * entries.length, (view) => {
    view.setUint32(0, entries.length, LITTLE_ENDIAN);
    for (const [i, entry] of entries.entries()) putEntry(view, 8 + ENTRY_SIZE * i, entry);
  });
}

/** Some front ends send room for more entries than they fill. */
export function decodeMemoryTable(request: number, payload: Uint8Array): readonly TableEntry[] {
  const fields = new Fields(request, payload);
  const count = fields.u32();
  fields.u32();
  const room = Math.floor((payload.length - 8) / ENTRY_SIZE);
  if (count > room)
    throw protocolError(
      request,
      `${counted(count, 'region')}, and room for ${room} in ${counted(payload.length, 'byte')}`,
    );
  return Array.from({ length: count }, () => takeEntry(fields));
}

/** The payload of ADD_MEM_REG and REM_MEM_REG. */
export function encodeMemoryRegion(entry: TableEntry): Uint8Array {
  return encode(8 + ENTRY_SIZE, (view) => putEntry(view, 8, entry));
}

export function decodeMemoryRegion(request: number, payload: Uint8Array): TableEntry {
  return decode(request, payload, (fields) => {
    fields.u64();
    return takeEntry(fields);
  });
}

export function encodeLogArea({ size, offset }: LogArea): Uint8Array {
  return encode(16, (view) => {
    view.setBigUint64(0, BigInt(size), LITTLE_ENDIAN);
    view.setBigUint64(8, BigInt(offset), LITTLE_ENDIAN);
  });
}

export function decodeLogArea(request: number, payload: Uint8Array): LogArea {
  return decode(request, payload, (fields) => ({
    size: fields.exact('the size of the log'),
    offset: fields.exact('the offset of the log'),
  }));
}

const CONFIG_HEADER = 12;

export function encodeConfig({ offset, size, flags, bytes }: ConfigPart): Uint8Array {
  const payload = encode(CONFIG_HEADER + bytes.length, (view) => {
    view.setUint32(0, offset, LITTLE_ENDIAN);
    view.setUint32(4, size, LITTLE_ENDIAN);
    view.setUint32(8, flags, LITTLE_ENDIAN);
  });
  payload.set(bytes, CONFIG_HEADER);
  return payload;
}

/** A payload without bytes is a refusal. */
export function decodeConfig(request: number, payload: Uint8Array): ConfigPart {
  const fields = new Fields(request, payload);
  const [offset, size, flags] = [fields.u32(), fields.u32(), fields.u32()];
  const length = payload.length - CONFIG_HEADER;
  if (length !== 0 && length !== size) {
    throw protocolError(
      request,
      `it says that ${counted(size, 'byte comes', 'bytes come')} along, and ${counted(length, 'does', 'do')}`,
    );
  }
  return { offset, size, flags, bytes: fields.bytes(length) };
}

export function encodeInflight({ size, offset, queues, queueSize }: InflightArea): Uint8Array {
  return encode(24, (view) => {
    view.setBigUint64(0, BigInt(size), LITTLE_ENDIAN);
    view.setBigUint64(8, BigInt(offset), LITTLE_ENDIAN);
    view.setUint16(16, queues, LITTLE_ENDIAN);
    view.setUint16(18, queueSize, LITTLE_ENDIAN);
  });
}

/** 20 bytes, and what C pads them with. */
export function decodeInflight(request: number, payload: Uint8Array): InflightArea {
  const fields = new Fields(request, payload);
  const area = {
    size: fields.exact('the size of the area'),
    offset: fields.exact('the offset of the area'),
    queues: fields.u16(),
    queueSize: fields.u16(),
  };
  fields.bytes(payload.length === 24 ? 4 : 0);
  fields.end();
  return area;
}
