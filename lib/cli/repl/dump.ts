/** How a dump is laid out, as a debugger's `x/FMT` has it. */
export interface DumpFormat {
  readonly count: number;
  readonly letter: 'x' | 'd' | 'u' | 'c' | 's';
  /** Bytes of an item. */
  readonly size: 1 | 2 | 4 | 8;
}

const SIZES = { b: 1, h: 2, w: 4, g: 8 } as const;
/** Bytes of a line: the most that fit. */
const LINES = [16, 8] as const;

/** Reads `/16xb`: a count, a letter of x d u c s, and one of b h w g for 1, 2, 4 or 8 bytes. Undefined if it isn't one. */
export function dumpFormat(text: string): DumpFormat | undefined {
  const match = /^\/?(\d*)([xducs]?)([bhwg]?)([xducs]?)$/.exec(text);
  if (match === null) return undefined;
  const [, count = '', before = '', size = '', after = ''] = match;
  if (before !== '' && after !== '') return undefined;
  const letter = (before || after || 'x') as DumpFormat['letter'];
  const bytes =
    letter === 'c' || letter === 's' ? 1 : SIZES[(size || (count === '' ? 'b' : 'w')) as keyof typeof SIZES];
  if (/^0+$/.test(count)) return undefined;
  const items = count === '' ? (letter === 's' ? 256 : 64 / bytes) : Number(count);
  return { count: items, letter, size: bytes };
}

/**
 * The bytes at an address in lines of 16, or of 8 where those are wider than the columns; runs of equal lines folded to `*`, as hexdump(1)
 * does.
 */
export function dump(
  address: bigint,
  bytes: Uint8Array,
  format: DumpFormat,
  littleEndian: boolean,
  columns = Number.POSITIVE_INFINITY,
): string {
  const [wide, narrow] = LINES.map((length) => linesOf(address, bytes, { ...format, length }, littleEndian));
  return (wide!.every((line) => line.length <= columns) ? wide : narrow)!.join('\n');
}

function linesOf(
  address: bigint,
  bytes: Uint8Array,
  format: DumpFormat & { readonly length: number },
  littleEndian: boolean,
): string[] {
  if (format.letter === 's') return [`${place(address, 8)}  ${JSON.stringify(cString(bytes))}`];
  const { length } = format;
  const digits = Math.max(8, (address + BigInt(bytes.length)).toString(16).length);
  const lines: string[] = [];
  let previous: Uint8Array | undefined;
  let folded = false;
  for (let at = 0; at < bytes.length; at += length) {
    const line = bytes.subarray(at, at + length);
    const last = at + length >= bytes.length;
    if (!last && previous !== undefined && equal(line, previous)) {
      if (!folded) lines.push('*');
      folded = true;
      continue;
    }
    folded = false;
    previous = line;
    const items = itemsOf(line, format, littleEndian).join(' ');
    const text = format.size === 1 && format.letter === 'x' ? `  ${ascii(line)}` : '';
    lines.push(`${place(address + BigInt(at), digits)}  ${items.padEnd(text === '' ? 0 : length * 3 - 1)}${text}`);
  }
  return lines;
}

const place = (address: bigint, digits: number): string => `0x${address.toString(16).padStart(digits, '0')}`;

const equal = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((byte, i) => byte === b[i]);

const printable = (byte: number): string => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.');

const ascii = (bytes: Uint8Array): string => Array.from(bytes, printable).join('');

function cString(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString('utf8');
}

function itemsOf(line: Uint8Array, { letter, size }: DumpFormat, littleEndian: boolean): string[] {
  if (letter === 'c') return Array.from(line, (byte) => `'${printable(byte)}'`);
  const items: string[] = [];
  for (let at = 0; at + size <= line.length; at += size) {
    const bytes = line.slice(at, at + size);
    if (littleEndian) bytes.reverse();
    const unsigned = BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
    if (letter === 'x') items.push(unsigned.toString(16).padStart(size * 2, '0'));
    else items.push(String(letter === 'u' ? unsigned : BigInt.asIntN(size * 8, unsigned)));
  }
  return items;
}
