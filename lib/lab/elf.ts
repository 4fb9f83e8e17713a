/** A section of a relocatable object. */
export interface Section {
  readonly name: string;
  readonly index: number;
  readonly type: number;
  readonly offset: number;
  readonly size: number;
  /** Of a relocation section: the index of its symbol table. Of a symbol table: the index of its string table. */
  readonly link: number;
  /** Of a relocation section: the index of the section that is relocated. */
  readonly info: number;
}

/** A RELA entry, with its symbol's name. */
export interface Relocation {
  /** Where, from the start of the relocated section. */
  readonly offset: number;
  readonly type: number;
  readonly symbol: string;
}

/** A function's place in its section. */
export interface FunctionSymbol {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
}

const EHDR_SIZE = 64;
const RELA_SIZE = 24;
const SYM_SIZE = 24;
const ET_REL = 1;
const SHT_SYMTAB = 2;
const SHT_NOBITS = 8;
const STT_FUNC = 2;

/**
 * Just enough of the ELF-64 object format (gABI, "Sections", "Symbol Table", "Relocation") to read a kernel module, in
 * either byte order. Reads only; offsets are file offsets.
 *
 * @throws RangeError if the bytes are not a whole ELF-64 relocatable object
 */
export class ElfObject {
  readonly machine: number;
  readonly sections: readonly Section[];
  readonly littleEndian: boolean;
  private readonly bytes: Uint8Array;
  private readonly view: DataView;

  constructor(bytes: Uint8Array) {
    if (bytes.length < EHDR_SIZE || Buffer.from(bytes.subarray(0, 4)).toString('latin1') !== '\x7fELF') {
      throw new RangeError('not an ELF file');
    }
    if (bytes[4] !== 2) throw new RangeError('not an ELF-64 file');
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.littleEndian = bytes[5] === 1;
    if (this.u16(16) !== ET_REL) throw new RangeError('not a relocatable object');
    this.machine = this.u16(18);
    this.sections = this.readSections();
  }

  /** The section of that name. */
  section(name: string): Section {
    const found = this.sections.find((each) => each.name === name);
    if (found === undefined) throw new RangeError(`no section ${name}`);
    return found;
  }

  /** A section's bytes, a view of the whole file's. */
  content(section: Section): Uint8Array {
    if (section.type === SHT_NOBITS) return new Uint8Array();
    if (section.offset + section.size > this.bytes.length) throw new RangeError(`section ${section.name} is cut off`);
    return this.bytes.subarray(section.offset, section.offset + section.size);
  }

  /** The relocations of a `.rela` section, in file order. */
  relocations(section: Section): Relocation[] {
    const symbols = this.sections[section.link];
    const names = symbols === undefined ? undefined : this.sections[symbols.link];
    if (symbols === undefined || names === undefined) throw new RangeError(`section ${section.name} has no symbols`);
    this.content(section);
    const found: Relocation[] = [];
    for (let at = section.offset; at + RELA_SIZE <= section.offset + section.size; at += RELA_SIZE) {
      const info = this.word(at + 8);
      const symbol = symbols.offset + Number(info >> 32n) * SYM_SIZE;
      found.push({
        offset: Number(this.word(at)),
        type: Number(info & 0xffff_ffffn),
        symbol: this.string(names, this.u32(symbol)),
      });
    }
    return found;
  }

  /** The functions in a section, in the symbol table's order; a function can have several names. */
  functions(section: Section): FunctionSymbol[] {
    const symbols = this.sections.find((each) => each.type === SHT_SYMTAB);
    const names = symbols === undefined ? undefined : this.sections[symbols.link];
    if (symbols === undefined || names === undefined) throw new RangeError('no symbol table');
    const found: FunctionSymbol[] = [];
    for (let at = symbols.offset; at + SYM_SIZE <= symbols.offset + symbols.size; at += SYM_SIZE) {
      const isFunction = (this.view.getUint8(at + 4) & 0x0f) === STT_FUNC;
      if (!isFunction || this.u16(at + 6) !== section.index) continue;
      found.push({
        name: this.string(names, this.u32(at)),
        offset: Number(this.word(at + 8)),
        size: Number(this.word(at + 16)),
      });
    }
    return found;
  }

  private readSections(): Section[] {
    const table = Number(this.word(40));
    const entrySize = this.u16(58);
    const count = this.u16(60);
    const raw = Array.from({ length: count }, (_, index) => {
      const at = table + index * entrySize;
      return {
        nameOffset: this.u32(at),
        index,
        type: this.u32(at + 4),
        offset: Number(this.word(at + 24)),
        size: Number(this.word(at + 32)),
        link: this.u32(at + 40),
        info: this.u32(at + 44),
      };
    });
    const strings = raw[this.u16(62)];
    if (strings === undefined) throw new RangeError('no section names');
    return raw.map(({ nameOffset, ...rest }) => ({ name: this.string(strings, nameOffset), ...rest }));
  }

  private string(table: { readonly offset: number; readonly size: number }, offset: number): string {
    const start = table.offset + offset;
    const end = this.bytes.indexOf(0, start);
    if (offset >= table.size || end < 0) throw new RangeError('a name lies outside its string table');
    return Buffer.from(this.bytes.subarray(start, end)).toString('latin1');
  }

  private u16(at: number): number {
    return this.view.getUint16(at, this.littleEndian);
  }

  private u32(at: number): number {
    return this.view.getUint32(at, this.littleEndian);
  }

  private word(at: number): bigint {
    return this.view.getBigUint64(at, this.littleEndian);
  }
}
