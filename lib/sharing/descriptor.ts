import { checkInteger } from '../base/arguments.ts';
import { callError } from '../calls/failure.ts';
import { Handle } from '../calls/handle.ts';
import type { KvmCalls, SharingCalls } from '../calls/kvm-calls.ts';
import type { CallName } from '../calls/signatures.ts';
import { checkCalls } from '../calls/wrapped.ts';
import { ERRNO } from '../uapi/errno.ts';

export const checkFd = (fd: number, name: string): number => checkInteger(fd, name, 0, 0x7fff_ffff);

/** The calls that share things with other processes. @throws KvmError ENOSYS where there are none */
export function sharingOf(calls: KvmCalls, name: CallName): SharingCalls {
  const { sharing } = checkCalls(calls);
  if (sharing !== undefined) return sharing;
  const explanation =
    'only the addon hands descriptors to other processes, and these are the calls of the emulated kernel';
  throw callError(name, ERRNO.ENOSYS, { explanation });
}

/** Says what is taken over from nobody, if that is what EPERM means. */
export function whyNotOurs(errno: number): string | undefined {
  return errno === -ERRNO.EPERM
    ? 'VMs and vCPUs of KVM are used by the descriptor with which they were made: Vcpu.attach takes a vCPU over'
    : undefined;
}

/** A descriptor of ours for a file that another process may have as well: received over a socket, or inherited. */
export class Descriptor extends Handle {
  override readonly noun = 'the descriptor';

  /** Takes over one that is ours already. */
  constructor(calls: KvmCalls, fd: number) {
    super(checkCalls(calls), checkFd(fd, 'fd'));
  }

  /**
   * One of our own for any descriptor of the process, such as one that was inherited; that stays open.
   * @throws KvmError EBADF, EMFILE, EPERM for a VM or vCPU of KVM (`Vcpu.attach` takes a vCPU over)
   */
  static duplicate(calls: KvmCalls, fd: number): Descriptor {
    const own = sharingOf(calls, 'duplicate').duplicate(checkFd(fd, 'fd'));
    if (own < 0) throw callError('duplicate', own, { explanation: whyNotOurs(own) ?? `descriptor ${fd}` });
    return new Descriptor(calls, own);
  }

  /** Gives the descriptor up: it stays open and is the caller's, and this handle is closed. −1 when it was so already. */
  override giveUp(): number {
    return super.giveUp();
  }
}
