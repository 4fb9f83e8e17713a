import { bytesOfText } from '../../calls/format.ts';
import type { ParameterKind } from '../../calls/signatures.ts';
import type { TraceScalar, TraceValue } from '../../calls/trace-file.ts';
import { MOST_BYTES } from './guest.ts';

/** Nobody's descriptor. */
const NO_FD = 0x7fff_ffff;

/** What a trace names and the replay doesn't have, since a call that made it was left out or failed. */
export class Missing extends Error {
  override readonly name = 'Missing';
}

interface Place {
  readonly hva: number;
  /** Memory of a file, which stands for nothing here. */
  readonly foreign: boolean;
}

/** What the names of a trace are in the replay. */
export class Places {
  readonly #fds = new Map<string, number>();
  readonly #mappings = new Map<string, Place>();

  opened(name: string, fd: number): void {
    this.#fds.set(name, fd);
  }

  mapped(name: string, hva: number, foreign: boolean): void {
    this.#mappings.set(name, { hva, foreign });
  }

  /** Whether a descriptor is there by that name. */
  has(name: string): boolean {
    return this.#fds.has(name);
  }

  /** An argument. @throws Missing; SyntaxError for what is none of its kind */
  argument(kind: ParameterKind, value: TraceValue): unknown {
    switch (kind) {
      case 'fd':
        return this.#fd(value as TraceScalar);
      case 'hva':
        return this.hva(value as TraceScalar);
      case 'u64s':
        return list(value).map(number);
      case 'inout64':
        return BigUint64Array.from(list(value), (word) => BigInt(number(word)));
      case 'hvas':
        return Float64Array.from(list(value), (hva) => Number(this.hva(hva)));
      case 'u32s':
        return Uint32Array.from(list(value), Number);
      case 'fds':
      case 'outfds':
        return Int32Array.from(list(value), (fd) => this.#fd(fd));
      case 'text':
        return value;
      case 'in':
      case 'out':
      case 'inout':
        return value === null ? null : bytesOfText(String(value), MOST_BYTES);
      case 'arg':
        return typeof value === 'string' && !value.startsWith('0x') ? bytesOfText(value, MOST_BYTES) : number(value);
      default:
        return number(value);
    }
  }

  /** An address: one inside a mapping by its name, or a number. */
  hva(value: TraceScalar): number | bigint {
    const [, name, offset = '0'] = /^(map#\d+)(?:\(unmapped\))*(?:\+(0x[0-9a-f]+))?$/.exec(String(value)) ?? [];
    return name === undefined ? number(value) : this.#mapping(name).hva + Number(offset);
  }

  isForeign(value: TraceValue): boolean {
    const [name = ''] = /^map#\d+/.exec(String(value)) ?? [];
    return this.#mappings.get(name)?.foreign === true;
  }

  #mapping(name: string): Place {
    const found = this.#mappings.get(name);
    if (found === undefined) throw new Missing(`${name} is not there`);
    return found;
  }

  #fd(value: TraceScalar): number {
    if (typeof value === 'number') return value;
    if (value === null || value === 'fd?' || value.endsWith('(closed)')) return NO_FD;
    const found = this.#fds.get(value);
    if (found === undefined) throw new Missing(`${value} is not there`);
    return found;
  }
}

function list(value: TraceValue): readonly TraceScalar[] {
  if (!Array.isArray(value)) throw new SyntaxError(`${JSON.stringify(value)} is no list`);
  return value as readonly TraceScalar[];
}

function number(value: TraceValue): number | bigint {
  if (typeof value === 'number') return value;
  if (typeof value === 'string' && /^-?0x[0-9a-f]+$/.test(value)) return BigInt(value);
  throw new SyntaxError(`${JSON.stringify(value)} is no number`);
}
