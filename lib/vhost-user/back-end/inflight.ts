import { KvmError } from '../../base/errors.ts';
import { counted } from '../../base/text.ts';
import { callError } from '../../calls/failure.ts';
import type { KvmCalls } from '../../calls/kvm-calls.ts';
import { Mapping } from '../../memory/mapping.ts';
import { Descriptor } from '../../sharing/descriptor.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { type InflightArea, protocolError } from '../message.ts';
import { REQUEST } from '../protocol.ts';

/** Bytes before the descriptors' states, and of each. */
const HEADER = 16;
const STATE = 16;
const ALIGNMENT = 64;
const VERSION = 1;

const FIELD = { VERSION: 8, SIZE: 10, LAST_HEAD: 12, USED: 14 } as const;
const STATE_FIELD = { IN_FLIGHT: 0, COUNTER: 8 } as const;

const stride = (queueSize: number): number => Math.ceil((HEADER + STATE * queueSize) / ALIGNMENT) * ALIGNMENT;

/**
 * Which chains are in flight, in memory that the front end keeps: another back end, after this one is gone, serves those again
 * that were not given back. The layout is that of the specification for split queues, in the machine's byte order.
 */
export class Inflight {
  readonly #mapping: Mapping;
  readonly area: InflightArea;

  private constructor(mapping: Mapping, area: InflightArea) {
    this.#mapping = mapping;
    this.area = area;
  }

  /** New memory for so many queues, and its descriptor. @throws KvmError EMFILE, ENOMEM */
  static make(calls: KvmCalls, queues: number, queueSize: number): { inflight: Inflight; descriptor: Descriptor } {
    const size = stride(queueSize) * queues;
    const fd = calls.memfdCreate('vhost-inflight', Math.ceil(size / calls.pageSize) * calls.pageSize, 0);
    if (fd < 0) throw callError('memfdCreate', fd, { size });
    const descriptor = new Descriptor(calls, fd);
    try {
      const inflight = new Inflight(Mapping.file(calls, fd, { size }), { size, offset: 0, queues, queueSize });
      return { inflight, descriptor };
    } catch (error) {
      descriptor.close();
      throw error;
    }
  }

  /** Memory that a back end made; the descriptor is closed. @throws KvmError EPROTO for another size than it must have */
  static received(calls: KvmCalls, area: InflightArea, descriptor: Descriptor): Inflight {
    using _descriptor = descriptor;
    const { size, offset, queues, queueSize } = area;
    const end = offset + stride(queueSize) * queues;
    if (queues === 0 || queueSize === 0 || offset % 8 !== 0 || size < end - offset || end > Number.MAX_SAFE_INTEGER) {
      const explanation = `${counted(size, 'byte')} at ${offset} for ${counted(queues, 'queue')} of ${queueSize}, which take ${end - offset}`;
      throw protocolError(REQUEST.SET_INFLIGHT_FD, explanation);
    }
    return new Inflight(Mapping.file(calls, descriptor.fd, { size: end }), area);
  }

  /** The part of a queue; undefined where there is none. @throws KvmError EINVAL when the sizes differ, EACCES */
  queue(index: number, size: number): InflightQueue | undefined {
    const { queues, queueSize, offset } = this.area;
    if (index >= queues) return undefined;
    if (size > queueSize) {
      const explanation = `queue ${index} has ${counted(size, 'descriptor')}, and the area room for ${queueSize}`;
      throw new KvmError(ERRNO.EINVAL, { syscall: 'SET_INFLIGHT_FD', explanation });
    }
    const window = this.#mapping.window(0);
    const start = offset + index * stride(queueSize);
    if (window === undefined || start + stride(queueSize) > window.length) {
      const explanation = 'the area must be a memfd that is sealed against shrinking, and below 1 GiB';
      throw new KvmError(ERRNO.EACCES, { syscall: 'SET_INFLIGHT_FD', explanation });
    }
    return new InflightQueue(new DataView(window.buffer, start, stride(queueSize)), size);
  }

  close(): void {
    this.#mapping.close();
  }
}

const LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

/** One queue's part. */
export class InflightQueue {
  readonly #view: DataView;
  readonly #size: number;
  #counter = 0n;

  constructor(view: DataView, size: number) {
    this.#view = view;
    this.#size = size;
  }

  /** Sets right what the back end before did not finish. @returns the index at which the queue goes on */
  recover(usedIndex: number): number | undefined {
    const view = this.#view;
    if (view.getUint16(FIELD.VERSION, LITTLE_ENDIAN) !== VERSION) {
      view.setUint16(FIELD.VERSION, VERSION, LITTLE_ENDIAN);
      view.setUint16(FIELD.SIZE, this.#size, LITTLE_ENDIAN);
      view.setUint16(FIELD.USED, usedIndex, LITTLE_ENDIAN);
      return undefined;
    }
    if (view.getUint16(FIELD.USED, LITTLE_ENDIAN) !== usedIndex) {
      // It was given back, and this was not noted any more.
      this.#setInFlight(view.getUint16(FIELD.LAST_HEAD, LITTLE_ENDIAN) % this.#size, false);
      view.setUint16(FIELD.USED, usedIndex, LITTLE_ENDIAN);
    }
    return (usedIndex + this.#left().length) & 0xffff;
  }

  /** The heads that were left in flight, in the order in which they were begun. */
  takeLeft(): readonly number[] {
    const left = this.#left();
    for (const head of left) this.began(head);
    return left;
  }

  began(head: number): void {
    this.#view.setBigUint64(HEADER + STATE * head + STATE_FIELD.COUNTER, this.#counter++, LITTLE_ENDIAN);
    this.#setInFlight(head, true);
  }

  ending(head: number): void {
    this.#view.setUint16(FIELD.LAST_HEAD, head, LITTLE_ENDIAN);
  }

  ended(head: number): void {
    this.#setInFlight(head, false);
    const used = this.#view.getUint16(FIELD.USED, LITTLE_ENDIAN);
    this.#view.setUint16(FIELD.USED, (used + 1) & 0xffff, LITTLE_ENDIAN);
  }

  #left(): readonly number[] {
    const heads: { head: number; counter: bigint }[] = [];
    for (let head = 0; head < this.#size; head++) {
      const at = HEADER + STATE * head;
      if (this.#view.getUint8(at + STATE_FIELD.IN_FLIGHT) === 0) continue;
      heads.push({ head, counter: this.#view.getBigUint64(at + STATE_FIELD.COUNTER, LITTLE_ENDIAN) });
    }
    return heads.sort((a, b) => (a.counter < b.counter ? -1 : 1)).map(({ head }) => head);
  }

  #setInFlight(head: number, inFlight: boolean): void {
    this.#view.setUint8(HEADER + STATE * head + STATE_FIELD.IN_FLIGHT, inFlight ? 1 : 0);
  }
}
