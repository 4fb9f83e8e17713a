/**
 * Program-interruption codes of z/Architecture (Principles of Operation, chapter 6). KVM_S390_MEM_OP returns them as
 * positive numbers.
 */

import { checkInteger } from '../../../base/arguments.ts';

export const PGM_OPERATION = 0x01;
export const PGM_PRIVILEGED_OPERATION = 0x02;
export const PGM_PROTECTION = 0x04;
export const PGM_ADDRESSING = 0x05;
export const PGM_SPECIFICATION = 0x06;
export const PGM_SEGMENT_TRANSLATION = 0x10;
export const PGM_PAGE_TRANSLATION = 0x11;
export const PGM_TRANSLATION_SPECIFICATION = 0x12;
export const PGM_ALET_SPECIFICATION = 0x28;
export const PGM_ALEN_TRANSLATION = 0x29;
export const PGM_ALE_SEQUENCE = 0x2a;
export const PGM_ASTE_VALIDITY = 0x2b;
export const PGM_ASTE_SEQUENCE = 0x2c;
export const PGM_EXTENDED_AUTHORITY = 0x2d;
export const PGM_ASCE_TYPE = 0x38;
export const PGM_REGION_FIRST_TRANSLATION = 0x39;
export const PGM_REGION_SECOND_TRANSLATION = 0x3a;
export const PGM_REGION_THIRD_TRANSLATION = 0x3b;

const NAMES: ReadonlyMap<number, string> = new Map([
  [PGM_OPERATION, 'operation'],
  [PGM_PRIVILEGED_OPERATION, 'privileged-operation'],
  [0x03, 'execute'],
  [PGM_PROTECTION, 'protection'],
  [PGM_ADDRESSING, 'addressing'],
  [PGM_SPECIFICATION, 'specification'],
  [0x07, 'data'],
  [0x08, 'fixed-point-overflow'],
  [0x09, 'fixed-point-divide'],
  [0x0a, 'decimal-overflow'],
  [0x0b, 'decimal-divide'],
  [0x0c, 'HFP-exponent-overflow'],
  [0x0d, 'HFP-exponent-underflow'],
  [0x0e, 'HFP-significance'],
  [0x0f, 'HFP-divide'],
  [PGM_SEGMENT_TRANSLATION, 'segment-translation'],
  [PGM_PAGE_TRANSLATION, 'page-translation'],
  [PGM_TRANSLATION_SPECIFICATION, 'translation-specification'],
  [0x13, 'special-operation'],
  [0x15, 'operand'],
  [0x16, 'trace-table'],
  [0x18, 'transaction-constraint'],
  [0x1b, 'vector-processing'],
  [0x1c, 'space-switch-event'],
  [0x1d, 'HFP-square-root'],
  [0x1f, 'PC-translation-specification'],
  [0x20, 'AFX-translation'],
  [0x21, 'ASX-translation'],
  [0x22, 'LX-translation'],
  [0x23, 'EX-translation'],
  [0x24, 'primary-authority'],
  [0x25, 'secondary-authority'],
  [0x26, 'LFX-translation'],
  [0x27, 'LSX-translation'],
  [PGM_ALET_SPECIFICATION, 'ALET-specification'],
  [PGM_ALEN_TRANSLATION, 'ALEN-translation'],
  [PGM_ALE_SEQUENCE, 'ALE-sequence'],
  [PGM_ASTE_VALIDITY, 'ASTE-validity'],
  [PGM_ASTE_SEQUENCE, 'ASTE-sequence'],
  [PGM_EXTENDED_AUTHORITY, 'extended-authority'],
  [0x2e, 'LSTE-sequence'],
  [0x2f, 'ASTE-instance'],
  [0x30, 'stack-full'],
  [0x31, 'stack-empty'],
  [0x32, 'stack-specification'],
  [0x33, 'stack-type'],
  [0x34, 'stack-operation'],
  [PGM_ASCE_TYPE, 'ASCE-type'],
  [PGM_REGION_FIRST_TRANSLATION, 'region-first-translation'],
  [PGM_REGION_SECOND_TRANSLATION, 'region-second-translation'],
  [PGM_REGION_THIRD_TRANSLATION, 'region-third-translation'],
  [0x40, 'monitor-event'],
  [0x80, 'PER-event'],
  [0x119, 'crypto-operation'],
]);

/** The architecture's name of a program-interruption code, such as `segment-translation` for 0x10. */
export function programInterruptionName(code: number): string {
  checkInteger(code, 'code', 0, 0xffff);
  return NAMES.get(code) ?? `program interruption 0x${code.toString(16)}`;
}
