import type { KvmCalls } from '../../calls/kvm-calls.ts';
import { Mapping } from '../../memory/mapping.ts';
import { SharedDirtyLog } from './dirty-log.ts';
import { CONSUMER, HEADER, HOST_IS_LITTLE_ENDIAN, LOW_WORD, type TableShape, textOf } from './layout.ts';

/** A table that is mapped: its words, for whichever side. */
export class TableMemory {
  readonly mapping: Mapping;
  readonly shape: TableShape;
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly log: SharedDirtyLog;
  /** Word 0 is the lower half of the generation. */
  readonly generationWord: Int32Array;
  readonly #words: Int32Array;
  readonly #longs: BigUint64Array;

  /** @param mapping is closed with it */
  constructor(mapping: Mapping, shape: TableShape) {
    const { buffer } = mapping.window(0)!;
    this.mapping = mapping;
    this.shape = shape;
    this.view = new DataView(buffer);
    this.bytes = new Uint8Array(buffer);
    this.log = new SharedDirtyLog(buffer, shape.logOffset, shape.logBytes);
    this.generationWord = new Int32Array(buffer, HEADER.GENERATION + LOW_WORD, 1);
    this.#words = new Int32Array(buffer);
    this.#longs = new BigUint64Array(buffer, 0, shape.logOffset / 8);
  }

  /** Maps a table whose descriptor is given up to it; undefined where it can't be mapped directly. @throws KvmError */
  static map(calls: KvmCalls, fd: number, size: number): Mapping | undefined {
    const mapping = Mapping.ofMemfd(calls, fd, size);
    if (mapping.window(0) !== undefined) return mapping;
    mapping.close();
    return undefined;
  }

  get generation(): bigint {
    return Atomics.load(this.#longs, HEADER.GENERATION / 8);
  }

  set generation(value: bigint) {
    Atomics.store(this.#longs, HEADER.GENERATION / 8, value);
  }

  get closed(): boolean {
    return this.word(HEADER.CLOSED) !== 0;
  }

  word(offset: number): number {
    return Atomics.load(this.#words, offset / 4);
  }

  setWord(offset: number, value: number): void {
    Atomics.store(this.#words, offset / 4, value);
  }

  long(offset: number): bigint {
    return Atomics.load(this.#longs, offset / 8);
  }

  setLong(offset: number, value: bigint): void {
    Atomics.store(this.#longs, offset / 8, value);
  }

  /** Where a consumer's record begins. */
  consumerAt(index: number): number {
    return this.shape.consumersOffset + index * CONSUMER.BYTES;
  }

  consumerName(index: number): string {
    const start = this.consumerAt(index);
    return textOf(this.bytes.subarray(start + CONSUMER.NAME, start + CONSUMER.BYTES));
  }

  /** The numbers of the header that never change. */
  static u32(view: DataView, offset: number): number {
    return view.getUint32(offset, HOST_IS_LITTLE_ENDIAN);
  }

  static u64(view: DataView, offset: number): bigint {
    return view.getBigUint64(offset, HOST_IS_LITTLE_ENDIAN);
  }

  close(): void {
    this.mapping.close();
  }
}
