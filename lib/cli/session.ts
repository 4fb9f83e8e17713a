import type { Segment } from '../arch/ppc64/model/index.ts';
import * as ppc64 from '../arch/ppc64/model/index.ts';
import type { DatFacilities } from '../arch/s390x/model/index.ts';
import * as s390x from '../arch/s390x/model/index.ts';
import * as x86_64 from '../arch/x86_64/model/registers.ts';
import type { OpenOptions } from '../backends/open.ts';
import type { Kvm } from '../handles/kvm.ts';
import type { Vm } from '../handles/vm.ts';
import * as api from '../index.ts';
import * as raw from '../raw.ts';
import { ARCHES, type Arch } from '../uapi/arch.ts';
import type { Options, Values } from './command.ts';
import { complain, type Io, UsageError } from './io.ts';
import { suggestion } from './nearest.ts';
import { LineFile } from './output-file.ts';
import { traceTo } from './trace-lines.ts';

const BACKENDS = ['auto', 'native', 'emulated'] as const;

/** Which emulated kernel: of commands that know no other, too. */
export const architectureOption = {
  arch: { type: 'string', value: 'ARCH', help: `${ARCHES.join(', ')}; another than this machine's is emulated` },
} as const satisfies Options;
export const releaseOption = {
  release: { type: 'string', value: 'RELEASE', help: 'release of the emulated kernel, 6.1 or newer' },
} as const satisfies Options;
export const pageSizeOption = {
  'page-size': {
    type: 'string',
    value: 'BYTES',
    help: 'host page size of the emulated kernel: 4096, or 65536 on ppc64',
  },
} as const satisfies Options;

/** The options of every command that opens a kernel. */
export const SESSION_OPTIONS: Options = {
  ...architectureOption,
  backend: {
    type: 'string',
    value: 'BACKEND',
    help: 'native (the real kernel), emulated, or auto (the real one where it can be used)',
  },
  ...releaseOption,
  ...pageSizeOption,
  trace: { type: 'boolean', help: 'every call to the kernel as one line on standard error' },
  'trace-out': {
    type: 'string',
    value: 'FILE',
    help: 'every call, with its memory, in a file (- is standard output) for kvm-bridge replay',
  },
  load: {
    type: 'string',
    value: 'CAPTURE',
    help: 'a captured guest (a folder, or a .tar of it): its memory, keys, table and registers, ready to walk',
  },
};

export interface SessionOptions {
  readonly backend: NonNullable<OpenOptions['backend']>;
  readonly arch?: Arch | undefined;
  readonly release?: string | undefined;
  readonly pageSize?: number | undefined;
  /** Gets one line for each call to the kernel. */
  readonly trace?: ((line: string) => void) | undefined;
  /** Gets the calls as `kvm-bridge replay` reads them. */
  readonly record?: ((line: string) => void) | undefined;
  /** Where a captured guest is, which the VM becomes. */
  readonly load?: string | undefined;
}

/** An open /dev/kvm with a VM, to play with. */
export interface Session {
  readonly kvm: Kvm;
  readonly vm: Vm;
  /** Why it is not the real kernel although that was not ruled out. */
  readonly fallbackReason: string | undefined;
  /** What was loaded, in a sentence. */
  readonly loaded?: string;
  /** s390x: what the loaded guest's machine has. */
  readonly facilities?: Partial<DatFacilities>;
  /** ppc64: the loaded guest's segments. */
  readonly segments?: readonly Segment[];
}

/** An option's value, if it was given. @throws UsageError unless it is one of the choices */
export function oneOf<T extends string>(
  choices: readonly T[],
  option: string,
  { [option]: value }: Values,
  command: string,
): T | undefined {
  if (value === undefined) return undefined;
  const found = choices.find((choice) => choice === value);
  if (found !== undefined) return found;
  const hint = suggestion(String(value), choices);
  throw new UsageError(`--${option} is one of ${choices.join(', ')}, not "${value}"${hint}`, command);
}

/** @throws UsageError */
export function pageSizeOf({ 'page-size': given }: Values, command: string): number | undefined {
  if (given === undefined) return undefined;
  if (/^(4096|65536)$/.test(String(given))) return Number(given);
  throw new UsageError(`--page-size is 4096 or 65536, not "${given}"`, command);
}

/** Reads {@link SESSION_OPTIONS}. @throws UsageError, Node's errors of the file that is written to */
export function sessionOptions(command: string, values: Values, io: Io): SessionOptions {
  const text = (option: string) => (values[option] === undefined ? undefined : String(values[option]));
  return {
    backend: oneOf(BACKENDS, 'backend', values, command) ?? 'auto',
    arch: oneOf(ARCHES, 'arch', values, command),
    release: text('release'),
    pageSize: pageSizeOf(values, command),
    trace: values.trace === true ? traceTo(io.stderr, io.env) : undefined,
    record: values['trace-out'] === undefined ? undefined : linesTo(String(values['trace-out']), command, io),
    load: text('load'),
  };
}

/**
 * Writes lines to a file, or to standard output (`-`). One that cannot be written ends the process, and a sentence says why.
 * @throws Node's errors of the file
 */
export function linesTo(path: string, command: string, io: Io): (line: string) => void {
  if (path === '-') return (line) => io.stdout.write(`${line}\n`);
  const file = new LineFile(path, (sentence) => {
    complain(io, command, sentence);
    io.exit(1);
  });
  return file.write;
}

export function closeSession({ kvm, vm }: Session): void {
  vm.close();
  kvm.close();
}

/** What lines at the prompt, and scripts, can name: the session, and everything that the package exports. */
function sessionGlobals({ kvm, vm }: Session): Record<string, unknown> {
  return { ...api, raw, s390x, ppc64, x86_64, kvm, vm };
}

/** Makes the session's names global; and what takes them away again. */
export function shareGlobals(session: Session): () => void {
  const globals = sessionGlobals(session);
  Object.assign(globalThis, globals);
  return () => {
    for (const name of Object.keys(globals)) Reflect.deleteProperty(globalThis, name);
  };
}
