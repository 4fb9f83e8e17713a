import { HPTE_SIZE, Htab } from '../../../lib/arch/ppc64/model/index.ts';
import { LabError } from '../../../lib/lab/lab-error.ts';

/*
 * What QEMU writes when it migrates a pseries machine, up to where the memory and the hashed page table are complete. QEMU
 * holds that table outside the guest's memory, and gives it nowhere else.
 */

const MAGIC = 0x5145_564d;
const SECTION = { START: 1, PART: 2, END: 3, CONFIGURATION: 7, FOOTER: 0x7e } as const;
/** Flags in the low bits of a page's offset. */
const PAGE = { ZERO: 0x02, SIZES: 0x04, BYTES: 0x08, END: 0x10, SAME_BLOCK: 0x20 } as const;
const PAGE_SIZE = 4096;
const RAM_BLOCK = 'ppc_spapr.ram';

export interface PseriesState {
  readonly table: Htab;
  /** The bytes of a page of guest memory by its real address; undefined if there is no such page. */
  page(ra: bigint): Uint8Array | undefined;
}

/** @throws LabError when the stream is not of the form that QEMU 7.2 and later write */
export function readPseriesStream(bytes: Buffer): PseriesState {
  const reader = new Reader(bytes);
  if (reader.u32() !== MAGIC || reader.u32() !== 3) throw new LabError("This is no stream of QEMU's migration.");
  const names = new Map<number, string>();
  const pages = new Pages();
  let table: Htab | undefined;
  let ended = 0;
  while (ended < 2) {
    const kind = reader.u8();
    if (kind === SECTION.CONFIGURATION) {
      reader.take(reader.u32());
      continue;
    }
    const id = reader.u32();
    if (kind === SECTION.START) {
      names.set(id, reader.text());
      reader.take(8); // instance and version
    } else if (kind !== SECTION.PART && kind !== SECTION.END) {
      throw new LabError(
        `The migration stream has a section of kind ${kind} where memory and page table are expected.`,
      );
    }
    switch (names.get(id)) {
      case 'ram':
        readPages(reader, pages);
        break;
      case 'spapr/htab': {
        const order = reader.u32();
        if (kind === SECTION.START) table = new Htab(order);
        else if (table === undefined) throw new LabError('The migration stream has a page table without its size.');
        else readEntries(reader, table);
        break;
      }
      default:
        throw new LabError(`The migration stream has an unknown section ${names.get(id) ?? id}.`);
    }
    if (kind === SECTION.END) ended++;
    if (reader.u8() !== SECTION.FOOTER || reader.u32() !== id) {
      throw new LabError(`The section ${names.get(id) ?? id} of the migration stream does not end where it should.`);
    }
  }
  if (table === undefined) throw new LabError('The migration stream has no page table.');
  return { table, page: (ra) => pages.contents.get(Number(ra / BigInt(PAGE_SIZE))) };
}

/** Guest memory as far as it was read. */
class Pages {
  readonly contents = new Map<number, Uint8Array>();
  /** The block of the last page: it counts in later sections too. */
  block = '';
}

function readPages(reader: Reader, pages: Pages): void {
  for (;;) {
    const word = reader.u64();
    const flags = Number(word & 0xfffn);
    if ((flags & PAGE.END) !== 0) return;
    if ((flags & PAGE.SIZES) !== 0) {
      for (let left = word & ~0xfffn; left > 0n; ) {
        reader.text();
        left -= reader.u64();
      }
      continue;
    }
    if ((flags & PAGE.SAME_BLOCK) === 0) pages.block = reader.text();
    let content: Uint8Array;
    if ((flags & PAGE.ZERO) !== 0) content = new Uint8Array(PAGE_SIZE).fill(reader.u8());
    else if ((flags & PAGE.BYTES) !== 0) content = reader.take(PAGE_SIZE);
    else throw new LabError(`The migration stream has a page with the unknown flags 0x${flags.toString(16)}.`);
    if (pages.block === RAM_BLOCK) pages.contents.set(Number(word >> 12n), content);
  }
}

/** Runs of valid entries and counts of invalid ones, up to an empty run. */
function readEntries(reader: Reader, table: Htab): void {
  for (;;) {
    const index = reader.u32();
    const valid = reader.u16();
    const invalid = reader.u16();
    if (index + valid + invalid > table.entryCount) throw new LabError('The page table exceeds its own size.');
    if (valid === 0 && invalid === 0) return;
    table.bytes.set(reader.take(valid * HPTE_SIZE), index * HPTE_SIZE);
    table.bytes.fill(0, (index + valid) * HPTE_SIZE, (index + valid + invalid) * HPTE_SIZE);
  }
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  take(length: number): Buffer {
    const start = this.#at;
    if (start + length > this.#bytes.length) throw new LabError('The migration stream is cut off.');
    this.#at += length;
    return this.#bytes.subarray(start, this.#at);
  }

  u8(): number {
    return this.take(1).readUInt8();
  }

  u16(): number {
    return this.take(2).readUInt16BE();
  }

  u32(): number {
    return this.take(4).readUInt32BE();
  }

  u64(): bigint {
    return this.take(8).readBigUInt64BE();
  }

  text(): string {
    return this.take(this.u8()).toString('latin1');
  }
}
