/** A section of an object that a test makes up. */
export interface SyntheticSection {
  readonly name: string;
  readonly content?: Uint8Array;
  /** Makes it a section of relocations of that other one. */
  readonly relocates?: { readonly name: string; readonly entries: readonly (readonly [number, number, string])[] };
  readonly functions?: readonly (readonly [string, number, number])[];
}

/** Writes an ELF-64 relocatable object after the gABI, big-endian, with the given sections, their functions and relocations. */
export function writeElf(machine: number, sections: readonly SyntheticSection[]): Uint8Array {
  const strings: string[] = [''];
  const stringOffset = (text: string): number => {
    if (!strings.includes(text)) strings.push(text);
    return strings.slice(0, strings.indexOf(text)).reduce((sum, each) => sum + each.length + 1, 0);
  };
  const indexOf = (name: string): number => sections.findIndex((each) => each.name === name) + 1;
  const symtab = sections.length + 1;
  const strtab = symtab + 1;

  const symbols: Buffer[] = [Buffer.alloc(24)];
  const symbolIndexes = new Map<string, number>();
  const addSymbol = (name: string, info: number, section: number, value: number, size: number): number => {
    const symbol = Buffer.alloc(24);
    symbol.writeUInt32BE(stringOffset(name), 0);
    symbol[4] = info;
    symbol.writeUInt16BE(section, 6);
    symbol.writeBigUInt64BE(BigInt(value), 8);
    symbol.writeBigUInt64BE(BigInt(size), 16);
    return symbols.push(symbol) - 1;
  };
  for (const { name, functions = [] } of sections) {
    for (const [symbol, offset, size] of functions) addSymbol(symbol, 0x12, indexOf(name), offset, size);
  }

  const contents = sections.map(({ content = new Uint8Array(), relocates }) => {
    if (relocates === undefined) return Buffer.from(content);
    return Buffer.concat(
      relocates.entries.map(([offset, type, symbol]) => {
        const index = symbolIndexes.get(symbol) ?? addSymbol(symbol, 0x10, 0, 0, 0);
        symbolIndexes.set(symbol, index);
        const entry = Buffer.alloc(24);
        entry.writeBigUInt64BE(BigInt(offset), 0);
        entry.writeBigUInt64BE((BigInt(index) << 32n) | BigInt(type), 8);
        return entry;
      }),
    );
  });
  contents.push(Buffer.concat(symbols));
  for (const name of [...sections.map((each) => each.name), '.symtab', '.strtab']) stringOffset(name);
  contents.push(Buffer.from(`${strings.join('\0')}\0`));

  const header = Buffer.alloc(64);
  header.write('\x7fELF', 'latin1');
  header[4] = 2;
  header[5] = 2;
  header.writeUInt16BE(1, 16);
  header.writeUInt16BE(machine, 18);
  header.writeUInt16BE(64, 58);
  header.writeUInt16BE(contents.length + 1, 60);
  header.writeUInt16BE(strtab, 62);

  let offset = header.length;
  const table: Buffer[] = [Buffer.alloc(64)];
  contents.forEach((content, position) => {
    const source = sections[position];
    const entry = Buffer.alloc(64);
    const name = source?.name ?? (position + 1 === symtab ? '.symtab' : '.strtab');
    const type = source === undefined ? (position + 1 === symtab ? 2 : 3) : source.relocates === undefined ? 1 : 4;
    entry.writeUInt32BE(stringOffset(name), 0);
    entry.writeUInt32BE(type, 4);
    entry.writeBigUInt64BE(BigInt(offset), 24);
    entry.writeBigUInt64BE(BigInt(content.length), 32);
    if (type === 4) entry.writeUInt32BE(symtab, 40);
    if (type === 2) entry.writeUInt32BE(strtab, 40);
    if (source?.relocates !== undefined) entry.writeUInt32BE(indexOf(source.relocates.name), 44);
    table.push(entry);
    offset += content.length;
  });
  header.writeBigUInt64BE(BigInt(offset), 40);
  return new Uint8Array(Buffer.concat([header, ...contents, ...table]));
}
