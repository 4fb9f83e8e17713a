/**
 * The translation-exception identification: what the CPU (and KVM with INJECT) stores at real address 168 about a
 * failed access.
 */

import { checkBigU64, checkInteger, checkObject, checkOneOf } from '../../../base/arguments.ts';
import {
  PGM_ASCE_TYPE,
  PGM_PAGE_TRANSLATION,
  PGM_PROTECTION,
  PGM_REGION_FIRST_TRANSLATION,
  PGM_REGION_SECOND_TRANSLATION,
  PGM_REGION_THIRD_TRANSLATION,
  PGM_SEGMENT_TRANSLATION,
} from './program-interruption.ts';
import { ADDRESS_SPACE_CONTROLS, type AddressSpaceControl } from './psw.ts';

/** How storage is accessed. KVM_S390_MEM_OP only fetches and stores. */
export type Access = (typeof ACCESSES)[number];
const ACCESSES = ['fetch', 'store', 'instruction-fetch'] as const;

export const checkAccess = (access: Access, name: string): Access => checkOneOf(access, name, ACCESSES);

/** What caused a protection exception (code 4). */
export type ProtectionCause = 'low-address' | 'key' | 'access-list' | 'dat' | 'instruction-execution';

/** Bits 56, 60 and 61 of the TEID by the cause of a protection exception. */
const PROTECTION_BITS: Readonly<Record<ProtectionCause, bigint>> = {
  'low-address': 0x80n,
  key: 0x08n,
  'access-list': 0x0cn,
  dat: 0x04n,
  'instruction-execution': 0x84n,
};

const CODES_WITH_TEID: ReadonlySet<number> = new Set([
  PGM_PROTECTION,
  PGM_SEGMENT_TRANSLATION,
  PGM_PAGE_TRANSLATION,
  PGM_ASCE_TYPE,
  PGM_REGION_FIRST_TRANSLATION,
  PGM_REGION_SECOND_TRANSLATION,
  PGM_REGION_THIRD_TRANSLATION,
]);

/** A TEID taken apart. */
export interface Teid {
  /** Failing address, a multiple of 4096. */
  readonly address: bigint;
  readonly access: 'fetch' | 'store' | 'unknown';
  readonly addressSpace: AddressSpaceControl;
  /** For a protection exception: its cause; absent where the bits name none (an exception marked as terminating). */
  readonly protection?: ProtectionCause;
}

/** What a TEID is made from. */
export interface TeidParts {
  readonly code: number;
  /** Failing effective address. */
  readonly address: bigint;
  readonly access: Access;
  /** Address-space control of the PSW, 0 to 3: an index of `ADDRESS_SPACE_CONTROLS`. */
  readonly addressSpaceBits: number;
  readonly protection?: ProtectionCause | undefined;
  /** The access had begun to store (a key failed on a later page): no cause is given. */
  readonly terminating?: boolean;
}

/**
 * The TEID that KVM builds, or `undefined` for the codes that have none (5, 0x12 and the access-list codes). Other
 * machines store a TEID for more codes; this is the kernel's.
 */
export function buildTeid(parts: TeidParts): bigint | undefined {
  const { code, address, access, addressSpaceBits, protection, terminating } = checkObject(parts, 'parts');
  checkInteger(code, 'parts.code', -4095, 0xffff);
  checkBigU64(address, 'parts.address');
  checkAccess(access, 'parts.access');
  checkInteger(addressSpaceBits, 'parts.addressSpaceBits', 0, 3);
  if (protection !== undefined) {
    checkOneOf(protection, 'parts.protection', Object.keys(PROTECTION_BITS) as ProtectionCause[]);
  }
  if (!CODES_WITH_TEID.has(code)) return undefined;
  const fetchStore = access === 'store' ? 0x400n : 0x800n;
  const hasCause = code === PGM_PROTECTION && protection !== undefined && terminating !== true;
  const cause = hasCause ? PROTECTION_BITS[protection] : 0n;
  return (address & ~0xfffn) | fetchStore | cause | BigInt(addressSpaceBits);
}

/** Takes a TEID apart. */
export function decodeTeid(teid: bigint): Teid {
  checkBigU64(teid, 'teid');
  const indication = teid & 0xc00n;
  const causeBits = teid & 0x8cn;
  const cause = (Object.keys(PROTECTION_BITS) as ProtectionCause[]).find((name) => PROTECTION_BITS[name] === causeBits);
  return {
    address: teid & ~0xfffn,
    access: indication === 0x400n ? 'store' : indication === 0x800n ? 'fetch' : 'unknown',
    addressSpace: ADDRESS_SPACE_CONTROLS[Number(teid & 3n)]!,
    ...(cause === undefined ? {} : { protection: cause }),
  };
}
