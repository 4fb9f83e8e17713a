export const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** Bytes in the largest unit that gives a short number. */
export function size(bytes: number): string {
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value % 1 === 0 ? value : value.toFixed(value < 10 ? 2 : 1)} ${UNITS[unit]}`;
}

/** A storage key in words: access-control bits, F, R, C. */
export function keyText(key: number): string {
  const bits = [
    [0x08, 'fetch-protected'],
    [0x04, 'referenced'],
    [0x02, 'changed'],
  ] as const;
  const set = bits.filter(([bit]) => (key & bit) !== 0).map(([, name]) => name);
  return [`key ${hex(key)}: access ${key >> 4}`, ...set].join(', ');
}

/** The address that somebody typed: hex with or without 0x, or decimal with a unit. */
export function parseAddress(text: string): bigint | undefined {
  const trimmed = text.trim().replaceAll('_', '').toLowerCase();
  const unit = /^(\d+)\s*([kmgt])i?b?$/.exec(trimmed);
  if (unit !== null) return BigInt(unit[1]!) << BigInt(10 * ('kmgt'.indexOf(unit[2]!) + 1));
  const digits = trimmed.replace(/^0x/, '');
  return /^[0-9a-f]{1,16}$/.test(digits) ? BigInt(`0x${digits}`) : undefined;
}
