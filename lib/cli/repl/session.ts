import type { OpenOptions } from '../../backends/open.ts';
import { KvmError } from '../../base/errors.ts';
import { Kvm } from '../../handles/kvm.ts';
import type { Vm } from '../../handles/vm.ts';
import * as api from '../../index.ts';
import * as raw from '../../raw.ts';
import { ARCHES, type Arch } from '../../uapi/arch.ts';
import { UsageError } from '../io.ts';

export interface SessionOptions {
  readonly backend: NonNullable<OpenOptions['backend']>;
  readonly arch: Arch | undefined;
  /** Gets one line for each call to the kernel. */
  readonly trace: ((line: string) => void) | undefined;
}

/** An open /dev/kvm with a VM, to play with. */
export interface Session {
  readonly kvm: Kvm;
  readonly vm: Vm;
  /** Why it is not the real kernel although that was not ruled out. */
  readonly fallbackReason: string | undefined;
}

const BACKENDS = ['auto', 'native', 'emulated'] as const;

/** Reads `--backend`, `--arch` and `--trace`. @throws UsageError */
export function sessionOptions(
  values: { readonly backend?: string | undefined; readonly arch?: string | undefined; readonly trace?: boolean },
  trace: (line: string) => void,
): SessionOptions {
  const backend = oneOf(BACKENDS, values.backend ?? 'auto', '--backend');
  const arch = values.arch === undefined ? undefined : oneOf(ARCHES, values.arch, '--arch');
  return { backend, arch, trace: values.trace === true ? trace : undefined };
}

function oneOf<T extends string>(choices: readonly T[], value: string, option: string): T {
  const found = choices.find((choice) => choice === value);
  if (found === undefined) throw new UsageError(`${option} is one of ${choices.join(', ')}, not "${value}"`);
  return found;
}

/**
 * Opens the wanted backend and makes a VM. With `auto` a real kernel that makes no VM is given up for the emulated one.
 * @throws KvmError
 */
export function openSession({ backend, arch, trace }: SessionOptions): Session {
  const options = { ...(arch === undefined ? {} : { arch }), ...(trace === undefined ? {} : { trace }) };
  const kvm = Kvm.open({ ...options, backend });
  try {
    return { kvm, vm: kvm.createVm(), fallbackReason: kvm.fallbackReason };
  } catch (error) {
    kvm.close();
    if (backend !== 'auto' || kvm.backend !== 'native' || !(error instanceof KvmError)) throw error;
    const emulated = Kvm.open({ ...options, backend: 'emulated' });
    return { kvm: emulated, vm: emulated.createVm(), fallbackReason: error.message };
  }
}

export function closeSession({ kvm, vm }: Session): void {
  vm.close();
  kvm.close();
}

/** What lines at the prompt, and in scripts, can name: the session, and everything that the package exports. */
export function sessionGlobals({ kvm, vm }: Session): Record<string, unknown> {
  return { ...api, raw, kvm, vm };
}

/** Does something while the session's names are global. */
export async function withGlobals<T>(session: Session, action: () => Promise<T>): Promise<T> {
  const globals = sessionGlobals(session);
  Object.assign(globalThis, globals);
  try {
    return await action();
  } finally {
    for (const name of Object.keys(globals)) Reflect.deleteProperty(globalThis, name);
  }
}
