import type { ArchitectureCalls, KernelFiles } from '../../../emulated/architecture.ts';
import { type CapabilityValue, CommonArchitecture, commonCapabilities } from '../../../emulated/common.ts';
import { GuestFault, type GuestInstruction, type GuestResult } from '../../../emulated/guest.ts';
import type { EmulatedMemslot } from '../../../emulated/memslots.ts';
import type { Release } from '../../../emulated/release.ts';
import type { EmulatedVcpu } from '../../../emulated/vcpu.ts';
import { copyOut, type EmulatedVm } from '../../../emulated/vm.ts';
import { GET_DIRTY_LOG_RULES } from '../../../rules/dirty-log.ts';
import { slotIdOf } from '../../../rules/memslot.ts';
import { refusal } from '../../../rules/rule.ts';
import { CAP } from '../../../uapi/capabilities.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { EXIT } from '../../../uapi/flags.ts';
import { KVM_RUN } from '../../../uapi/structs.ts';
import { HTAB_FD_RULES } from '../rules.ts';
import { GuestAccess } from './guest-access.ts';
import { GuestCode } from './guest-code.ts';
import { HashMmu } from './hash-mmu.ts';
import { answerHypercall, isImplemented } from './hcalls.ts';
import { HtabFile } from './htab-file.ts';
import { INTERRUPT } from './interrupts.ts';
import { smmuInfo } from './smmu-info.ts';

const MAX_VCPUS = 2048;
const HV = 1n;
const SPR = { DSISR: 18n, DAR: 19n } as const;
/** Arguments that `kvm_run.papr_hcall` has. */
const HCALL_ARGS = 9;

/** What the architecture keeps of a vCPU. */
interface PpcVcpu {
  readonly access: GuestAccess;
  readonly code: GuestCode;
  /** ENABLE_CAP(PPC_PAPR) was done; without it HV runs no guest. */
  papr: boolean;
  /** KVM_SET_REGS was done, so that there is a PC that means something. */
  hasCode: boolean;
}

/** ppc64, Book3S HV on a little-endian POWER9 host. */
export class Ppc64Architecture extends CommonArchitecture {
  readonly arch = 'ppc64';
  readonly vcpuMmapSize: number;
  readonly hvaLimit = 0x10_0000_0000_0000n;
  override readonly irqfdWithoutIrqchip = -ERRNO.EAGAIN;
  protected readonly capabilities: ReadonlyMap<number, CapabilityValue>;
  readonly #mmus = new WeakMap<EmulatedVm, HashMmu>();
  readonly #vcpus = new WeakMap<EmulatedVcpu, PpcVcpu>();
  /** Frames of a slot that a radix guest has touched since the slot's mappings were last dropped. */
  readonly #mapped = new WeakMap<EmulatedMemslot, Set<number>>();

  constructor(release: Release, pageSize: number) {
    super(release, pageSize);
    this.vcpuMmapSize = pageSize;
    this.capabilities = new Map<number, CapabilityValue>([
      ...commonCapabilities(release),
      [CAP.NR_VCPUS, 1],
      [CAP.MAX_VCPUS, MAX_VCPUS],
      [CAP.MAX_VCPU_ID, MAX_VCPUS * 8],
      [CAP.NR_MEMSLOTS, this.userSlots],
      [CAP.MP_STATE, 0],
      [CAP.ENABLE_CAP, 1],
      [CAP.PPC_PAPR, 1],
      [CAP.PPC_ENABLE_HCALL, 1],
      [CAP.PPC_GET_SMMU_INFO, 1],
      [CAP.PPC_ALLOC_HTAB, 1],
      [CAP.PPC_HTAB_FD, 1],
      [CAP.SPAPR_RESIZE_HPT, 1],
    ]);
  }

  override checkVmType(type: bigint): number {
    return type === 0n || type === HV ? 0 : -ERRNO.EINVAL;
  }

  override vmCreated(vm: EmulatedVm): void {
    this.#mmus.set(vm, new HashMmu(vm));
  }

  /** The MMU of a VM, for whoever looks behind the calls. */
  mmu(vm: EmulatedVm): HashMmu {
    return this.#mmus.get(vm)!;
  }

  // vCPUs

