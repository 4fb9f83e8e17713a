import { readlinkSync } from 'node:fs';
import { isSharedArrayBuffer } from 'node:util/types';
import type { VmS390x } from '../arch/s390x/handles/vm.ts';
import { checkInteger, checkObject } from '../base/arguments.ts';
import { invalidArgType, KvmError } from '../base/errors.ts';
import { type Callee, callError, callFailure } from '../calls/failure.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { MmioBus } from '../memory/mmio-bus.ts';
import { attachToken, isToken, type SpaceToken } from '../sharing/address-space.ts';
import { sharingOf } from '../sharing/descriptor.ts';
import { GuestBinding } from '../sharing/guest-binding.ts';
import { type AttachOptions, checkAttachOptions } from '../sharing/table/attached-space.ts';
import { isLittleEndianHost } from '../uapi/arch.ts';
import { ERRNO } from '../uapi/errno.ts';
import type { ParkedVcpu } from './parked-vcpu.ts';

/**
 * Names a vCPU for another thread of the process: plain data, for `postMessage` and `workerData`. It holds nothing: the
 * vCPU must be there when it is used, and somebody must have it, or the collector closes it.
 */
export interface VcpuToken {
  readonly type: 'kvm-bridge.Vcpu';
  readonly pid: number;
  readonly fd: number;
  readonly id: number;
  /** Bytes of the kvm_run area. */
  readonly runSize: number;
  /** The guest's memory. */
  readonly space: SpaceToken;
  /** One word, not 0 while the vCPU is there: another VM's may get its descriptor's number. */
  readonly there: SharedArrayBuffer;
}

/** A VM as a thread knows it that was given one of its vCPUs. */
export class AttachedVm implements Callee {
  readonly noun: string = 'the VM';
  /** It is another thread's. */
  readonly fd = -1;
  readonly calls: KvmCalls;
  /** The guest's memory, and this thread's MMIO handlers. */
  readonly memory: GuestBinding;
  /** This thread's handlers of I/O ports. Coalesced stores stay with the VM's own thread. */
  readonly io: { readonly ports: MmioBus; drainCoalesced(): void };

  constructor(calls: KvmCalls, memory: GuestBinding) {
    this.calls = calls;
    this.memory = memory;
    const ports = new MmioBus('port', isLittleEndianHost(calls.arch));
    ports.whyClosed = memory.mmio.whyClosed;
    this.io = { ports, drainCoalesced: () => {} };
  }

  get closed(): boolean {
    return this.memory.released;
  }

  /** @throws KvmError ENOTTY: the VM's own thread has it */
  get s390x(): VmS390x {
    const explanation = "what is the VM's is with the thread that made it";
    throw new KvmError(ERRNO.ENOTTY, { syscall: 's390x', explanation });
  }

  /** @internal Rings are emptied in the VM's own thread: the exit comes back. */
  harvestDirtyRings(): boolean {
    return false;
  }

  /** @internal */
  vcpuCloses(): void {}

  /** @internal Nothing is kept here: the vCPU is its own thread's again. */
  vcpuClosed(_vcpu: unknown, parked: ParkedVcpu | undefined): void {
    parked?.close();
    this.memory.release();
  }
}

/** A vCPU that a thread was given. */
export interface AttachedVcpu {
  readonly vm: AttachedVm;
  readonly fd: number;
  readonly id: number;
  readonly runSize: number;
}

/** @throws KvmError ESTALE, EBUSY, ENOSYS, and as {@link AddressSpace.attach} */
export async function attachVcpu(calls: KvmCalls, token: VcpuToken, options: AttachOptions): Promise<AttachedVcpu> {
  const sharing = sharingOf(calls, 'duplicate');
  const { fd, id, runSize, space, there } = checkToken(token);
  const attaching = { name: `vCPU ${id}`, ...checkAttachOptions(options) };
  const vm = new AttachedVm(calls, await attachToken(calls, space, attaching, GuestBinding));
  try {
    requireVcpu(fd, id, there);
    const own = sharing.duplicate(fd);
    if (own === -ERRNO.EBUSY) {
      const explanation = `vCPU ${id} is running, or another thread has it`;
      throw callFailure('duplicate', own, vm, { explanation });
    }
    if (own < 0) throw callError('duplicate', own, { explanation: `vCPU ${id}, descriptor ${fd}` });
    if (!isThere(there)) {
      calls.close(own);
      requireVcpu(fd, id, there);
    }
    return { vm, fd: own, id, runSize };
  } catch (error) {
    vm.memory.release();
    throw error;
  }
}

function checkToken(token: VcpuToken): VcpuToken {
  const { type, fd, id, runSize, space, pid, there } = checkObject(token, 'token');
  if (type !== 'kvm-bridge.Vcpu') throw invalidArgType('token', "a vCPU's token", token);
  checkInteger(fd, 'token.fd', 0, 0x7fff_ffff);
  checkInteger(id, 'token.id', 0, 0xffff_ffff);
  checkInteger(runSize, 'token.runSize', 1, 0x7fff_ffff);
  if (!isToken(space)) throw invalidArgType('token.space', "an address space's token", space);
  if (!isSharedArrayBuffer(there) || there.byteLength < 4) {
    throw invalidArgType('token.there', "the SharedArrayBuffer of a vCPU's token", there);
  }
  return { type, pid, fd, id, runSize, space, there };
}

const isThere = (there: SharedArrayBuffer): boolean => Atomics.load(new Int32Array(there, 0, 1), 0) !== 0;

/** @throws KvmError ESTALE when the descriptor is another's by now */
function requireVcpu(fd: number, id: number, there: SharedArrayBuffer): void {
  let file = 'nothing';
  try {
    file = readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    // Nothing is open there.
  }
  if (isThere(there) && file === `anon_inode:kvm-vcpu:${id}`) return;
  const explanation = `the token's vCPU ${id} was closed, or nobody had it any more: its descriptor ${fd} is now ${file}`;
  throw new KvmError(ERRNO.ESTALE, { syscall: 'attach', explanation });
}
