import { inspect } from 'node:util';
import { hex } from '../../base/errors.ts';
import { table } from '../../base/text.ts';
import { explainError } from '../explain-error.ts';

/** Fields that hold addresses, or what is reckoned with them. */
const HEX_FIELDS: ReadonlySet<string> = new Set(
  'gpa hva gfn offset size available start end base limit selector port addr guestPhysAddr memorySize userspaceAddr baseGfn flags'.split(
    ' ',
  ),
);
const DUMP_BYTES = 512;
const DUMP_LINE = 16;
const INLINE_BYTES = 16;

/** A value as the prompt shows it: tables with hexadecimal addresses, bytes as a dump, errors as their explanation. */
export function show(value: unknown, { colors = false } = {}): string {
  if (value instanceof Error) return explainError(value);
  if (value instanceof Promise) return 'a Promise: await it';
  if (typeof value === 'bigint') return `${value}n  ${hexOf(value)}`;
  if (typeof value === 'number' && isWorthHex(value)) return `${value}  ${hexOf(value)}`;
  if (value instanceof Uint8Array) return hexDump(value);
  if (isRecord(value) && Object.keys(value).length > 0) return fieldTable(value);
  if (Array.isArray(value) && value.length > 0 && value.every(isRecord)) return rowTable(value);
  return inspect(value, { colors });
}

/** Bytes as hexdump(1) shows them, beginning at offset 0. */
export function hexDump(bytes: Uint8Array): string {
  if (bytes.length === 0) return 'no bytes';
  const lines: string[] = [];
  const shown = Math.min(bytes.length, DUMP_BYTES);
  for (let at = 0; at < shown; at += DUMP_LINE) {
    const part = bytes.subarray(at, Math.min(at + DUMP_LINE, shown));
    const text = Array.from(part, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('');
    lines.push(`  ${at.toString(16).padStart(4, '0')}  ${byteText(part).padEnd(DUMP_LINE * 3)} ${text}`);
  }
  if (bytes.length > shown) lines.push(`  … ${bytes.length} bytes in all`);
  return lines.join('\n');
}

const byteText = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ');

const hexOf = (value: number | bigint): string => (value < 0 ? `-${hex(-value)}` : hex(value));

const isWorthHex = (value: number): boolean => Number.isSafeInteger(value) && Math.abs(value) > 9;

function isRecord(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null || inspect.custom in value) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function cell(name: string, value: unknown): string {
  if (typeof value === 'bigint' || (typeof value === 'number' && HEX_FIELDS.has(name))) return hexOf(value);
  if (typeof value === 'string') return value;
  if (value instanceof Uint8Array && value.length <= INLINE_BYTES) return byteText(value);
  if (isRecord(value))
    return Object.entries(value)
      .map((field) => `${field[0]} ${cell(...field)}`)
      .join(', ');
  return inspect(value, { breakLength: Number.POSITIVE_INFINITY, depth: 0 });
}

function fieldTable(record: Record<string, unknown>): string {
  const rows = Object.entries(record).map(([name, value]) => [name, cell(name, value)]);
  return table(['field', 'value'], rows);
}

function rowTable(records: readonly Record<string, unknown>[]): string {
  const names = [...new Set(records.flatMap((record) => Object.keys(record)))];
  return table(
    names,
    records.map((record) => names.map((name) => (name in record ? cell(name, record[name]) : ''))),
  );
}
