import {
  checkBoolean,
  checkHalf,
  checkInstance,
  checkInteger,
  checkObject,
  checkOneOf,
  checkOptions,
  toU64,
} from '../../../base/arguments.ts';
import { highHalf, lowHalf } from '../../../base/u64.ts';
import { keyOf, ppOf, R_LO } from './hpte.ts';
import { Segment } from './slb.ts';

export type AccessKind = (typeof ACCESS_KINDS)[number];
const ACCESS_KINDS = ['load', 'store', 'fetch'] as const;

export const checkAccessKind = (access: AccessKind, name: string): AccessKind => checkOneOf(access, name, ACCESS_KINDS);

/** What of the processor's state decides whether an access may use an entry. Made by {@link protectionContext}. */
export interface ProtectionContext {
  /** MSR[PR]: Kp of the segment counts instead of Ks. */
  readonly problemState: boolean;
  readonly amrHi: number;
  readonly amrLo: number;
  readonly iamrHi: number;
  readonly iamrLo: number;
}

/**
 * A context from MSR[PR] and the authority mask registers; 0 (the default) denies nothing.
 * @throws RangeError when a register isn't a u64.
 */
export function protectionContext(
  state: { readonly problemState?: boolean; readonly amr?: number | bigint; readonly iamr?: number | bigint } = {},
): ProtectionContext {
  const { problemState = false } = checkOptions(state, { problemState: true, amr: true, iamr: true }, 'state');
  const amr = toU64(state.amr ?? 0, 'state.amr');
  const iamr = toU64(state.iamr ?? 0, 'state.iamr');
  return {
    problemState: checkBoolean(problemState, 'state.problemState'),
    amrHi: highHalf(amr),
    amrLo: lowHalf(amr),
    iamrHi: highHalf(iamr),
    iamrLo: lowHalf(iamr),
  };
}

/** Checks a context that a user may have made without {@link protectionContext}. */
export function checkContext(context: ProtectionContext, name: string): ProtectionContext {
  const { problemState, amrHi, amrLo, iamrHi, iamrLo } = checkObject(context, name);
  checkBoolean(problemState, `${name}.problemState`);
  for (const [half, value] of Object.entries({ amrHi, amrLo, iamrHi, iamrLo })) checkHalf(value, `${name}.${half}`);
  return context;
}

/** The two bits of a key in AMR or IAMR, whose key 0 is the leftmost pair. */
function keyBits(hi: number, lo: number, key: number): number {
  return key < 16 ? (hi >>> (30 - 2 * key)) & 3 : (lo >>> (62 - 2 * key)) & 3;
}

/** What AMR (bit 0: no loads, bit 1: no stores) says of a key. */
export function amrBits(context: ProtectionContext, key: number): number {
  const { amrHi, amrLo } = checkContext(context, 'context');
  return keyBits(amrHi, amrLo, checkInteger(key, 'key', 0, 31));
}

/** Why an access is denied: N or G (fetches), PP with Ks/Kp, or AMR/IAMR with the entry's storage key. */
export type Denial = 'no-execute' | 'protection' | 'key';

/** Whether PP (PP0 as 4) allows loads and fetches: always with the segment's key clear, for 1 to 3 with it set. */
export const allowsRead = (pp: number, strict: boolean): boolean => mayRead(checkPp(pp), strict);
const mayRead = (pp: number, strict: boolean): boolean => !strict || (pp >= 1 && pp <= 3);
const checkPp = (pp: number): number => checkInteger(pp, 'pp', 0, 7);

/** Whether PP allows stores: for 0 to 2 with the segment's key clear, for 2 with it set. */
export const allowsWrite = (pp: number, strict: boolean): boolean => mayWrite(checkPp(pp), strict);
const mayWrite = (pp: number, strict: boolean): boolean => (strict ? pp === 2 : pp <= 2);

/**
 * Why an access through an entry with these halves of R is denied; undefined when it is allowed. Checked in the
 * order of KVM's fault handler: N and G, then PP, then the storage key.
 */
export function denial(
  segment: Segment,
  rHi: number,
  rLo: number,
  access: AccessKind,
  context: ProtectionContext,
): Denial | undefined {
  checkInstance(segment, 'segment', Segment);
  checkHalf(rHi, 'rHi');
  checkHalf(rLo, 'rLo');
  checkAccessKind(access, 'access');
  return denialOf(segment, rHi, rLo, access, checkContext(context, 'context'));
}

/** The same, of arguments that are known to be right. */
export function denialOf(
  segment: Segment,
  rHi: number,
  rLo: number,
  access: AccessKind,
  context: ProtectionContext,
): Denial | undefined {
  const strict = context.problemState ? segment.kp : segment.ks;
  const pp = ppOf(rHi, rLo);
  if (access === 'fetch') {
    if (segment.noExecute || (rLo & (R_LO.N | R_LO.G)) !== 0) return 'no-execute';
    if (!mayRead(pp, strict)) return 'protection';
    return (keyBits(context.iamrHi, context.iamrLo, keyOf(rHi, rLo)) & 1) !== 0 ? 'key' : undefined;
  }
  const store = access === 'store';
  if (store ? !mayWrite(pp, strict) : !mayRead(pp, strict)) return 'protection';
  return (keyBits(context.amrHi, context.amrLo, keyOf(rHi, rLo)) & (store ? 2 : 1)) !== 0 ? 'key' : undefined;
}
