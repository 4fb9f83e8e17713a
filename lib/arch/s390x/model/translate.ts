/**
 * From a logical address to absolute storage: effective address, address space, low-address protection, DAT,
 * prefixing, protection, and whether there is storage. This is one page of an access; storage keys are judged apart
 * (storage-key.ts), since KVM judges them later.
 */

import { checkHalf, checkInstance, checkInteger, checkOptions, toU64 } from '../../../base/arguments.ts';
import { errnoName } from '../../../uapi/errno.ts';
import { fromControlRegister, translateAccessRegister } from './access-register.ts';
import { ASCE_PRIVATE, ASCE_REAL_SPACE } from './asce.ts';
import { CR0_LOW_ADDRESS_PROTECTION } from './control-registers.ts';
import { type CpuState, checkCpu, cr0Low, featuresInForce } from './cpu-state.ts';
import { DatResult, walkDatOn } from './dat.ts';
import { type AbsoluteMemory, checkMemory } from './memory.ts';
import { prefixed } from './prefix.ts';
import { PGM_ADDRESSING, PGM_PROTECTION, programInterruptionName } from './program-interruption.ts';
import {
  ADDRESS_SPACE_CONTROLS,
  type AddressSpaceControl,
  addressingMode,
  addressSpaceBits,
  datIsOn,
  effectiveHigh,
  effectiveLow,
} from './psw.ts';
import { type Access, buildTeid, checkAccess, type ProtectionCause } from './teid.ts';
import { addressOf, fromHalves, highHalf, lowHalf } from './u64.ts';

/** The state of one translation, reused from access to access so that nothing is allocated. */
export class DatTranslation {
  /** The ASCE in use, from `selectAsce`: a real-space one when DAT is off. */
  asceHi = 0;
  asceLo = 0;
  /** Effective address of the fragment translated last. */
  addressHi = 0;
  addressLo = 0;
  /** Absolute frame, after `translateFragment` returned 0. */
  pfn = 0;
  /** Real frame before prefixing; the same as `pfn` where prefixing doesn't apply. */
  realPfn = 0;
  /** After code 4: what protects. */
  protection: ProtectionCause | undefined = undefined;
  readonly dat = new DatResult();
}

/** Notes the effective address of a logical one in `out`: what the CPU makes of it in its addressing mode. */
export function setEffectiveAddress(cpu: CpuState, logicalHi: number, logicalLo: number, out: DatTranslation): void {
  const mode = addressingMode(cpu.pswMaskHi, cpu.pswMaskLo);
  out.addressHi = effectiveHigh(mode, logicalHi) >>> 0;
  out.addressLo = effectiveLow(mode, logicalLo) >>> 0;
}

/** Whether the access is in a private space, where low-address protection and fetch-protection override don't apply. */
export function inPrivateSpace(cpu: CpuState, translation: DatTranslation): boolean {
  return datIsOn(cpu.pswMaskHi) && (translation.asceLo & ASCE_PRIVATE) !== 0;
}

/** The address space of an access by the PSW: instructions come from the primary space unless it is home-space mode. */
export function accessedSpace(cpu: CpuState, access: Access): AddressSpaceControl {
  const space = ADDRESS_SPACE_CONTROLS[addressSpaceBits(cpu.pswMaskHi)]!;
  return access === 'instruction-fetch' && space !== 'home' ? 'primary' : space;
}

/**
 * Puts the ASCE of the access into `out`.
 * @param ar the access register, 0 to 15; it matters only in access-register mode.
 * @returns 0; a program-interruption code (4, 5, 0x28 to 0x2d); or the negative errno of `memory`.
 */
export function selectAsce(
  cpu: CpuState,
  memory: AbsoluteMemory,
  access: Access,
  ar: number,
  out: DatTranslation,
): number {
  checkCpu(cpu);
  checkAccess(access, 'access');
  checkAccessRegister(ar, 'ar');
  checkInstance(out, 'out', DatTranslation);
  return findAsce(cpu, checkMemory(memory), access, ar, out);
}

