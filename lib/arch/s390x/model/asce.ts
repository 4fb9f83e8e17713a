/** The address-space-control element: where a translation starts. */

import { toU64 } from '../../../base/arguments.ts';
import { fromHalves, highHalf, lowHalf } from './u64.ts';

/** Private-space control, in the lower half of an ASCE. */
export const ASCE_PRIVATE = 0x100;
/** Real-space control: the address is not translated. */
export const ASCE_REAL_SPACE = 0x20;

/** What an ASCE designates. */
export type DesignationType = 'real-space' | 'segment' | 'region-third' | 'region-second' | 'region-first';

const TABLE_TYPES = ['segment', 'region-third', 'region-second', 'region-first'] as const;

/** An ASCE taken apart. */
export interface Asce {
  readonly designation: DesignationType;
  /** Absolute address of the designated table, a multiple of 4096. Without meaning for a real space. */
  readonly origin: bigint;
  /** Length of the designated table in units of 512 entries, less one. */
  readonly tableLength: number;
  /** Subspace-group control (G). */
  readonly subspaceGroup: boolean;
  /** Private-space control (P): no common segments, no low-address protection, no fetch-protection override. */
  readonly privateSpace: boolean;
  /** Storage-alteration-event control (S). */
  readonly storageAlterationEvent: boolean;
  /** Space-switch-event control (X). */
  readonly spaceSwitchEvent: boolean;
}

/** Takes an ASCE apart, such as the content of CR1. */
export function decodeAsce(asce: number | bigint): Asce {
  const value = toU64(asce, 'asce');
  const lo = lowHalf(value);
  return {
    designation: (lo & ASCE_REAL_SPACE) !== 0 ? 'real-space' : TABLE_TYPES[(lo >>> 2) & 3]!,
    origin: fromHalves(highHalf(value), lo & 0xffff_f000),
    tableLength: lo & 3,
    subspaceGroup: (lo & 0x200) !== 0,
    privateSpace: (lo & ASCE_PRIVATE) !== 0,
    storageAlterationEvent: (lo & 0x80) !== 0,
    spaceSwitchEvent: (lo & 0x40) !== 0,
  };
}
