/** What of a CPU decides about a translation. */

import {
  checkHalf,
  checkInstance,
  checkInteger,
  checkObject,
  checkOptions,
  checkU32,
  isIntegerIn,
  toU64,
} from '../../../base/arguments.ts';
import { outOfRange } from '../../../base/errors.ts';
import type { DatFacilities } from './control-registers.ts';
import { checkFacilities, featuresOfCr0 } from './control-registers.ts';
import { PREFIX_MASK, PREFIX_PFN_MAX } from './prefix.ts';
import { highHalf, lowHalf } from './u64.ts';

/** The registers a translation reads, in halves, for walks that don't use bigint. Mutable: a vCPU owns one. */
export interface CpuState {
  pswMaskHi: number;
  pswMaskLo: number;
  /** CR0 to CR15: the upper half of CRn at 2n, the lower at 2n + 1. */
  readonly cr: Uint32Array;
  /** Access registers 0 to 15. */
  readonly ar: Uint32Array;
  /** The prefix register as a frame number (even). */
  prefixPfn: number;
  facilities: DatFacilities;
}

/** The state of a CPU as users write it. */
export interface CpuStateInit {
  /** The PSW mask; default 0x0400000180000000: DAT on, primary space, 64-bit addressing. */
  readonly pswMask?: number | bigint;
  /** Control registers by number; absent ones are 0. */
  readonly cr?: Readonly<Record<number, number | bigint>>;
  /** Access registers by number; absent ones are 0. */
  readonly ar?: Readonly<Record<number, number>>;
  /** The prefix register, a multiple of 8 KiB below 2 GiB; default 0. */
  readonly prefix?: number | bigint;
  /** Facilities of the machine; default all of them. */
  readonly facilities?: Partial<DatFacilities>;
}

const PRIMARY_64_BIT_DAT = 0x0400_0001_8000_0000n;

/**
 * A CPU state from its registers.
 * @throws RangeError ERR_OUT_OF_RANGE for a register number or value that doesn't exist.
 */
export function cpuState(init: CpuStateInit = {}): CpuState {
  checkOptions(init, { pswMask: true, cr: true, ar: true, prefix: true, facilities: true }, 'init');
  const mask = toU64(init.pswMask ?? PRIMARY_64_BIT_DAT, 'pswMask');
  const prefix = toU64(init.prefix ?? 0, 'prefix');
  if ((prefix & ~BigInt(PREFIX_MASK)) !== 0n) {
    throw outOfRange('prefix', 'a multiple of 8 KiB below 2 GiB', prefix);
  }
  const { cr = {}, ar = {}, facilities = {} } = init;
  const state: CpuState = {
    pswMaskHi: highHalf(mask),
    pswMaskLo: lowHalf(mask),
    cr: new Uint32Array(32),
    ar: new Uint32Array(16),
    prefixPfn: Number(prefix >> 12n),
    facilities: checkFacilities(facilities, 'facilities', true),
  };
  for (const [n, value] of Object.entries(checkObject(cr, 'cr'))) {
    const register = registerNumber(n, 'cr');
    const wide = toU64(value, `cr[${n}]`);
    state.cr[2 * register] = highHalf(wide);
    state.cr[2 * register + 1] = lowHalf(wide);
  }
  for (const [n, value] of Object.entries(checkObject(ar, 'ar'))) {
    state.ar[registerNumber(n, 'ar')] = checkU32(value, `ar[${n}]`);
  }
  return state;
}

function registerNumber(text: string, file: string): number {
  const n = Number(text);
  if (!isIntegerIn(n, 0, 15)) throw outOfRange(file, 'a register of 0 to 15', text);
  return n;
}

/** The lower half of CR0, which holds every bit of it that matters here. */
export const cr0Low = (cpu: CpuState): number => cpu.cr[1]!;

/** Checks the state of a CPU that a user may have made without {@link cpuState}. */
export function checkCpu(cpu: CpuState, name = 'cpu'): CpuState {
  const { pswMaskHi, pswMaskLo, cr, ar, prefixPfn, facilities } = checkObject(cpu, name);
  checkHalf(pswMaskHi, `${name}.pswMaskHi`);
  checkHalf(pswMaskLo, `${name}.pswMaskLo`);
  checkInteger(checkInstance(cr, `${name}.cr`, Uint32Array).length, `${name}.cr.length`, 32, 32);
  checkInteger(checkInstance(ar, `${name}.ar`, Uint32Array).length, `${name}.ar.length`, 16, 16);
  checkInteger(prefixPfn, `${name}.prefixPfn`, 0, PREFIX_PFN_MAX);
  checkFacilities(facilities, `${name}.facilities`);
  return cpu;
}

/** The DAT features in force on the CPU. */
export const featuresOf = (cpu: CpuState): number => featuresInForce(checkCpu(cpu));

/** The same of a CPU that was checked. */
export const featuresInForce = (cpu: CpuState): number => featuresOfCr0(cr0Low(cpu), cpu.facilities);