/** The same, of arguments that are known to be right. */
export function findAsce(
  cpu: CpuState,
  memory: AbsoluteMemory,
  access: Access,
  ar: number,
  out: DatTranslation,
): number {
  out.protection = undefined;
  if (!datIsOn(cpu.pswMaskHi)) {
    out.asceHi = 0;
    out.asceLo = ASCE_REAL_SPACE;
    return 0;
  }
  switch (accessedSpace(cpu, access)) {
    case 'primary':
      return fromControlRegister(cpu, 1, out);
    case 'secondary':
      return fromControlRegister(cpu, 7, out);
    case 'home':
      return fromControlRegister(cpu, 13, out);
    case 'access-register': {
      const code = translateAccessRegister(cpu, memory, ar, access === 'store', out);
      if (code === PGM_PROTECTION) out.protection = 'access-list';
      return code;
    }
  }
}

/**
 * Whether low-address protection forbids a store that begins at the effective address: 0 to 511 and 4096 to 4607. Only
 * the start of a page fragment is looked at, as the kernel does.
 */
export function isLowAddressProtected(
  cr0Lo: number,
  inPrivate: boolean,
  addressHi: number,
  addressLo: number,
): boolean {
  checkHalf(cr0Lo, 'cr0Lo');
  checkHalf(addressHi, 'addressHi');
  checkHalf(addressLo, 'addressLo');
  if ((cr0Lo & CR0_LOW_ADDRESS_PROTECTION) === 0 || inPrivate) return false;
  return addressHi === 0 && (addressLo & ~0x11ff) === 0;
}

/**
 * Translates the page fragment that begins at the logical address, by the ASCE that `selectAsce` found.
 * @returns 0 with `out.pfn`; a program-interruption code (4 with `out.protection`, 5, 0x10 to 0x12, 0x38 to 0x3b); or
 * the negative errno of `memory`.
 */
export function translateFragment(
  cpu: CpuState,
  memory: AbsoluteMemory,
  logicalHi: number,
  logicalLo: number,
  access: Access,
  out: DatTranslation,
): number {
  checkCpu(cpu);
  checkHalf(logicalHi, 'logicalHi');
  checkHalf(logicalLo, 'logicalLo');
  checkAccess(access, 'access');
  checkInstance(out, 'out', DatTranslation);
  return translateFirstFragment(cpu, checkMemory(memory), logicalHi, logicalLo, access, out);
}

/** The same, of arguments that are known to be right. */
export function translateFirstFragment(
  cpu: CpuState,
  memory: AbsoluteMemory,
  logicalHi: number,
  logicalLo: number,
  access: Access,
  out: DatTranslation,
): number {
  // Nothing is known of an earlier walk.
  out.dat.segment = -1;
  return translateNextFragment(cpu, memory, logicalHi, logicalLo, access, out);
}

/** The same for a later fragment of one access, during which the tables don't change. */
export function translateNextFragment(
  cpu: CpuState,
  memory: AbsoluteMemory,
  logicalHi: number,
  logicalLo: number,
  access: Access,
  out: DatTranslation,
): number {
  setEffectiveAddress(cpu, logicalHi, logicalLo, out);
  out.protection = undefined;
  const store = access === 'store';
  if (store && isLowAddressProtected(cr0Low(cpu), inPrivateSpace(cpu, out), out.addressHi, out.addressLo)) {
    out.protection = 'low-address';
    return PGM_PROTECTION;
  }
  const { dat } = out;
  const code = walkDatOn(memory, out.asceHi, out.asceLo, out.addressHi, out.addressLo, featuresInForce(cpu), dat);
  if (code !== 0) return code;
  out.realPfn = dat.pfn;
  out.pfn = dat.absolute ? dat.pfn : prefixed(dat.pfn, cpu.prefixPfn);
  if (store && dat.protection) {
    out.protection = 'dat';
    return PGM_PROTECTION;
  }
  if (access === 'instruction-fetch' && dat.iep) {
    out.protection = 'instruction-execution';
    return PGM_PROTECTION;
  }
  return memory.hasFrame(out.pfn) ? 0 : PGM_ADDRESSING;
}

