import { partOf } from '../../../base/part-of.ts';
import { HPTE_SIZE, Hpte, V_LO } from './hpte.ts';
import { HTAB_HEADER_SIZE, type HtabChunk, type HtabStreamFormat, htabChunks } from './htab-stream.ts';

/** A slot of a table, and what is in it. */
export interface HtabSlot {
  readonly slot: number;
  /** Undefined where the slot is empty. */
  readonly entry: Hpte | undefined;
}

/** One chunk that a reader gave, with its bytes: they can be written to another table as they are. */
export class HtabChunkBytes {
  /** First slot. */
  readonly index: number;
  readonly nValid: number;
  readonly nInvalid: number;
  /** Header and entries, without KVM's own bits. */
  readonly bytes: Uint8Array;

  constructor({ index, nValid, nInvalid, offset, end }: HtabChunk, stream: Uint8Array) {
    this.index = index;
    this.nValid = nValid;
    this.nInvalid = nInvalid;
    this.bytes = partOf(stream, offset, end);
  }

  /** As Node shows it. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `HtabChunkBytes from slot ${this.index} on: ${this.nValid} valid, ${this.nInvalid} empty`;
  }

  /** How many slots it tells of. */
  get slots(): number {
    return this.nValid + this.nInvalid;
  }

  /** One behind the last slot it tells of. */
  get end(): number {
    return this.index + this.slots;
  }

  /** The valid entries, then the slots that are empty. */
  *entries(): Generator<HtabSlot, void, undefined> {
    yield* this.validEntries();
    for (let slot = this.index + this.nValid; slot < this.end; slot++) yield { slot, entry: undefined };
  }

  /** The valid entries alone. */
  *validEntries(): Generator<HtabSlot & { readonly entry: Hpte }, void, undefined> {
    const view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
    for (let i = 0; i < this.nValid; i++) {
      const at = HTAB_HEADER_SIZE + i * HPTE_SIZE;
      const word = (offset: number): number => view.getUint32(at + offset);
      yield { slot: this.index + i, entry: new Hpte(word(0), word(4), word(8), word(12)) };
    }
  }
}

/** The chunks of what the kernel gave, HVLOCK cleared in it: KVM reads V while it holds that lock, and it means nothing. */
export function chunksRead(bytes: Uint8Array, format: HtabStreamFormat): HtabChunkBytes[] {
  const chunks: HtabChunkBytes[] = [];
  for (const chunk of htabChunks(bytes, format)) {
    // V is big-endian: its lowest byte is the eighth.
    for (let at = chunk.entries + 7; at < chunk.end; at += HPTE_SIZE) bytes[at]! &= ~(V_LO.HVLOCK | V_LO.ABSENT);
    chunks.push(new HtabChunkBytes(chunk, bytes));
  }
  return chunks;
}
