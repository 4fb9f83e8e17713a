import { callBack } from '../base/callback.ts';
import type { Arch } from '../uapi/arch.ts';
import { type SymbolSet, symbolic } from '../uapi/symbols.ts';
import { structureText } from './structures.ts';

/** Hears what calls opened and closed, with the kernel's own numbers. What it throws is thrown later, in a task of its own. */
export interface TraceObserver {
  opened(fd: number): void;
  closed(fd: number): void;
  mapped(hva: number, length: number): void;
  unmapped(hva: number, length: number): void;
}

/** Names for descriptors and mappings; for an architecture's numbers too, where it is given. */
export class Names {
  readonly #fds = new Map<number, string>();
  readonly #counts = new Map<string, number>();
  readonly #mappings: { hva: number; length: number; name: string }[] = [];
  readonly #observer: TraceObserver | undefined;
  readonly #arch: Arch | undefined;

  constructor(observer: TraceObserver | undefined, arch: Arch | undefined) {
    this.#observer = observer;
    this.#arch = arch;
  }

  /** A request's structure by its fields; undefined where it isn't known, or numbers are asked for. */
  structure(request: unknown, bytes: Uint8Array): string | undefined {
    return this.#arch === undefined ? undefined : structureText(request, bytes, this.#arch);
  }

  /** A number by its names; undefined where numbers are asked for. */
  symbolic(set: SymbolSet, value: unknown): string | undefined {
    if (this.#arch === undefined || (typeof value !== 'number' && typeof value !== 'bigint')) return undefined;
    return symbolic(set, value, this.#arch);
  }

  next(kind: string): string {
    const count = (this.#counts.get(kind) ?? 0) + 1;
    this.#counts.set(kind, count);
    return `${kind}#${count}`;
  }

  opened(fd: number, kind: string): string {
    const name = this.next(kind);
    this.#fds.set(fd, name);
    callBack(() => this.#observer?.opened(fd));
    return name;
  }

  closed(fd: number): void {
    const name = this.#fds.get(fd);
    if (name !== undefined) this.#fds.set(fd, `${name}(closed)`);
    callBack(() => this.#observer?.closed(fd));
  }

  mapped(hva: number, length: number): string {
    const name = this.next('map');
    // An address that is used again names the newer mapping.
    this.#mappings.unshift({ hva, length, name });
    callBack(() => this.#observer?.mapped(hva, length));
    return name;
  }

  unmapped(hva: number, length: number): void {
    const index = this.#mappings.findIndex((mapping) => mapping.hva === hva && length >= mapping.length);
    if (index >= 0) this.#mappings[index]!.name += '(unmapped)';
    callBack(() => this.#observer?.unmapped(hva, length));
  }

  fd(fd: unknown): string {
    return typeof fd === 'number' ? (this.#fds.get(fd) ?? (fd < 0 ? String(fd) : 'fd?')) : String(fd);
  }

  hva(value: unknown): string {
    const hva = Number(value);
    for (const { hva: start, length, name } of this.#mappings) {
      if (hva >= start && hva < start + length) return hva === start ? name : `${name}+${hexText(hva - start)}`;
    }
    return hexText(value);
  }
}

/** A number in hexadecimal; what is none as it is. */
export function hexText(value: unknown): string {
  return typeof value === 'number' || typeof value === 'bigint' ? `0x${value.toString(16)}` : String(value);
}