/** The TEID of the failed access that `translation` describes, or `undefined` for codes that have none. */
export function teidOf(
  cpu: CpuState,
  translation: DatTranslation,
  code: number,
  access: Access,
  terminating = false,
): bigint | undefined {
  const space = accessedSpace(cpu, access);
  return buildTeid({
    code,
    address: fromHalves(translation.addressHi, translation.addressLo),
    access,
    addressSpaceBits: ADDRESS_SPACE_CONTROLS.indexOf(space),
    terminating,
    protection: translation.protection,
  });
}

/** How an address is translated, beside the CPU's own state. */
export interface TranslateOptions {
  /** Default `fetch`. */
  readonly access?: Access;
  /** Access register 0 to 15 for access-register mode; default 0, the primary space. */
  readonly ar?: number;
}

const checkAccessRegister = (ar: number, name: string): number => checkInteger(ar, name, 0, 15);

/** The options as they are meant. @throws TypeError, RangeError for an access or an access register that doesn't exist */
export function checkTranslateOptions(options: TranslateOptions): Required<TranslateOptions> {
  const { access = 'fetch', ar = 0 } = checkOptions(options, { access: true, ar: true });
  return { access: checkAccess(access, 'options.access'), ar: checkAccessRegister(ar, 'options.ar') };
}

/** An address that translates. */
export interface TranslatedAddress {
  readonly code: 0;
  /** Absolute address. */
  readonly absolute: bigint;
  /** Real address: what the page-table entry says, before prefixing. The absolute address for large frames. */
  readonly real: bigint;
  /** 4096, 1 MiB or 2 GiB. */
  readonly frameSize: number;
  /** DAT protection: a store would give 4. */
  readonly protection: boolean;
  /** Instruction-execution protection: an instruction fetch would give 4. */
  readonly iep: boolean;
}

/** An address that does not. */
export interface FailedTranslation {
  /** Program-interruption code (> 0), or the negative errno of the memory. */
  readonly code: number;
  /** The architecture's name of the code. */
  readonly name: string;
  /** Effective address. */
  readonly address: bigint;
  /** What KVM would store at real 168; absent for the codes that have none. */
  readonly teid?: bigint;
  /** For code 4. */
  readonly protection?: ProtectionCause;
}

/**
 * Translates a logical address as the CPU would for an access of one byte, keys apart. No exception is thrown for an
 * address that doesn't translate: that is one of the two results, told by `code`.
 */
export function translate(
  cpu: CpuState,
  memory: AbsoluteMemory,
  address: number | bigint,
  options: TranslateOptions = {},
): TranslatedAddress | FailedTranslation {
  const wide = toU64(address, 'address');
  const { access, ar } = checkTranslateOptions(options);
  const storage = checkMemory(memory);
  const translation = new DatTranslation();
  setEffectiveAddress(checkCpu(cpu), highHalf(wide), lowHalf(wide), translation);
  const code =
    findAsce(cpu, storage, access, ar, translation) ||
    translateFirstFragment(cpu, storage, translation.addressHi, translation.addressLo, access, translation);
  return code === 0 ? translated(translation) : failed(cpu, translation, code, access);
}

function translated(translation: DatTranslation): TranslatedAddress {
  const { dat } = translation;
  const offset = translation.addressLo & 0xfff;
  return {
    code: 0,
    absolute: addressOf(translation.pfn, offset),
    real: addressOf(translation.realPfn, offset),
    frameSize: 2 ** dat.frameShift,
    protection: dat.protection,
    iep: dat.iep,
  };
}

function failed(cpu: CpuState, translation: DatTranslation, code: number, access: Access): FailedTranslation {
  const teid = teidOf(cpu, translation, code, access);
  return {
    code,
    name: code > 0 ? programInterruptionName(code) : errnoName(code),
    address: fromHalves(translation.addressHi, translation.addressLo),
    ...(teid === undefined ? {} : { teid }),
    ...(translation.protection === undefined ? {} : { protection: translation.protection }),
  };
}
