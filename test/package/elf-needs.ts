/** A shared object's needs: which versions of which libraries, by the section that the dynamic linker reads for it. */
export interface ElfNeeds {
  readonly machine: number;
  readonly bigEndian: boolean;
  /** `GLIBC_2.17` and the like, without repetition. */
  readonly versions: readonly string[];
  /** Names of the libraries, in the order in which they are to be loaded. */
  readonly libraries: readonly string[];
  /** Names of the symbols that others may use. */
  readonly exports: readonly string[];
  /** Names of those that others must have, or may. */
  readonly undefined: readonly string[];
}

const SHT_DYNSYM = 11;
const SHT_DYNAMIC = 6;
const SHT_GNU_VERNEED = 0x6fff_fffe;
const DT_NEEDED = 1n;
const STT_SECTION = 3;

/** Reads an ELF-64 shared object (gABI; the version sections as the Linux Standard Base describes them). */
export function elfNeeds(bytes: Uint8Array): ElfNeeds {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const little = bytes[5] === 1;
  const u16 = (at: number) => view.getUint16(at, little);
  const u32 = (at: number) => view.getUint32(at, little);
  const u64 = (at: number) => view.getBigUint64(at, little);
  const text = (at: number) => Buffer.from(bytes.subarray(at, bytes.indexOf(0, at))).toString('latin1');
  const sections = Array.from({ length: u16(60) }, (_, index) => {
    const at = Number(u64(40)) + index * u16(58);
    return { type: u32(at + 4), offset: Number(u64(at + 24)), size: Number(u64(at + 32)), link: u32(at + 40) };
  });
  const section = (type: number) => {
    const found = sections.find((each) => each.type === type);
    if (found === undefined) throw new RangeError(`no section of type ${type}`);
    return { ...found, names: sections[found.link]!.offset };
  };

  const versions = new Set<string>();
  const hasVersions = sections.some((each) => each.type === SHT_GNU_VERNEED);
  const needed = section(hasVersions ? SHT_GNU_VERNEED : SHT_DYNAMIC);
  for (let file = needed.offset, more = hasVersions; more; file += u32(file + 12)) {
    let at = file + u32(file + 8);
    for (let count = u16(file + 2); count > 0; count--, at += u32(at + 12))
      versions.add(text(needed.names + u32(at + 8)));
    more = u32(file + 12) !== 0;
  }

  const dynamic = section(SHT_DYNAMIC);
  const libraries: string[] = [];
  for (let at = dynamic.offset; at < dynamic.offset + dynamic.size; at += 16) {
    if (u64(at) === DT_NEEDED) libraries.push(text(dynamic.names + Number(u64(at + 8))));
  }

  const symbols = section(SHT_DYNSYM);
  const exported: string[] = [];
  const lacking: string[] = [];
  for (let at = symbols.offset + 24; at < symbols.offset + symbols.size; at += 24) {
    if ((bytes[at + 4]! & 15) === STT_SECTION) continue;
    (u16(at + 6) === 0 ? lacking : exported).push(text(symbols.names + u32(at)));
  }
  return {
    machine: u16(18),
    bigEndian: !little,
    versions: [...versions],
    libraries,
    exports: exported,
    undefined: lacking,
  };
}
