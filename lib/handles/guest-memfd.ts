import { checkSize } from '../base/arguments.ts';
import { Handle } from '../calls/handle.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { Mapping, type MappingOptions } from '../memory/mapping.ts';
import { FALLOCATE_RULES } from '../rules/guest-memfd.ts';
import { explain } from '../rules/rule.ts';
import { ERRNO } from '../uapi/errno.ts';
import { FALLOC } from '../uapi/flags.ts';

/**
 * A guest_memfd: pages of a VM's guest, which are in no process's memory unless the file is mapped. A region shows them to the guest
 * ({@link RegionOptions.guestMemfd}).
 */
export class GuestMemfd extends Handle {
  override readonly noun = 'the guest_memfd';
  readonly size: number;

  constructor(calls: KvmCalls, fd: number, size: number) {
    super(calls, fd);
    this.size = size;
  }

  /**
   * Maps all of it (6.18, when made with GUEST_MEMFD_FLAG.MMAP). Pages can be accessed if they are shared, as all are with INIT_SHARED.
   * @throws KvmError ENODEV when it was made otherwise; EBADF when it is closed
   */
  map(options: MappingOptions = {}): Mapping {
    if (this.closed) throw this.failure('mmap', ERRNO.EBADF);
    return Mapping.guestMemfd(this.calls, this.fd, this.size, options);
  }

  /** Gives pages back: the guest finds zeros there. `offset` and `length` are bytes, whole pages. @throws KvmError EINVAL, EBADF */
  punchHole(offset: number, length: number): void {
    this.#fallocate(FALLOC.KEEP_SIZE | FALLOC.PUNCH_HOLE, offset, length);
  }

  /** Makes pages present beforehand; those that are stay as they are. @throws KvmError EINVAL, ENOMEM, EBADF */
  allocate(offset: number, length: number): void {
    this.#fallocate(FALLOC.KEEP_SIZE, offset, length);
  }

  #fallocate(mode: number, offset: number, length: number): void {
    checkSize(offset, 'offset');
    checkSize(length, 'length');
    const result = this.calls.fallocate(this.fd, mode, offset, length);
    const context = {
      ...{ offset, length, size: this.size },
      pageSize: this.calls.pageSize,
      punches: (mode & FALLOC.PUNCH_HOLE) !== 0,
    };
    const explanation = result === -ERRNO.EINVAL ? explain(FALLOCATE_RULES, context, result) : undefined;
    this.check('fallocate', result, { size: length, explanation });
  }
}