  override checkVcpuId(vm: EmulatedVm, id: bigint): number {
    if (id >= BigInt(MAX_VCPUS)) return -ERRNO.EINVAL;
    return super.checkVcpuId(vm, id);
  }

  override vcpuCreated(vcpu: EmulatedVcpu): void {
    const access = new GuestAccess(vcpu, this.mmu(vcpu.vm));
    this.#vcpus.set(vcpu, { access, code: new GuestCode(vcpu, access), papr: false, hasCode: false });
  }

  override enableVcpuCap(vcpu: EmulatedVcpu, cap: number, flags: number, _args: readonly bigint[]): number {
    if (flags !== 0 || cap !== CAP.PPC_PAPR) return -ERRNO.EINVAL;
    this.#vcpus.get(vcpu)!.papr = true;
    return 0;
  }

  /** PPC_ENABLE_HCALL: whether KVM answers a hypercall itself. */
  override enableVmCap(vm: EmulatedVm, cap: number, args: readonly bigint[]): number {
    const [nr = 0n, enable = 0n] = args;
    if (cap !== CAP.PPC_ENABLE_HCALL || enable > 1n || !isImplemented(Number(nr))) return -ERRNO.EINVAL;
    const { enabledHcalls } = this.mmu(vm);
    if (enable === 1n) enabledHcalls.add(Number(nr));
    else enabledHcalls.delete(Number(nr));
    return 0;
  }

  beforeRun(vcpu: EmulatedVcpu): number {
    // Where a run fails, this is what is left.
    vcpu.area.view.setUint32(KVM_RUN.exit_reason, EXIT.UNKNOWN, true);
    if (!this.#vcpus.get(vcpu)!.papr) {
      vcpu.area.view.setUint32(KVM_RUN.exit_reason, EXIT.INTERNAL_ERROR, true);
      return -ERRNO.EINVAL;
    }
    const refused = this.mmu(vcpu.vm).setUp();
    if (refused === 0) this.#fetchNext(vcpu);
    return refused;
  }

  regsSet(vcpu: EmulatedVcpu): void {
    this.#vcpus.get(vcpu)!.hasCode = true;
  }

