import { outOfRange } from '../../../base/errors.ts';
import { checkRegisters, registersOf, type SomeRegisters } from '../../../base/registers.ts';
import { KVM_RUN_S390X, KVM_SREGS_S390X, KVM_SYNC, REGS_SIZE } from '../../../uapi/structs.ts';
import { PREFIX_MASK } from '../model/prefix.ts';
import {
  ACCESS_REGISTERS,
  CONTROL_REGISTERS,
  GENERAL_REGISTERS,
  isNarrow,
  S390X_REG_NAMES,
  type S390xRegName,
  type S390xRegs,
} from '../model/registers.ts';

/** The vCPU. */
export interface RegistersOwner {
  readonly kvmRun: { readonly view: DataView };
  getRegsBytes(size: number): Uint8Array;
  setRegsBytes(bytes: Uint8Array): void;
  getSregsBytes(size: number): Uint8Array;
  setSregsBytes(bytes: Uint8Array): void;
}

const REGS_BYTES = REGS_SIZE.s390x.regs!;
const SREGS_BYTES = REGS_SIZE.s390x.sregs!;

const { psw_mask, psw_addr, prefix, crs, kvm_dirty_regs } = KVM_RUN_S390X;
/** KVM takes the general registers from kvm_run anyway: their bit says only that it has not looked since. */
const WAITS = BigInt(KVM_SYNC.GPRS);
const PREFIX = BigInt(KVM_SYNC.PREFIX);
const CRS = BigInt(KVM_SYNC.CRS);

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const offsetOf = (at: number, names: readonly string[], size: number, name: string): number =>
  at + size * names.indexOf(name);

/**
 * An s390x vCPU's registers, each where KVM has it: general and access registers in kvm_run, control registers in the kernel, and
 * PSW and prefix in kvm_run, from where the next KVM_RUN takes them.
 */
export class VcpuRegisters {
  readonly #owner: RegistersOwner;

  constructor(owner: RegistersOwner) {
    this.#owner = owner;
  }

  get #run(): DataView {
    return this.#owner.kvmRun.view;
  }

  /** PSW or prefix were set, and KVM has not taken them yet. */
  get waiting(): boolean {
    return this.#run.byteLength > 0 && (this.#run.getBigUint64(kvm_dirty_regs) & (WAITS | PREFIX)) !== 0n;
  }

  get(): S390xRegs {
    const general = viewOf(this.#owner.getRegsBytes(REGS_BYTES));
    const special = viewOf(this.#owner.getSregsBytes(SREGS_BYTES));
    const run = this.#run;
    // Those that somebody has put into kvm_run are the next run's.
    const control = (run.getBigUint64(kvm_dirty_regs) & CRS) === 0n ? special : undefined;
    return registersOf(S390X_REG_NAMES, (name) => {
      if (name === 'pswMask') return run.getBigUint64(psw_mask);
      if (name === 'pswAddress') return run.getBigUint64(psw_addr);
      if (name === 'prefix') return BigInt(run.getUint32(prefix));
      if (name.startsWith('cr')) {
        return control === undefined
          ? run.getBigUint64(offsetOf(crs, CONTROL_REGISTERS, 8, name))
          : control.getBigUint64(offsetOf(KVM_SREGS_S390X.crs, CONTROL_REGISTERS, 8, name));
      }
      return name.startsWith('r')
        ? general.getBigUint64(offsetOf(0, GENERAL_REGISTERS, 8, name))
        : BigInt(special.getUint32(offsetOf(KVM_SREGS_S390X.acrs, ACCESS_REGISTERS, 4, name)));
    });
  }

  set(regs: SomeRegisters<S390xRegName>): void {
    const checked = checkRegisters(regs, S390X_REG_NAMES, isNarrow);
    const area = checked.find(([name]) => name === 'prefix');
    if (area !== undefined && (area[1] & ~BigInt(PREFIX_MASK)) !== 0n) {
      throw outOfRange('regs.prefix', 'a multiple of 8 KiB below 2 GiB', area[1]);
    }
    const general = this.#owner.getRegsBytes(REGS_BYTES);
    const special = this.#owner.getSregsBytes(SREGS_BYTES);
    for (const [name, value] of checked) {
      if (name.startsWith('cr')) this.#setControl(viewOf(special), name, value);
      else if (name.startsWith('r')) viewOf(general).setBigUint64(offsetOf(0, GENERAL_REGISTERS, 8, name), value);
      else if (/^a\d/.test(name))
        viewOf(special).setUint32(offsetOf(KVM_SREGS_S390X.acrs, ACCESS_REGISTERS, 4, name), Number(value));
      else this.#setInRun(name, value);
    }
    this.#owner.setRegsBytes(general);
    this.#owner.setSregsBytes(special);
  }

  /** In kvm_run as well: a run that is told to look there finds the same. */
  #setControl(special: DataView, name: string, value: bigint): void {
    special.setBigUint64(offsetOf(KVM_SREGS_S390X.crs, CONTROL_REGISTERS, 8, name), value);
    this.#run.setBigUint64(offsetOf(crs, CONTROL_REGISTERS, 8, name), value);
  }

  #setInRun(name: S390xRegName, value: bigint): void {
    const run = this.#run;
    if (name === 'prefix') run.setUint32(prefix, Number(value));
    else run.setBigUint64(name === 'pswMask' ? psw_mask : psw_addr, value);
    this.#mark(name === 'prefix' ? PREFIX : WAITS);
  }

  /** The PSW in kvm_run is another one: KVM takes it with the next run. */
  pswSet(): void {
    this.#mark(WAITS);
  }

  #mark(bits: bigint): void {
    this.#run.setBigUint64(kvm_dirty_regs, this.#run.getBigUint64(kvm_dirty_regs) | bits);
  }

  /** An initial reset was done, of which KVM shows all but the prefix in kvm_run: nothing of before is to be taken from there. */
  reset(): void {
    const run = this.#run;
    run.setUint32(prefix, 0);
    run.setBigUint64(kvm_dirty_regs, run.getBigUint64(kvm_dirty_regs) & ~(WAITS | PREFIX | CRS));
  }
}
