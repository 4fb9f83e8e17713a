import { checkBytes, checkInstance, checkInteger, checkObject, checkU64 } from '../../../base/arguments.ts';
import type { KvmError } from '../../../base/errors.ts';
import type { U64 } from '../../../base/u64.ts';
import { type Callee, callFailure } from '../../../calls/failure.ts';
import type { S390xCalls } from '../../../calls/kvm-calls.ts';
import { explain } from '../../../rules/rule.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { CMMA_MASK_SHIFT, CMMA_PEEK, MEM, S390_SKEYS_MAX, S390_VM_ATTRIBUTE } from '../../../uapi/flags.ts';
import { CMMA_BITS } from '../model/cmma.ts';
import { GET_CMMA_RULES, SET_CMMA_RULES } from '../rules.ts';
import { copyStates } from './frame-states.ts';
import type { VmAttributes } from './vm-attributes.ts';

/** Values of consecutive frames. */
export interface CmmaValues {
  /** The first frame; a harvest may begin later than it was asked to. */
  readonly startGfn: number;
  /** A byte per frame: usage in bits 0x03, no-DAT 0x40. */
  readonly values: Uint8Array;
  /** Frames that are dirty still; 0 outside of migration mode. */
  readonly remaining: number;
}

/** The VM whose values they are. */
export interface CmmaOwner extends Callee {
  readonly memslots: Iterable<{
    readonly id: number;
    readonly flags: number;
    readonly baseGfn: number;
    readonly npages: number;
  }>;
}

/**
 * Collaborative memory management (KVM_CAP_S390_CMMA_MIGRATION, 4.13 and later): what the guest told of its frames,
 * and in migration mode which of that changed.
 *
 * @example
 * vm.cmma.enable();              // before the first vCPU
 * vm.cmma.startMigration();
 * for (let start = 0, log; (log = vm.cmma.harvest(start, 4096)).values.length > 0; start = log.startGfn + log.values.length) send(log);
 */
export class VmCmma {
  readonly #s390x: S390xCalls;
  readonly #owner: CmmaOwner;
  readonly #attributes: VmAttributes;
  #enabled = false;

  /** Made by {@link Vm.cmma}. */
  constructor(s390x: S390xCalls, owner: CmmaOwner, attributes: VmAttributes) {
    this.#s390x = s390x;
    this.#owner = owner;
    this.#attributes = attributes;
  }

