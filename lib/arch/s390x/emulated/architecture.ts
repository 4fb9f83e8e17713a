import type { ArchitectureCalls, KernelFiles } from '../../../emulated/architecture.ts';
import { type CapabilityValue, CommonArchitecture, commonCapabilities } from '../../../emulated/common.ts';
import type { GuestFault, GuestResult } from '../../../emulated/guest.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import type { Release } from '../../../emulated/release.ts';
import type { EmulatedVcpu } from '../../../emulated/vcpu.ts';
import { copyOut, type EmulatedVm } from '../../../emulated/vm.ts';
import { GET_DIRTY_LOG_RULES_ONE_SPACE } from '../../../rules/dirty-log.ts';
import type { MemslotContext } from '../../../rules/memslot.ts';
import { type Rule, refusal } from '../../../rules/rule.ts';
import { CAP } from '../../../uapi/capabilities.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { MEM } from '../../../uapi/flags.ts';
import { type DatFacilities, PGM_ADDRESSING } from '../model/index.ts';
import { MEM_OP_MAX_SIZE, s390xMemslotRules } from '../rules.ts';
import { getAttribute, hasAttribute, setAttribute } from './attributes.ts';
import { s390xCalls } from './calls.ts';
import { executeInstruction } from './instructions.ts';
import { beforeRun, programInterruption, translateGuestAccess } from './run.ts';
import { S390xVcpu, setMpState } from './vcpu-state.ts';
import { S390xVm } from './vm-state.ts';

const PAGE = 4096;
/** Of a machine without SIGP interpretation, which the recordings are from; others have 248. */
const MAX_VCPUS = 255;
/** Of the machine that the recordings are from: what SCLP says of its highest guest address. */
const MEMORY_LIMIT = 1n << 47n;

/** The machine has all facilities that a translation knows. */
const FACILITIES: DatFacilities = { edat1: true, edat2: true, iep: true };

/** KVM of s390x: MEM_OP, storage keys, CMMA; no MMIO, no read-only memory, one address space. */
export class S390xArchitecture extends CommonArchitecture {
  readonly arch = 's390x';
  override readonly littleEndian = false;
  readonly vcpuMmapSize = PAGE;
  override readonly unknownVcpuRequest = -ERRNO.ENOTTY;
  override readonly userSlots: number;
  readonly hvaLimit = 0xffff_ffff_ffff_f000n;
  protected readonly capabilities: ReadonlyMap<number, CapabilityValue>;
  readonly #vms = new WeakMap<EmulatedVm, S390xVm>();
  readonly #vcpus = new WeakMap<EmulatedVcpu, S390xVcpu>();
  /** What was looked up last: calls come in runs. */
  #lastVm: EmulatedVm | undefined;
  #lastVmState: S390xVm | undefined;
  #lastVcpu: EmulatedVcpu | undefined;
  #lastVcpuState: S390xVcpu | undefined;

  constructor(release: Release) {
    super(release, PAGE);
    this.userSlots = release.since(6, 14) ? 32766 : 32767;
    this.capabilities = new Map<number, CapabilityValue>([
      ...commonCapabilities(release),
      [CAP.NR_VCPUS, 1],
      [CAP.MAX_VCPUS, MAX_VCPUS],
      [CAP.MAX_VCPU_ID, MAX_VCPUS],
      [CAP.NR_MEMSLOTS, this.userSlots],
      [CAP.MP_STATE, 1],
      [CAP.ENABLE_CAP, 1],
      [CAP.SYNC_REGS, 1],
      [CAP.IRQFD, 1],
      [CAP.S390_GMAP, 1],
      [CAP.S390_IRQCHIP, 1],
      [CAP.S390_MEM_OP, MEM_OP_MAX_SIZE],
      [CAP.S390_SKEYS, 1],
      [CAP.S390_CMMA_MIGRATION, 1],
      [CAP.S390_MEM_OP_EXTENSION, release.since(6, 3) ? 3 : release.since(5, 18) ? 1 : 0],
      [CAP.S390_KEYOP, release.since(7, 0) ? 1 : 0],
    ]);
  }

