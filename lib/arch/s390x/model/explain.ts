/**
 * The translation that explains itself: the same walk, with a memory that notes what is read. So it cannot say anything
 * else than what the fast walk does.
 */

import { toU64 } from '../../../base/arguments.ts';
import { errnoName } from '../../../uapi/errno.ts';
import { decodeAsce } from './asce.ts';
import { type CpuState, checkCpu, featuresInForce } from './cpu-state.ts';
import { describeEntry, levelName, type TableLevel } from './dat-entries.ts';
import { type AbsoluteMemory, checkMemory } from './memory.ts';
import { programInterruptionName } from './program-interruption.ts';
import { addressingMode, datIsOn } from './psw.ts';
import type { ProtectionCause } from './teid.ts';
import {
  accessedSpace,
  checkTranslateOptions,
  DatTranslation,
  findAsce,
  setEffectiveAddress,
  type TranslateOptions,
  translateFirstFragment,
} from './translate.ts';
import { addressOf, fromHalves, hex64, highHalf, lowHalf } from './u64.ts';

/** A doubleword that a translation read. */
export interface TableStep {
  /** The table, or `AL` for what access-register translation reads. */
  readonly level: TableLevel | 'AL';
  /** Absolute address of the entry. */
  readonly address: bigint;
  /** The entry; absent if it couldn't be read. */
  readonly entry?: bigint;
  /** The entry in words. */
  readonly says: string;
}

/** A translation with every step it took. */
export interface ExplainedDatTranslation {
  /** 0, a program-interruption code, or a negative errno: the same as of `translate`. */
  readonly code: number;
  /** Effective address. */
  readonly address: bigint;
  /** The ASCE in use; absent with DAT off and where access-register translation failed. */
  readonly asce?: bigint;
  readonly steps: readonly TableStep[];
  /** Absolute address; absent unless `code` is 0. */
  readonly absolute?: bigint;
  /** How it ended, in a sentence. */
  readonly outcome: string;
  /** Why it ended, without the code; absent if `code` is 0. */
  readonly reason?: string;
  /** Everything as text, a line per step. */
  readonly text: string;
}

const CAUSES: Readonly<Record<ProtectionCause, string>> = {
  'low-address': 'low-address protection (CR0) forbids stores at 0 to 511 and 4096 to 4607',
  key: 'the storage key forbids the access',
  'access-list': 'the access-list entry is fetch-only',
  dat: 'a table entry on the way has the protection bit',
  'instruction-execution': 'the frame has instruction-execution protection',
};

const SPACE_REGISTERS = { primary: 'CR1', secondary: 'CR7', home: 'CR13' } as const;

/**
 * Translates as `translate` does and tells each table entry it visited, what the entry said, and why it stopped.
 * @throws RangeError ERR_OUT_OF_RANGE for an address that is no u64 and an access register that doesn't exist.
 */
