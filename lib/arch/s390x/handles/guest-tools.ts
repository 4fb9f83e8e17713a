/** Looking at a whole guest: storage keys, memory, address spaces. */

import { checkMethods, checkObject, checkOptions, checkSize } from '../../../base/arguments.ts';
import type { U64 } from '../../../base/u64.ts';
import type { DatFacilities } from '../model/control-registers.ts';
import { type CpuState, featuresOf } from '../model/cpu-state.ts';
import type { AbsoluteMemory } from '../model/memory.ts';
import { datIsOn } from '../model/psw.ts';
import { type MappedRange, mappedRanges, type RangeOptions } from '../model/ranges.ts';
import { formatStorageKeys } from '../model/storage-key.ts';
import { accessedSpace } from '../model/translate.ts';
import { fromHalves } from '../model/u64.ts';

/** A VM with memslots and calls on its absolute storage. */
export interface DumpedVm {
  readonly memslots: Iterable<{ readonly baseGfn: number; readonly npages: number }>;
  readonly storageKeys: { getBytes(startGfn: U64, count: number): Uint8Array | null };
  readonly memOp: { readAbsolute(gaddr: U64, into: number, options: { readonly key: number }): Uint8Array };
}

/** A vCPU with its VM. */
export interface LookingVcpu {
  readonly vm: { readonly s390x: { absoluteMemory(): AbsoluteMemory } };
  readonly s390x: { cpuState(facilities?: Partial<DatFacilities>): CpuState };
}

/** A run of guest memory. */
export interface DumpedMemory {
  /** Absolute address of the first byte. */
  readonly gaddr: number;
  readonly bytes: Uint8Array;
}

export interface AddressSpaceRangesOptions extends Pick<RangeOptions, 'maxWalks' | 'signal'> {
  /** Address-space-control element; default that of the space the PSW selects. */
  readonly asce?: U64;
  /** Facilities that the guest's machine lacks; KVM doesn't tell. */
  readonly facilities?: Partial<DatFacilities>;
}

const PAGE = 4096;
/** Bytes that a dump reads at once. */
const DUMP_BYTES = 0x1_0000;

/**
 * The storage keys of all memslots as text, a line per frame, as QEMU's `dump-skeys` has it; none when nobody used keys.
 * @example for (const line of dumpStorageKeys(vm)) console.log(line); // page=000: key(6) => ACC=0, FP=0, REF=1, CH=1
 */
export function dumpStorageKeys(vm: DumpedVm): Generator<string, void> {
  return keysOf(checkVm(vm));
}

function* keysOf(vm: DumpedVm): Generator<string, void> {
  for (const { baseGfn, npages } of ascending(vm.memslots)) {
    const keys = vm.storageKeys.getBytes(baseGfn, npages);
    if (keys === null) return;
    yield* formatStorageKeys(keys, baseGfn);
  }
}

/**
 * The guest's absolute storage, all memslots in ascending order, in runs of up to 64 KiB. The guest should not run
 * meanwhile.
 * @throws ProgramInterruption 4 where the host lacks the memory of a slot
 */
export function dumpMemory(vm: DumpedVm): Generator<DumpedMemory, void> {
  return memoryOf(checkVm(vm));
}

function* memoryOf(vm: DumpedVm): Generator<DumpedMemory, void> {
  for (const { baseGfn, npages } of ascending(vm.memslots)) {
    const end = (baseGfn + npages) * PAGE;
    for (let gaddr = baseGfn * PAGE; gaddr < end; gaddr += DUMP_BYTES) {
      yield { gaddr, bytes: vm.memOp.readAbsolute(gaddr, Math.min(DUMP_BYTES, end - gaddr), { key: 0 }) };
    }
  }
}

/**
 * An address space of the guest as ranges: virtual and absolute address, frame size, protection. `formatRange` of
 * kvm-bridge/s390x makes a line of each. None with DAT off, or of a real space.
 * @throws RangeError when `maxWalks` are not enough, as of corrupt tables; the signal's reason
 * @example for (const range of addressSpaceRanges(vcpu)) console.log(formatRange(range));
 */
export function addressSpaceRanges(
  vcpu: LookingVcpu,
  options: AddressSpaceRangesOptions = {},
): Generator<MappedRange, void> {
  checkObject(checkObject(vcpu, 'vcpu').vm, 'vcpu.vm');
  checkMethods(vcpu.vm.s390x, 'vcpu.vm.s390x', ['absoluteMemory']);
  checkMethods(vcpu.s390x, 'vcpu.s390x', ['cpuState']);
  return rangesOf(vcpu, checkOptions(options, { maxWalks: true, signal: true, asce: true, facilities: true }));
}

function* rangesOf(vcpu: LookingVcpu, options: AddressSpaceRangesOptions): Generator<MappedRange, void> {
  const cpu = vcpu.s390x.cpuState(options.facilities);
  const asce = options.asce ?? currentAsce(cpu);
  if (asce === undefined) return;
  yield* mappedRanges(vcpu.vm.s390x.absoluteMemory(), asce, {
    features: featuresOf(cpu),
    prefix: cpu.prefixPfn * PAGE,
    signal: options.signal,
    ...(options.maxWalks === undefined ? {} : { maxWalks: options.maxWalks }),
  });
}

const REGISTERS = { primary: 1, secondary: 7, home: 13 } as const;

/** The ASCE of the PSW's space; of access-register mode that of the primary space, which access register 0 stands for. */
function currentAsce(cpu: CpuState): bigint | undefined {
  if (!datIsOn(cpu.pswMaskHi)) return undefined;
  const space = accessedSpace(cpu, 'fetch');
  const register = REGISTERS[space === 'access-register' ? 'primary' : space];
  return fromHalves(cpu.cr[2 * register]!, cpu.cr[2 * register + 1]!);
}

/** Checks what only a VM of s390x has. */
function checkVm(vm: DumpedVm): DumpedVm {
  checkMethods(checkObject(vm, 'vm').memslots, 'vm.memslots', [Symbol.iterator]);
  checkMethods(vm.storageKeys, 'vm.storageKeys', ['getBytes']);
  checkMethods(vm.memOp, 'vm.memOp', ['readAbsolute']);
  return vm;
}

function ascending(slots: DumpedVm['memslots']): { readonly baseGfn: number; readonly npages: number }[] {
  for (const slot of slots) {
    const { baseGfn, npages } = checkObject(slot, 'vm.memslots');
    checkSize(baseGfn, 'vm.memslots.baseGfn');
    checkSize(npages, 'vm.memslots.npages');
  }
  return [...slots].sort((a, b) => a.baseGfn - b.baseGfn);
}
