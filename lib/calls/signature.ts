import type { SymbolSet } from '../uapi/symbols.ts';

/**
 * What a parameter of a call is: how it is checked (calls/checked.ts), printed and recorded (calls/recorder.ts).
 *
 * | kind | accepts | printed as |
 * |---|---|---|
 * | fd | int32 | a name, `vm#1` |
 * | i32, u32 | a whole number in range | decimal |
 * | x32 | u32 | hex |
 * | u64 | number or bigint | decimal |
 * | x64 | number or bigint | hex |
 * | hva | number or bigint | `map#1+0x1000`, or hex |
 * | u64s | an array of up to 4 u64 | list of hex |
 * | in, out, inout | Uint8Array or null | bytes that go in, and those that came out |
 * | inout64 | BigUint64Array | its values before, and after |
 * | hvas | Float64Array of hvas | list |
 * | u32s | Uint32Array | list |
 * | fds | Int32Array of descriptors that go in | list of names |
 * | outfds | Int32Array of descriptors that come out, −1 for none | list of names |
 * | view | Uint8Array over memory | its length |
 * | text | string | quoted |
 * | arg | u64 or Uint8Array | hex, or bytes in and out |
 */
export type ParameterKind =
  | 'fd'
  | 'i32'
  | 'u32'
  | 'x32'
  | 'u64'
  | 'x64'
  | 'hva'
  | 'u64s'
  | 'in'
  | 'out'
  | 'inout'
  | 'inout64'
  | 'hvas'
  | 'u32s'
  | 'fds'
  | 'outfds'
  | 'view'
  | 'text'
  | 'arg';

/** What a call returns: a plain number, a new fd (with the name it is recorded under), an hva, or memory. */
export type ResultKind = 'number' | 'hva' | 'memory' | { readonly fd: string };

/** A parameter, and of which set its value is a name or flags, where there is one. */
export type Parameter = readonly [name: string, kind: ParameterKind, symbols?: SymbolSet];

export interface Signature {
  readonly parameters: readonly Parameter[];
  readonly result: ResultKind;
  /** What the kernel's users call it, for errors' `syscall`: `ioctl(KVM_RUN)`, `mmap`. */
  readonly syscall: string;
  /** The call resolves later. */
  readonly async?: true;
}

/** The signature of a call. */
export const call = (syscall: string, parameters: readonly Parameter[], result: ResultKind = 'number'): Signature => ({
  syscall,
  parameters,
  result,
});
