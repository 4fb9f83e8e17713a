import { inspect } from 'node:util';
import { isExact } from '../../base/arguments.ts';
import { hex } from '../../base/errors.ts';
import { table, wrap } from '../../base/text.ts';
import { DirtyPages } from '../../memory/dirty-pages.ts';
import { explainError } from '../explain-error.ts';
import { isPublicMember } from './completion.ts';
import { dump } from './dump.ts';

/** Fields that hold addresses, or what is reckoned with them. */
const HEX_FIELDS: ReadonlySet<string> = new Set(
  'gpa hva gfn offset size available start end base limit selector port addr guestPhysAddr memorySize userspaceAddr baseGfn flags'.split(
    ' ',
  ),
);
const DUMP_LINES = 32;
const INDENT = '  ';
const MOST_ROWS = 64;
/** Of a list of names. */
const WIDEST = 100;
const MOST_COUNTED = 100_000;
const INLINE_BYTES = 16;

/**
 * A value as the prompt shows it: tables with hexadecimal addresses, bytes as a dump, errors as their explanation.
 * @throws what a generator throws, which runs only now, or a way of its own of being printed
 */
export function show(value: unknown, { colors = false, columns = Number.POSITIVE_INFINITY } = {}): string {
  if (value instanceof Error) return explainError(value);
  if (value instanceof Promise) return 'a Promise: await it';
  if (isAsyncGenerator(value)) return 'comes piece by piece: for await (const each of …) console.log(each)';
  if (typeof value === 'bigint') return `${value}n  ${hexOf(value)}`;
  if (typeof value === 'number' && isWorthHex(value)) return `${value}  ${hexOf(value)}`;
  if (value instanceof Uint8Array) return hexDump(value, columns);
  if (value instanceof DirtyPages) return dirtyPages(value, columns);
  if (isGenerator(value)) return sequence(value, { colors, columns });
  if (isRecord(value)) return record(value, columns) ?? inspect(value, { colors });
  if (Array.isArray(value) && value.length > 0 && value.every(isRecord)) return rowTable(value, columns);
  return methodsOf(value) ?? inspect(value, { colors });
}

/** A plain object: its fields as a table, and below it the names of what can be called. Undefined for an empty one. */
function record(value: Record<string, unknown>, columns: number): string | undefined {
  const isCall = (member: unknown): boolean =>
    typeof member === 'function' ||
    (isRecord(member) && Object.values(member).length > 0 && Object.values(member).every(isCall));
  const calls = Object.keys(value).filter((name) => isCall(value[name]));
  const fields = Object.fromEntries(Object.entries(value).filter(([name]) => !calls.includes(name)));
  const parts = [
    ...(Object.keys(fields).length === 0 ? [] : [fieldTable(fields, columns)]),
    ...(calls.length === 0
      ? []
      : wrap(`calls: ${calls.join(', ')}`, Math.min(columns, WIDEST)).map((line) => `  ${line}`)),
  ];
  if (parts.length > 0) return parts.join('\n');
  return Symbol.dispose in value ? 'a Disposable: using, or its [Symbol.dispose](), ends it' : undefined;
}

/** What there is on an object of a class that shows nothing else: methods, and objects that are the like. */
function methodsOf(value: unknown): string | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  const parts = Object.entries(value);
  if (parts.some(([, part]) => methodsOf(part) === undefined)) return undefined;
  const prototype = Object.getPrototypeOf(value) as object | null;
  if (prototype === null || prototype === Object.prototype || inspect.custom in value) return undefined;
  const members = [...parts.map(([name]) => name), ...Object.getOwnPropertyNames(prototype)].filter(
    (name) => name !== 'constructor' && !name.startsWith('_') && isPublicMember(value, name),
  );
  if (members.length === 0 || !/^class\b/.test(String(prototype.constructor))) return undefined;
  return `${prototype.constructor.name}: ${members.join(', ')}`;
}

/** Bytes as hexdump(1) shows them, beginning at offset 0, equal lines folded. */
export function hexDump(bytes: Uint8Array, columns: number): string {
  if (bytes.length === 0) return 'no bytes';
  const format = { count: bytes.length, letter: 'x', size: 1 } as const;
  const lines = dump(0n, bytes, format, true, columns - INDENT.length).split('\n');
  const shown = lines.slice(0, DUMP_LINES).map((line) => `${INDENT}${line}`);
  return [...shown, ...(lines.length > DUMP_LINES ? [`${INDENT}… ${bytes.length} bytes in all`] : [])].join('\n');
}

/** What was collected, beside what the object says of itself. */
function dirtyPages(pages: DirtyPages, columns: number): string {
  const head = inspect(pages);
  if (!pages.started || pages.count === 0) return head;
  const runs = pages.runs();
  const rows = runs.slice(0, MOST_ROWS).map(({ gfn, npages }) => ({ gfn: hex(gfn), pages: `${npages}` }));
  return `${head}\n${rowTable(rows, columns)}${more(runs.length - rows.length)}`;
}

const GENERATOR: object = Object.getPrototypeOf(Object.getPrototypeOf((function* () {})()) as object) as object;

const isGenerator = (value: unknown): value is Iterable<unknown> =>
  typeof value === 'object' && value !== null && Object.prototype.isPrototypeOf.call(GENERATOR, value);

const isAsyncGenerator = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && Object.prototype.toString.call(value) === '[object AsyncGenerator]';

/** What a generator gives, which it gives only once. */
function sequence(values: Iterable<unknown>, how: { readonly colors: boolean; readonly columns: number }): string {
  const taken: unknown[] = [];
  let left = 0;
  for (const value of values) {
    if (taken.length < MOST_ROWS) taken.push(value);
    else if (++left >= MOST_COUNTED) break;
  }
  if (taken.length === 0) return 'nothing';
  const text = taken.every(isRecord) ? rowTable(taken, how.columns) : taken.map((value) => show(value, how)).join('\n');
  return `${text}${more(left)}`;
}

const more = (count: number): string =>
  count === 0 ? '' : `\n  … and ${count >= MOST_COUNTED ? `${MOST_COUNTED} or more` : count} more`;

const byteText = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ');

const hexOf = (value: number | bigint): string => (value < 0 ? `-${hex(-value)}` : hex(value));

const isWorthHex = (value: number): boolean => isExact(value) && Math.abs(value) > 9;

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

function fieldTable(record: Record<string, unknown>, columns: number): string {
  const rows = Object.entries(record).map(([name, value]) => [name, cell(name, value)]);
  return table(['field', 'value'], rows, columns);
}

function rowTable(records: readonly Record<string, unknown>[], columns: number): string {
  const names = [...new Set(records.flatMap((record) => Object.keys(record)))];
  return table(
    names,
    records.map((record) => names.map((name) => (name in record ? cell(name, record[name]) : ''))),
    columns,
  );
}
