import type { EmulatedVcpu } from '../../../emulated/vcpu.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { MP_STATE, ONE_REG } from '../../../uapi/flags.ts';
import { KVM_RUN_S390X, KVM_SREGS_S390X, KVM_SYNC } from '../../../uapi/structs.ts';
import { type CpuState, cpuState } from '../model/index.ts';
import { PREFIX_MASK } from '../model/prefix.ts';
import { ADDRESS_SPACE_CONTROLS, addressSpaceBits } from '../model/psw.ts';
import { fromHalves } from '../model/u64.ts';
import { LogicalAccess, type PendingInterruption } from './logical-access.ts';
import type { S390xVm } from './vm-state.ts';

/** kvm_valid_regs of a new vCPU, and the fields that a user may name there and in kvm_dirty_regs. */
const { PREFIX, GPRS, ACRS, CRS, ARCH0, PFAULT, VRS, DIAG318 } = KVM_SYNC;
const VALID_REGS = BigInt(PREFIX | GPRS | ACRS | CRS | ARCH0 | PFAULT | VRS | DIAG318);
const KNOWN_REGS = BigInt(Object.values<number>(KVM_SYNC).reduce((all, bit) => all | bit));

const INITIAL_CR0 = 0xe0;
const INITIAL_CR14 = 0xc200_0000;

/** In the upper half of a PSW mask. */
const PSW_HI_RUNTIME_INSTRUMENTATION = 0x80;

/** Registers of 8 bytes that GET_ONE_REG knows, apart from timers that run. */
const ONE_REGS = [
  ONE_REG.S390_CLOCK_COMP,
  ONE_REG.S390_PFTOKEN,
  ONE_REG.S390_PFCOMPARE,
  ONE_REG.S390_PFSELECT,
  ONE_REG.S390_PP,
  ONE_REG.S390_GBEA,
];
/** What the token is while the guest doesn't ask for page faults to be told. */
const NO_TOKEN = 2n ** 64n - 1n;

/**
 * The hardware state of an emulated vCPU, as far as memory accesses look at it. It is not the state in kvm_run: that
 * takes effect only at the next KVM_RUN, except for the access registers, which are read from there.
 */
export class S390xVcpu {
  readonly cpu: CpuState;
  /** Made pending by MEM_OP with INJECT, delivered by the next KVM_RUN. */
  pending: PendingInterruption | undefined;
  /** The PSW's address, which an interruption stores. */
  pswAddress = 0n;
  readonly access: LogicalAccess;
  readonly #vm: S390xVm;
  readonly #vcpu: EmulatedVcpu;

  constructor(vm: S390xVm, vcpu: EmulatedVcpu, facilities: CpuState['facilities']) {
    this.#vm = vm;
    this.#vcpu = vcpu;
    this.cpu = cpuState({ pswMask: 0, facilities });
    this.access = new LogicalAccess(vm, this.cpu);
    vcpu.mpState = MP_STATE.STOPPED;
    for (const id of ONE_REGS) this.#setOneReg(id, id === ONE_REG.S390_PFTOKEN ? NO_TOKEN : 0n);
    this.#run.setBigUint64(KVM_RUN_S390X.kvm_valid_regs, VALID_REGS);
  }

  /** Breaking-event address; MEM_OP's SIDA operations misread it as a size. */
  get breakingEvent(): bigint {
    return Buffer.from(this.#vcpu.oneRegs.get(ONE_REG.S390_GBEA)!).readBigUInt64BE();
  }

  #setOneReg(id: bigint, value: bigint): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(value);
    this.#vcpu.oneRegs.set(id, bytes);
  }

  get pswMask(): bigint {
    return fromHalves(this.cpu.pswMaskHi, this.cpu.pswMaskLo);
  }

  /** Whether the next KVM_RUN ends before it begins. */
  get immediateExit(): boolean {
    return this.#run.getUint8(KVM_RUN_S390X.immediate_exit) !== 0;
  }