  /** Where KVM_SET_REGS has said where the guest's code is, the processor fetches there when KVM enters it. */
  #fetchNext(vcpu: EmulatedVcpu): void {
    const { code, hasCode } = this.#vcpus.get(vcpu)!;
    if (!hasCode) return;
    try {
      if (this.mmu(vcpu.vm).radix) this.#radixPages(vcpu.vm, Number(code.pc));
      else code.touch();
    } catch (fault) {
      if (!(fault instanceof GuestFault)) throw fault;
    }
  }

  translate(vcpu: EmulatedVcpu, address: number, _size: number, write: boolean): number {
    const { vm } = vcpu;
    if (this.mmu(vm).radix) this.#radixPages(vm, address);
    return this.#vcpus.get(vcpu)!.access.translate(address, write ? 'store' : 'load');
  }

  guestCode(vcpu: EmulatedVcpu, address: number): GuestInstruction | undefined {
    return this.#vcpus.get(vcpu)!.code.decode(address);
  }

  emulatedCode(vcpu: EmulatedVcpu, address: number, ea: number, write: boolean): GuestInstruction | undefined {
    return this.#vcpus.get(vcpu)!.code.emulation(address, ea, write);
  }

  /** What scripted guests do with registers: `li` puts a value into a general-purpose one, `mfspr` reads DSISR or DAR. */
  instruction(vcpu: EmulatedVcpu, name: string, operands: readonly bigint[]): GuestResult {
    const { access, code } = this.#vcpus.get(vcpu)!;
    const [number = 0n, value = 0n] = operands;
    if (name === 'li') return void code.setGpr(Number(number), value);
    if (name === 'mfspr' && number === SPR.DSISR) return access.dsisr;
    if (name === 'mfspr' && number === SPR.DAR) return access.dar;
    throw new GuestFault(INTERRUPT.PROGRAM, `${name} ${operands.join(', ')} is not emulated`);
  }

  hypercall(vcpu: EmulatedVcpu, nr: number, args: readonly bigint[]): readonly bigint[] | undefined {
    const registers = answerHypercall(this.mmu(vcpu.vm), nr, args);
    if (registers !== undefined) this.#fetchNext(vcpu);
    return registers;
  }

  hypercallExit(vcpu: EmulatedVcpu, nr: number, args: readonly bigint[]): () => readonly bigint[] {
    const { papr_hcall } = KVM_RUN;
    const { view } = vcpu.area;
    view.setBigUint64(papr_hcall.nr, BigInt(nr), true);
    for (let i = 0; i < HCALL_ARGS; i++) view.setBigUint64(papr_hcall.args + i * 8, args[i] ?? 0n, true);
    return () => {
      const after = vcpu.area.view;
      const registers = Array.from({ length: HCALL_ARGS }, (_, i) => after.getBigUint64(papr_hcall.args + i * 8, true));
      return [after.getBigUint64(papr_hcall.ret, true), ...registers];
    };
  }

  // Memslots and dirty pages

  /** A radix guest's first access of any kind maps the page, writable and dirty if the host's is writable. */
  #radixPages(vm: EmulatedVm, gpa: number): void {
    const gfn = Math.floor(gpa / vm.pageSize);
    const slot = vm.usableSlot(gfn);
    if (slot === undefined || !vm.memory.canAccess(vm.hostAddress(slot, gfn), true)) return;
    let mapped = this.#mapped.get(slot);
    if (mapped === undefined) {
      mapped = new Set();
      this.#mapped.set(slot, mapped);
    }
    if (mapped.has(gfn)) return;
    mapped.add(gfn);
    vm.markDirty(slot, gfn);
  }

  memslotCommitted(_vm: EmulatedVm, slot: EmulatedMemslot): void {
    // Logging begins and ends with no page mapped.
    this.#mapped.delete(slot);
  }

  memslotFlushed(vm: EmulatedVm, slot: EmulatedMemslot): void {
    this.#mapped.delete(slot);
    this.mmu(vm).hpt?.unmapMemslot(slot);
  }

  storesNotedInPageTables(vm: EmulatedVm): boolean {
    return !this.mmu(vm).radix;
  }

  getDirtyLog(vm: EmulatedVm, slotWord: number, bitmap: Uint8Array | null): number {
    const refused = refusal(GET_DIRTY_LOG_RULES, vm.dirtyLogContext(slotWord));
    if (refused !== 0) return refused;
    const slot = vm.spaces[0]!.get(slotIdOf(slotWord))!;
    this.mmu(vm).hpt?.harvestDirty(slot);
    const answer = slot.dirty!.slice();
    // Cleared before it is copied: bits that can't be delivered are lost.
    slot.dirty!.fill(0);
    return copyOut(answer, bitmap);
  }

  // The architecture's own calls

  override calls(files: KernelFiles): ArchitectureCalls {
    const onMmu = (fd: number, call: (mmu: HashMmu) => number): number => {
      const vm = files.vm(fd);
      return typeof vm === 'number' ? vm : call(this.mmu(vm));
    };
    return {
      ppc64: {
        // Known kernels crash on order 0, so neither this one nor the addon ever gets to see it.
        allocateHtab: (fd, order) => onMmu(fd, (mmu) => (order === 0 ? -ERRNO.EINVAL : mmu.allocate(order))),
        getHtabFd: (fd, flags, startIndex) =>
          onMmu(fd, (mmu) => openHtab(files, mmu, BigInt(flags), Number(startIndex))),
        resizeHptPrepare: (fd, flags, shift) => onMmu(fd, (mmu) => mmu.prepareResize(BigInt(flags), shift)),
        resizeHptCommit: (fd, flags, shift) => onMmu(fd, (mmu) => mmu.commitResize(BigInt(flags), shift)),
        getSmmuInfo: (fd, info) => onMmu(fd, () => copyOut(smmuInfo(), info)),
        configureV3Mmu: (fd, flags, table) => onMmu(fd, (mmu) => mmu.configure(BigInt(flags), BigInt(table))),
      },
    };
  }
}

function openHtab(files: KernelFiles, mmu: HashMmu, flags: bigint, startIndex: number): number {
  const refused = refusal(HTAB_FD_RULES, { flags });
  if (refused !== 0) return refused;
  const file = new HtabFile(mmu, Number(flags), startIndex);
  const fd = files.open(file);
  if (fd < 0) file.released();
  return fd;
}