  /** What s390x keeps of a VM; made when it is first asked for, as a VM's own constructor asks. */
  vmState(vm: EmulatedVm): S390xVm {
    if (vm === this.#lastVm) return this.#lastVmState!;
    let state = this.#vms.get(vm);
    if (state === undefined) {
      state = new S390xVm(vm, MEMORY_LIMIT);
      this.#vms.set(vm, state);
    }
    this.#lastVm = vm;
    this.#lastVmState = state;
    return state;
  }

  vcpuState(vcpu: EmulatedVcpu): S390xVcpu {
    if (vcpu !== this.#lastVcpu) {
      this.#lastVcpu = vcpu;
      this.#lastVcpuState = this.#vcpus.get(vcpu);
    }
    return this.#lastVcpuState!;
  }

  override memslotRules(_vm: EmulatedVm): readonly Rule<MemslotContext>[] {
    return s390xMemslotRules(() => MEMORY_LIMIT);
  }

  memslotCommitted(vm: EmulatedVm, slot: EmulatedMemslot): void {
    // A slot that isn't logged ends migration mode, silently.
    if ((slot.flags & MEM.LOG_DIRTY_PAGES) === 0) this.vmState(vm).migrating = false;
  }

  memslotFlushed(vm: EmulatedVm, slot: EmulatedMemslot): void {
    this.vmState(vm).unlink(slot);
  }

  /** Only after the bitmap was copied is it cleared, and there are no address spaces beside 0. */
  getDirtyLog(vm: EmulatedVm, slotWord: number, bitmap: Uint8Array | null): number {
    const refused = refusal(GET_DIRTY_LOG_RULES_ONE_SPACE, vm.dirtyLogContext(slotWord));
    if (refused !== 0) return refused;
    const slot = vm.spaces[0]!.get(slotWord)!;
    this.vmState(vm).syncDirtyLog(slot);
    const { dirty } = slot;
    const copied = copyOut(dirty!, bitmap);
    if (copied === 0) dirty!.fill(0);
    return copied;
  }

  override checkVcpuId(vm: EmulatedVm, id: bigint): number {
    if (id >= BigInt(MAX_VCPUS)) return -ERRNO.EINVAL;
    return super.checkVcpuId(vm, id);
  }

  override vcpuCreated(vcpu: EmulatedVcpu): void {
    this.#vcpus.set(vcpu, new S390xVcpu(this.vmState(vcpu.vm), vcpu, FACILITIES));
  }

  registersAsked(vcpu: EmulatedVcpu): void {
    this.vcpuState(vcpu).storeRegisters();
  }

  regsSet(vcpu: EmulatedVcpu): void {
    this.vcpuState(vcpu).loadRegs();
  }

  sregsSet(vcpu: EmulatedVcpu): void {
    this.vcpuState(vcpu).loadSregs();
  }

  setMpState(vcpu: EmulatedVcpu, state: number): number {
    return setMpState(this.vmState(vcpu.vm), vcpu, state);
  }

  beforeRun(vcpu: EmulatedVcpu): number {
    return beforeRun(this.vmState(vcpu.vm), this.vcpuState(vcpu), vcpu);
  }

  translate(vcpu: EmulatedVcpu, address: number, _size: number, write: boolean): number {
    return translateGuestAccess(this.vmState(vcpu.vm), this.vcpuState(vcpu), address, write);
  }

  instruction(vcpu: EmulatedVcpu, name: string, operands: readonly bigint[]): GuestResult | 'retry' {
    return executeInstruction(this.vmState(vcpu.vm), this.vcpuState(vcpu), name, operands);
  }

  missingMemory(_vcpu: EmulatedVcpu, gpa: number): GuestFault {
    return programInterruption(PGM_ADDRESSING, gpa);
  }

  override setDeviceAttr(vm: EmulatedVm, group: number, attr: bigint, value: Uint8Array | null): number {
    return setAttribute(this.vmState(vm), group, attr, value);
  }

  override getDeviceAttr(vm: EmulatedVm, group: number, attr: bigint, value: Uint8Array | null): number {
    return getAttribute(this.vmState(vm), group, attr, value);
  }

  override hasDeviceAttr(_vm: EmulatedVm, group: number, attr: bigint): number {
    return hasAttribute(group, attr);
  }

  override calls(files: KernelFiles): ArchitectureCalls {
    return { s390x: s390xCalls(this, files) };
  }
}
