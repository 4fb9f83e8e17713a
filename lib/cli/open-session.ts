import type { OpenOptions } from '../backends/open.ts';
import { KvmError } from '../base/errors.ts';
import { Kvm } from '../handles/kvm.ts';
import { loadCapture, readCapture } from './capture.ts';
import { nameOf } from './input.ts';
import { type Io, UsageError } from './io.ts';
import type { Session, SessionOptions } from './session.ts';

/**
 * Opens the wanted backend and makes a VM, and that the captured guest that is to be loaded.
 * @throws KvmError; UsageError for a capture that is none, or one of another machine than is asked for
 */
export async function openSession(
  { load, ...options }: SessionOptions,
  io: Pick<Io, 'stdin' | 'stderr'>,
): Promise<Session> {
  if (load === undefined) return open(options);
  const capture = await readCapture(load, io);
  if (options.backend === 'native') throw new UsageError('--load wants the emulated kernel, not --backend native');
  if (options.arch !== undefined && options.arch !== capture.arch) {
    throw new UsageError(`--arch is ${options.arch}, and ${nameOf(load)} is the capture of a guest of ${capture.arch}`);
  }
  const session = open({ ...options, arch: capture.arch, backend: 'emulated' });
  return { ...session, ...loadCapture(session, capture) };
}

/** With `auto` a real kernel that makes no VM is given up for the emulated one. @throws KvmError */
function open({ backend, ...others }: Omit<SessionOptions, 'load'>): Session {
  const given = Object.entries(others).filter(([, value]) => value !== undefined);
  const options = Object.fromEntries(given) as OpenOptions;
  const kvm = meant(() => Kvm.open({ ...options, backend }));
  try {
    return { kvm, vm: kvm.createVm(), fallbackReason: kvm.fallbackReason };
  } catch (error) {
    kvm.close();
    if (backend !== 'auto' || kvm.backend !== 'native' || !(error instanceof KvmError)) throw error;
    const emulated = Kvm.open({ ...options, backend: 'emulated' });
    return { kvm: emulated, vm: emulated.createVm(), fallbackReason: error.message };
  }
}

/** An option that cannot be had is a mistake on the command line. @throws UsageError */
function meant<T>(open: () => T): T {
  try {
    return open();
  } catch (error) {
    if (!(error instanceof RangeError && 'code' in error && error.code === 'ERR_OUT_OF_RANGE')) throw error;
    const [, name = '', right, given] =
      /^The value of "(?:options\.)?(\w+)".* It must be (.*)\. Received (.*)$/s.exec(error.message) ?? [];
    if (right === undefined) throw error;
    throw new UsageError(`--${name.replaceAll(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)} must be ${right}, not ${given}`);
  }
}