  /** Switches CMMA on. @throws KvmError EBUSY once there is a vCPU, ENXIO where the machine has no CMMA, EINVAL */
  enable(): void {
    this.#attributes.set(S390_VM_ATTRIBUTE.MEM_ENABLE_CMMA, null, (errno) =>
      errno === -ERRNO.EBUSY ? 'CMMA is switched on before the first vCPU is made' : undefined,
    );
    this.#enabled = true;
  }

  /** Makes all frames stable. @throws KvmError EINVAL unless CMMA is enabled */
  reset(): void {
    this.#attributes.set(S390_VM_ATTRIBUTE.MEM_CLR_CMMA, null, () => 'CMMA is not enabled');
  }

  /**
   * Values of up to 2^20 frames from the given one on, up to the first that has no memory; their dirty bits stay. None
   * when no guest used CMM.
   * @throws KvmError EFAULT where the first frame has no memory, ENXIO unless CMMA is enabled
   */
  peek(startGfn: U64, count: number): CmmaValues {
    return this.#get(startGfn, count, CMMA_PEEK);
  }

  /**
   * Values of up to 2^20 frames from the first dirty one at or after the given one on, or else from the lowest dirty one
   * on. They aren't dirty any more. Clean ones are among them where they are few between dirty ones. None when nothing
   * is dirty.
   * @throws KvmError EINVAL outside of migration mode, ENXIO unless CMMA is enabled
   */
  harvest(startGfn: U64, count: number): CmmaValues {
    return this.#get(startGfn, count, 0);
  }

  /**
   * Sets the values of frames.
   * @param mask which bits of a value are set, of 0x43
   * @throws KvmError EFAULT where a frame has no memory: those before are set; ENXIO unless CMMA is enabled
   */
  set(startGfn: U64, values: Uint8Array, mask = CMMA_BITS): void {
    checkBytes(values, 'values');
    const wide = BigInt(checkInteger(mask, 'mask', 0, 0xff)) << CMMA_MASK_SHIFT;
    const { fd } = this.#owner;
    const result = this.#s390x.setCmmaBits(fd, checkU64(startGfn, 'startGfn'), values.length, 0, wide, values);
    if (result < 0) throw this.#failure('setCmmaBits', result, SET_CMMA_RULES, 0, values.length);
  }

  /**
   * Gives the frames of this VM's memslots the same values in another VM, for which CMMA is enabled too: to how many, as the others had
   * them already. Pause the guest first; while it runs, {@link startMigration} and {@link harvest} tell what changes.
   * @throws KvmError ENXIO unless CMMA is enabled in both; EFAULT where the other VM has no memory
   * @example await vm.pause(); vm.cmma.copyTo(other)
   */
  copyTo(target: { readonly cmma: VmCmma }): number {
    const into = checkInstance(checkObject(target, 'target').cmma, 'target.cmma', VmCmma);
    return copyStates(
      { memslots: this.#owner.memslots, read: (gfn, count) => this.#all(gfn, count) },
      { read: (gfn, count) => into.#all(gfn, count), set: (gfn, values) => into.set(gfn, values) },
    );
  }

  /** Values of frames that have memory; null when no guest used CMM. */
  #all(startGfn: number, count: number): Uint8Array | null {
    const { values } = this.peek(startGfn, count);
    return values.length === 0 ? null : values;
  }

  /**
   * Begins migration mode: all frames are dirty. It ends when a slot without dirty logging is made.
   * @throws KvmError EINVAL without memslots, or with one that isn't logged
   */
  startMigration(): void {
    this.#attributes.set(S390_VM_ATTRIBUTE.MIGRATION_START, null, () => {
      const slots = [...this.#owner.memslots];
      if (slots.length === 0) return 'there is no memslot';
      const unlogged = slots.find(({ flags }) => (flags & MEM.LOG_DIRTY_PAGES) === 0);
      return unlogged === undefined ? undefined : `slot ${unlogged.id} has no dirty logging`;
    });
  }

  /** Ends migration mode. */
  stopMigration(): void {
    this.#attributes.set(S390_VM_ATTRIBUTE.MIGRATION_STOP, null);
  }

  /** Whether migration mode is on. */
  get migrating(): boolean {
    return this.#attributes.getU64(S390_VM_ATTRIBUTE.MIGRATION_STATUS) !== 0n;
  }

  #get(startGfn: U64, count: number, flags: number): CmmaValues {
    checkInteger(count, 'count', 0, 0xffff_ffff);
    const values = new Uint8Array(Math.min(count, S390_SKEYS_MAX));
    const log = BigUint64Array.of(BigInt(checkU64(startGfn, 'startGfn')), BigInt(values.length), 0n);
    const result = this.#s390x.getCmmaBits(this.#owner.fd, log, flags, values);
    if (result < 0) throw this.#failure('getCmmaBits', result, GET_CMMA_RULES, flags, count);
    return { startGfn: Number(log[0]), values: values.subarray(0, Number(log[1])), remaining: Number(log[2]) };
  }

  #failure(
    call: 'getCmmaBits' | 'setCmmaBits',
    errno: number,
    rules: typeof GET_CMMA_RULES,
    flags: number,
    count: number,
  ): KvmError {
    const migrating = errno === -ERRNO.EINVAL && this.migrating;
    const context = { enabled: this.#enabled, flags, count: BigInt(count), migrating };
    const explanation = errno === -ERRNO.EFAULT ? 'a frame is in no memslot' : explain(rules, context, errno);
    return callFailure(call, errno, this.#owner, { explanation });
  }
}
