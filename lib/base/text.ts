const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

/** `64 KiB`, `1.5 GiB`: sizes as people read them. */
export function humanSize(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  if (bytes === 1) return '1 byte';
  return `${value % 1 === 0 ? value : value.toFixed(2)} ${UNITS[unit]}`;
}

/** `1 page`, `2 pages`, `1 entry`, `2 entries`. */
export function counted(count: number | bigint, one: string, many = `${one}s`): string {
  return `${count} ${Number(count) === 1 ? one : many}`;
}

const BETWEEN = '  ';

/**
 * Lays rows out in columns under their headings.
 * @param width of the screen: cells of a table that is wider are folded between words, the widest ones first
 */
export function table(
  headings: readonly string[],
  rows: readonly (readonly string[])[],
  width = Number.POSITIVE_INFINITY,
): string {
  const all = [headings, ...rows];
  const widest = (measure: (cell: string) => number) =>
    headings.map((_, column) => Math.max(...all.map((row) => measure(row[column] ?? ''))));
  const widths = widest((cell) => cell.length);
  const least = widest((cell) => Math.max(...cell.split(' ').map((word) => word.length)));
  const room = width - BETWEEN.length * headings.length;
  for (let sum = widths.reduce((a, b) => a + b, 0); sum > room; sum--) {
    const spare = widths.map((each, column) => (each > least[column]! ? each : 0));
    const most = Math.max(...spare);
    if (most === 0) break;
    widths[spare.indexOf(most)]!--;
  }
  const lines = (cells: readonly string[]): string[] => {
    const folded = cells.map((cell, column) => (cell.length <= widths[column]! ? [cell] : wrap(cell, widths[column]!)));
    return Array.from({ length: Math.max(1, ...folded.map(({ length }) => length)) }, (_, at) =>
      `${BETWEEN}${folded.map((parts, column) => (parts[at] ?? '').padEnd(widths[column] ?? 0)).join(BETWEEN)}`.trimEnd(),
    );
  };
  return all.flatMap(lines).join('\n');
}

/** Breaks text at spaces into lines of at most `width` characters; a longer word has a line of its own. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/)) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return line === '' ? lines : [...lines, line];
}