  get #run(): DataView {
    return this.#vcpu.area.view;
  }

  get #sregs(): DataView {
    const { sregs } = this.#vcpu;
    return new DataView(sregs.buffer, sregs.byteOffset, sregs.byteLength);
  }

  /** Before MEM_OP: the access registers are those in kvm_run. Only access-register mode looks at them. */
  loadAccessRegisters(): void {
    if (ADDRESS_SPACE_CONTROLS[addressSpaceBits(this.cpu.pswMaskHi)] !== 'access-register') return;
    const run = this.#run;
    for (let n = 0; n < 16; n++) this.cpu.ar[n] = run.getUint32(KVM_RUN_S390X.acrs + 4 * n);
  }

  /**
   * What KVM_RUN does first: takes PSW, prefix and control registers from kvm_run.
   * @returns 0 or −EINVAL for register sets that aren't known, and for a vCPU that user space has stopped.
   */
  sync(): number {
    const run = this.#run;
    const dirty = run.getBigUint64(KVM_RUN_S390X.kvm_dirty_regs);
    if (((run.getBigUint64(KVM_RUN_S390X.kvm_valid_regs) | dirty) & ~KNOWN_REGS) !== 0n) return -ERRNO.EINVAL;
    if (!this.#vm.userSetsMpState) this.#vcpu.mpState = MP_STATE.OPERATING;
    else if (this.#vcpu.mpState === MP_STATE.STOPPED) return -ERRNO.EINVAL;
    this.cpu.pswMaskHi = run.getUint32(KVM_RUN_S390X.psw_mask);
    this.cpu.pswMaskLo = run.getUint32(KVM_RUN_S390X.psw_mask + 4);
    this.pswAddress = run.getBigUint64(KVM_RUN_S390X.psw_addr);
    if ((dirty & BigInt(PREFIX)) !== 0n) this.#setPrefix(run.getUint32(KVM_RUN_S390X.prefix));
    if ((dirty & BigInt(CRS)) !== 0n) {
      for (let n = 0; n < 32; n++) this.cpu.cr[n] = run.getUint32(KVM_RUN_S390X.crs + 4 * n);
    }
    run.setBigUint64(KVM_RUN_S390X.kvm_dirty_regs, 0n);
    this.storeRun();
    return 0;
  }

  #setPrefix(prefix: number): void {
    this.cpu.prefixPfn = (prefix & PREFIX_MASK) >>> 12;
  }

  /** SET_SREGS takes effect at once: control registers, and access registers through kvm_run. */
  loadSregs(): void {
    const sregs = this.#sregs;
    for (let n = 0; n < 16; n++) this.#run.setUint32(KVM_RUN_S390X.acrs + 4 * n, sregs.getUint32(4 * n));
    for (let n = 0; n < 32; n++) this.cpu.cr[n] = sregs.getUint32(KVM_SREGS_S390X.crs + 4 * n);
  }

  /** Before GET_REGS and GET_SREGS: general and access registers are those in kvm_run. */
  storeRegisters(): void {
    const { gprs, acrs } = KVM_RUN_S390X;
    this.#vcpu.regs.set(this.#vcpu.area.bytes(gprs, this.#vcpu.regs.length));
    this.#vcpu.sregs.set(this.#vcpu.area.bytes(acrs, KVM_SREGS_S390X.crs));
    const sregs = this.#sregs;
    for (let n = 0; n < 32; n++) sregs.setUint32(KVM_SREGS_S390X.crs + 4 * n, this.cpu.cr[n]!);
  }

  /** SET_REGS puts them into kvm_run. */
  loadRegs(): void {
    this.#vcpu.area.bytes(KVM_RUN_S390X.gprs, this.#vcpu.regs.length).set(this.#vcpu.regs);
  }

  /** KVM_RUN shows the hardware state in kvm_run. */
  storeRun(): void {
    this.#storePsw();
    this.#storeControlRegisters();
    this.#run.setUint32(KVM_RUN_S390X.prefix, this.cpu.prefixPfn << 12);
  }

  #storePsw(): void {
    const run = this.#run;
    run.setUint32(KVM_RUN_S390X.psw_mask, this.cpu.pswMaskHi);
    run.setUint32(KVM_RUN_S390X.psw_mask + 4, this.cpu.pswMaskLo);
    run.setBigUint64(KVM_RUN_S390X.psw_addr, this.pswAddress);
  }

  #storeControlRegisters(): void {
    const run = this.#run;
    for (const [n, half] of this.cpu.cr.entries()) run.setUint32(KVM_RUN_S390X.crs + 4 * n, half);
  }

  /** KVM_S390_NORMAL_RESET: pending interruptions go, the vCPU stops. */
  normalReset(): void {
    this.pending = undefined;
    if (!this.#vm.userSetsMpState) this.#vcpu.mpState = MP_STATE.STOPPED;
    this.cpu.pswMaskHi &= ~PSW_HI_RUNTIME_INSTRUMENTATION;
  }

  /** KVM_S390_INITIAL_RESET: also PSW, prefix and control registers. */
  initialReset(): void {
    this.normalReset();
    this.cpu.pswMaskHi = 0;
    this.cpu.pswMaskLo = 0;
    this.pswAddress = 0n;
    this.cpu.prefixPfn = 0;
    this.#setOneReg(ONE_REG.S390_CLOCK_COMP, 0n);
    this.#setOneReg(ONE_REG.S390_PFTOKEN, NO_TOKEN);
    this.#setOneReg(ONE_REG.S390_PP, 0n);
    this.#setOneReg(ONE_REG.S390_GBEA, 1n);
    this.cpu.cr.fill(0);
    this.cpu.cr[1] = INITIAL_CR0;
    this.cpu.cr[2 * 14 + 1] = INITIAL_CR14;
    this.#storePsw();
    this.#storeControlRegisters();
  }

  /** KVM_S390_CLEAR_RESET: also general and access registers. */
  clearReset(): void {
    this.initialReset();
    const { gprs, acrs } = KVM_RUN_S390X;
    this.#vcpu.area.bytes(gprs, 128).fill(0);
    this.#vcpu.area.bytes(acrs, 64).fill(0);
  }

  /** KVM_S390_SET_INITIAL_PSW: only kvm_run; −EBUSY unless the vCPU is stopped. */
  setInitialPsw(mask: bigint, address: bigint): number {
    if (this.#vcpu.mpState !== MP_STATE.STOPPED) return -ERRNO.EBUSY;
    this.#run.setBigUint64(KVM_RUN_S390X.psw_mask, mask);
    this.#run.setBigUint64(KVM_RUN_S390X.psw_addr, address);
    return 0;
  }

  /** SET_MP_STATE: from then on KVM_RUN doesn't start a stopped vCPU, and resets don't stop one. */
  setMpState(state: number): number {
    this.#vm.userSetsMpState = true;
    if (state !== MP_STATE.STOPPED && state !== MP_STATE.OPERATING) return -ERRNO.ENXIO;
    this.#vcpu.mpState = state;
    return 0;
  }
}
