import { KvmError, type KvmErrorInfo } from '../base/errors.ts';
import { ERRNO } from '../uapi/errno.ts';
import type { KvmCalls } from './kvm-calls.ts';
import { type CallName, syscallOf } from './signatures.ts';

/** An open file as calls are made on it and errors name it: a handle, for its parts. */
export interface Callee {
  readonly calls: KvmCalls;
  /** −1 once it is closed. */
  readonly fd: number;
  readonly closed: boolean;
  /** What an error calls it: `the VM`. */
  readonly noun: string;
  /** Whether it is a vCPU that is in the guest. */
  readonly running?: boolean;
}

export type FailureInfo = Omit<KvmErrorInfo, 'syscall'>;

/** The error of a call that gave −errno, with its system call's name. */
export function callError(name: CallName, errno: number, info?: FailureInfo): KvmError {
  const explanation = info?.explanation ?? ALWAYS.get(Math.abs(errno));
  return new KvmError(errno, { ...info, syscall: syscallOf(name), explanation });
}

/** What an error means whichever call gives it. */
const ALWAYS: ReadonlyMap<number, string> = new Map([
  // No kernel answers it here.
  [
    ERRNO.EDEADLK,
    'this thread serves page faults, and would wait for itself when guest memory is accessed, or for a guest that waits for a page when memslots or ' +
      'registrations change: let guests run with run(), in a thread of their own, and pause() them for changes',
  ],
  [ERRNO.EMFILE, 'the process has as many open files as it may have (ulimit -n)'],
  [ERRNO.ENFILE, 'the system has as many open files as it may have (fs.file-max)'],
]);

/** The same of a call on an open file, with what was closed where that is why. */
export function callFailure(
  name: CallName,
  errno: number,
  callee: Pick<Callee, 'closed' | 'noun' | 'running'>,
  info?: FailureInfo,
): KvmError {
  const explanation =
    whyClosed(errno, callee) ?? whyNotInitialised(errno) ?? info?.explanation ?? whyBusy(errno, callee);
  return callError(name, errno, { ...info, explanation });
}

/** What is said of something that cannot be used any more. */
export const isClosed = (noun: string): string => `${noun} is closed`;

/** Says what ENOEXEC means, which only a vCPU of aarch64 answers. */
function whyNotInitialised(errno: number): string | undefined {
  return Math.abs(errno) === ERRNO.ENOEXEC
    ? 'an aarch64 vCPU is nothing before KVM_ARM_VCPU_INIT: vcpu.aarch64.init()'
    : undefined;
}

/** Says that a vCPU runs, if that is what EBUSY means. */
function whyBusy(errno: number, { noun, running }: Pick<Callee, 'noun' | 'running'>): string | undefined {
  return Math.abs(errno) === ERRNO.EBUSY && running === true
    ? `${noun} is running: pause() gets it out of the guest`
    : undefined;
}

/** Says that something is closed, if that is what EBADF means. */
export function whyClosed(errno: number, { closed, noun }: Pick<Callee, 'closed' | 'noun'>): string | undefined {
  return Math.abs(errno) === ERRNO.EBADF && closed ? isClosed(noun) : undefined;
}
