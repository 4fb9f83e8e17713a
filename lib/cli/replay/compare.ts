import { bytesOfText, formatBytes } from '../../calls/format.ts';
import type { Signature } from '../../calls/signatures.ts';
import type { TraceCall, TraceValue } from '../../calls/trace-file.ts';
import type { Arch } from '../../uapi/arch.ts';
import { symbolic } from '../../uapi/symbols.ts';
import { MOST_BYTES } from './guest.ts';

/** What a call gave: its result, and what it filled, by the parameter's name. */
export interface Answer {
  readonly result: string;
  readonly filled: Readonly<Record<string, TraceValue>>;
}

/** A call that the emulated kernel answers otherwise. */
export interface Difference {
  readonly line: number;
  readonly call: string;
  readonly recorded: string;
  readonly emulated: string;
}

const BYTES_KINDS = new Set(['in', 'out', 'inout']);

/** A call as a trace shows it. */
export function callText({ call, args }: TraceCall, { parameters }: Signature, arch: Arch): string {
  const shown = parameters.map(([, kind, set], i) => {
    const value = args[i] ?? null;
    if (set !== undefined && typeof value === 'number') return symbolic(set, value, arch);
    if (typeof value === 'number') return /^x/.test(kind) ? `0x${value.toString(16)}` : String(value);
    if (value === null) return 'NULL';
    const isBytes = BYTES_KINDS.has(kind) || (kind === 'arg' && typeof value === 'string' && !value.startsWith('0x'));
    return isBytes ? bytesText(String(value)) : Array.isArray(value) ? `[${value.join(', ')}]` : String(value);
  });
  return `${call}(${shown.join(', ')})`;
}

/** An answer in a line. */
export function answerText({ result, filled }: Answer): string {
  const rest = Object.entries(filled).map(
    ([name, value]) => `${name} ${Array.isArray(value) ? `[${value.join(', ')}]` : bytesText(String(value))}`,
  );
  return [result, ...rest].join(', ');
}

const bytesText = (text: string): string => formatBytes(bytesOfText(text, MOST_BYTES));

/** Whether every page that one bitmap says is dirty is so in the other, too. */
export function isWithin(some: Uint8Array, all: Uint8Array): boolean {
  for (let i = 0; i < some.length; i++) if ((some[i]! & ~(all[i] ?? 0)) !== 0) return false;
  return true;
}
