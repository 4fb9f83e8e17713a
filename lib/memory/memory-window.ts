import type { KvmCalls } from '../calls/kvm-calls.ts';

/** One window of host memory: its memory, and the views that typed access uses. */
export class MemoryWindow {
  readonly calls: KvmCalls;
  /** Host virtual address of its byte 0. */
  readonly hva: number;
  readonly buffer: ArrayBufferLike;
  readonly length: number;
  readonly view: DataView;
  readonly bytes: Uint8Array;
  #u16: Uint16Array | undefined;
  #u32: Uint32Array | undefined;
  #u64: BigUint64Array | undefined;

  constructor(calls: KvmCalls, hva: number, buffer: ArrayBufferLike) {
    this.calls = calls;
    this.hva = hva;
    this.buffer = buffer;
    this.length = buffer.byteLength;
    this.view = new DataView(buffer);
    this.bytes = new Uint8Array(buffer);
  }

  /** For Atomics, which need arrays; made when first asked for. */
  get u16(): Uint16Array {
    this.#u16 ??= new Uint16Array(this.buffer);
    return this.#u16;
  }

  get u32(): Uint32Array {
    this.#u32 ??= new Uint32Array(this.buffer);
    return this.#u32;
  }

  get u64(): BigUint64Array {
    this.#u64 ??= new BigUint64Array(this.buffer);
    return this.#u64;
  }
}
