import type { FileHandle } from 'node:fs/promises';
import { checkBoolean, checkInstance, checkMethods, checkOptions, checkSize, checkText } from '../base/arguments.ts';
import { outOfRange } from '../base/errors.ts';
import type { VirtioDevice } from './device.ts';
import { bits } from './protocol.ts';
import { Chain } from './virtqueue/chain.ts';

export const SECTOR = 512;

/** Numbers of virtio-blk. */
export const BLOCK = {
  /** Types of requests. */
  IN: 0,
  OUT: 1,
  FLUSH: 4,
  GET_ID: 8,
  /** How they end. */
  OK: 0,
  IOERR: 1,
  UNSUPP: 2,
} as const;

/** Bit numbers of the features of a disk. */
export const BLOCK_FEATURE = { SEG_MAX: 2, RO: 5, BLK_SIZE: 6, FLUSH: 9 } as const;

export const BLOCK_HEADER = 16;
const ID_LENGTH = 20;
const CONFIG_LENGTH = 60;

export interface BlockDeviceOptions {
  /** Bytes, whole sectors. */
  readonly size: number;
  readonly readOnly?: boolean;
  /** What GET_ID answers, of which 20 bytes count. */
  readonly id?: string;
}

/** A disk in a file: what a driver writes is there when its flush has ended. */
export class BlockDevice implements VirtioDevice {
  readonly queues = 1;
  readonly features: bigint;
  readonly config: Uint8Array;
  readonly #file: FileHandle;
  readonly #size: number;
  readonly #readOnly: boolean;
  readonly #id: string;

  /** @param file stays the caller's @throws RangeError when the size isn't whole sectors */
  constructor(file: FileHandle, options: BlockDeviceOptions) {
    const {
      size,
      readOnly = false,
      id = 'kvm-bridge',
    } = checkOptions(options, { size: true, readOnly: true, id: true });
    checkMethods(file, 'file', ['read', 'write', 'datasync']);
    checkBoolean(readOnly, 'options.readOnly');
    checkText(id, 'options.id');
    if (checkSize(size, 'options.size') % SECTOR !== 0)
      throw outOfRange('options.size', `a multiple of ${SECTOR}`, size);
    this.#file = file;
    this.#size = size;
    this.#readOnly = readOnly;
    this.#id = id;
    const { RO, FLUSH, SEG_MAX, BLK_SIZE } = BLOCK_FEATURE;
    this.features = bits([FLUSH, SEG_MAX, BLK_SIZE, ...(readOnly ? [RO] : [])]);
    this.config = blockConfig(size);
  }

  async handle(chain: Chain): Promise<number> {
    checkInstance(chain, 'chain', Chain);
    const statusAt = chain.writableLength - 1;
    // Without a byte for the status there is nothing to say.
    if (statusAt < 0) return 0;
    let result: { status: number; written: number };
    try {
      result = await this.#request(chain, statusAt);
    } catch {
      result = { status: BLOCK.IOERR, written: 0 };
    }
    chain.write(statusAt, Uint8Array.of(result.status));
    return result.written === statusAt ? statusAt + 1 : result.written;
  }

  async #request(chain: Chain, room: number): Promise<{ status: number; written: number }> {
    const header = new Uint8Array(BLOCK_HEADER);
    if (chain.read(0, header) < BLOCK_HEADER) return failed(BLOCK.IOERR);
    const view = new DataView(header.buffer);
    const position = Number(view.getBigUint64(8, true)) * SECTOR;
    const length = chain.readableLength - BLOCK_HEADER;
    switch (view.getUint32(0, true)) {
      case BLOCK.IN:
        return this.#has(position, room) ? this.#read(chain, position, room) : failed(BLOCK.IOERR);
      case BLOCK.OUT:
        return !this.#readOnly && this.#has(position, length)
          ? this.#write(chain, position, length)
          : failed(BLOCK.IOERR);
      case BLOCK.FLUSH:
        await this.#file.datasync();
        return { status: BLOCK.OK, written: 0 };
      case BLOCK.GET_ID:
        return { status: BLOCK.OK, written: chain.write(0, identity(this.#id, Math.min(room, ID_LENGTH))) };
      default:
        return failed(BLOCK.UNSUPP);
    }
  }

  #has(position: number, length: number): boolean {
    return length % SECTOR === 0 && position <= this.#size - length;
  }

  async #read(chain: Chain, position: number, length: number) {
    let at = position;
    for (const { gpa, length: count } of chain.writablePieces(0, length)) {
      for (const bytes of parts(chain, gpa, count)) {
        const { bytesRead } = await this.#file.read(bytes.into, 0, bytes.into.length, at);
        // Behind the end of the file there are zeroes.
        if (bytesRead < bytes.into.length) bytes.into.fill(0, bytesRead);
        bytes.done();
        at += bytes.into.length;
      }
    }
    return { status: BLOCK.OK, written: length };
  }

  async #write(chain: Chain, position: number, length: number) {
    const bytes = new Uint8Array(Math.min(length, MOST_AT_ONCE));
    for (let done = 0; done < length; ) {
      const part = bytes.subarray(0, Math.min(bytes.length, length - done));
      chain.read(BLOCK_HEADER + done, part);
      for (let written = 0; written < part.length; ) {
        written += (await this.#file.write(part, written, part.length - written, position + done + written))
          .bytesWritten;
      }
      done += part.length;
    }
    return { status: BLOCK.OK, written: 0 };
  }
}

/** Bytes that are held here while they are read or written, whatever a driver asks for. */
const MOST_AT_ONCE = 0x10_0000;

/** Arrays to be filled for a piece of guest memory, each of which is written there when it is. */
function* parts(chain: Chain, gpa: number, length: number) {
  for (let done = 0; done < length; ) {
    const into = new Uint8Array(Math.min(MOST_AT_ONCE, length - done));
    const at = gpa + done;
    yield { into, done: () => chain.memory.writeExact(at, into) };
    done += into.length;
  }
}

const failed = (status: number) => ({ status, written: 0 });

function identity(id: string, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes.set(Buffer.from(id).subarray(0, length));
  return bytes;
}

/** struct virtio_blk_config of a disk. */
function blockConfig(size: number): Uint8Array {
  const bytes = new Uint8Array(CONFIG_LENGTH);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(size / SECTOR), true);
  view.setUint32(12, 126, true);
  view.setUint32(20, SECTOR, true);
  view.setUint16(34, 1, true);
  return bytes;
}