export function explainTranslation(
  cpu: CpuState,
  memory: AbsoluteMemory,
  address: number | bigint,
  options: TranslateOptions = {},
): ExplainedDatTranslation {
  const wide = toU64(address, 'address');
  const { access, ar } = checkTranslateOptions(options);
  checkCpu(cpu);
  const noted = new NotingMemory(checkMemory(memory));
  const translation = new DatTranslation();
  setEffectiveAddress(cpu, highHalf(wide), lowHalf(wide), translation);
  const { addressHi, addressLo } = translation;

  const selected = findAsce(cpu, noted, access, ar, translation);
  const steps = noted.reads.map((read): TableStep => step('AL', read, 'access-register translation'));
  noted.reads.length = 0;
  const code = selected || translateFirstFragment(cpu, noted, addressHi, addressLo, access, translation);
  const features = featuresInForce(cpu);
  noted.reads.forEach((read, i) => {
    const level = levelName(((translation.asceLo >>> 2) & 3) - i);
    steps.push(step(level, read, describeEntry(level, read.entry, features)));
  });

  const effective = fromHalves(addressHi, addressLo);
  const asce =
    selected === 0 && datIsOn(cpu.pswMaskHi) ? fromHalves(translation.asceHi, translation.asceLo) : undefined;
  const reason = code === 0 ? undefined : describeFailure(selected !== 0, translation);
  const outcome = reason === undefined ? describeSuccess(translation) : `${codeName(code)}: ${reason}`;
  const space = describeSpace(cpu, accessedSpace(cpu, access), ar, asce);
  const lines = [
    `${access} at ${hex64(wide)}: effective address ${hex64(effective)} (${addressingMode(cpu.pswMaskHi, cpu.pswMaskLo)}-bit)`,
    space,
    ...steps.map(
      (s) => `${s.level.padEnd(2)} ${hex64(s.address)}: ${s.entry === undefined ? '' : `${hex64(s.entry)} `}${s.says}`,
    ),
    outcome,
  ];
  return {
    code,
    address: effective,
    ...(asce === undefined ? {} : { asce }),
    steps,
    ...(code === 0 ? { absolute: addressOf(translation.pfn, addressLo & 0xfff) } : {}),
    outcome,
    ...(reason === undefined ? {} : { reason }),
    text: lines.join('\n'),
  };
}

interface NotedRead {
  readonly address: bigint;
  readonly failure: number;
  readonly entry: bigint;
}

/** Passes reads on and notes them. */
class NotingMemory implements AbsoluteMemory {
  hi = 0;
  lo = 0;
  readonly reads: NotedRead[] = [];
  readonly #memory: AbsoluteMemory;

  constructor(memory: AbsoluteMemory) {
    this.#memory = memory;
  }

  readDoubleword(pfn: number, offset: number): number {
    const failure = this.#memory.readDoubleword(pfn, offset);
    this.hi = this.#memory.hi;
    this.lo = this.#memory.lo;
    this.reads.push({ address: addressOf(pfn, offset), failure, entry: fromHalves(this.hi, this.lo) });
    return failure;
  }

  hasFrame(pfn: number): boolean {
    return this.#memory.hasFrame(pfn);
  }
}

function step(level: TableStep['level'], read: NotedRead, says: string): TableStep {
  const { address, entry, failure } = read;
  if (failure === 0) return { level, address, entry, says };
  return { level, address, says: `cannot be read: ${codeName(failure)}` };
}

function codeName(code: number): string {
  return code > 0 ? `0x${code.toString(16)} (${programInterruptionName(code)})` : errnoName(code);
}

function describeSpace(
  cpu: CpuState,
  space: ReturnType<typeof accessedSpace>,
  ar: number,
  asce: bigint | undefined,
): string {
  if (!datIsOn(cpu.pswMaskHi)) return 'DAT is off: the address is real';
  const register = space === 'access-register' ? `access register ${ar}` : SPACE_REGISTERS[space];
  if (asce === undefined) return `${space} space from ${register}: no ASCE`;
  const { designation, origin, tableLength, privateSpace } = decodeAsce(asce);
  const target =
    designation === 'real-space'
      ? 'real space: the address is not translated'
      : `${designation} table at ${hex64(origin)}, TL ${tableLength}`;
  return `${space} space from ${register}: ASCE ${hex64(asce)}, ${target}${privateSpace ? ', private' : ''}`;
}

function describeSuccess({ pfn, realPfn, addressLo, dat }: DatTranslation): string {
  const absolute = hex64(addressOf(pfn, addressLo & 0xfff));
  return `absolute ${absolute}${pfn === realPfn ? '' : ' by prefixing'}${dat.protection ? ', protected against stores' : ''}`;
}

function describeFailure(inAccessList: boolean, { pfn, protection, dat }: DatTranslation): string {
  if (protection !== undefined) return CAUSES[protection];
  if (inAccessList) return 'access-register translation ended here';
  if (dat.stop === 'mapped') return `no storage at absolute ${hex64(addressOf(pfn))}`;
  return `${dat.stop}, at ${levelName(dat.level)}`;
}
