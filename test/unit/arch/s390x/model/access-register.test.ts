/** What of access-register translation the order of its checks does not show: each read may fail, each bit of authority counts. */

import { describe, expect, it } from 'vitest';
import {
  type Access,
  type CpuStateInit,
  cpuState,
  DatTranslation,
  selectAsce,
} from '../../../../../lib/arch/s390x/model/index.ts';
import { ALE, ALET, ASTE, AUTHORITY, accessList, DUCT, EAX, SPACE } from './access-list.ts';
import type { Storage } from './storage.ts';

const ACCESS_REGISTER_MODE = 0x0400_4001_8000_0000n;
const PRIVATE = 0x0100_0000n << 32n;

/** The code, and the ASCE where that is 0. */
function select(storage: Storage, init: CpuStateInit = {}, ar = 3, access: Access = 'fetch') {
  const cpu = cpuState({
    pswMask: ACCESS_REGISTER_MODE,
    ...init,
    cr: { 2: DUCT, 8: EAX << 16n, ...init.cr },
    ar: { 3: ALET, ...init.ar },
  });
  const out = new DatTranslation();
  const code = selectAsce(cpu, storage, access, ar, out);
  return { code, asce: (BigInt(out.asceHi) << 32n) | BigInt(out.asceLo), protection: out.protection };
}

const found = (asce: bigint) => ({ code: 0, asce, protection: undefined });

it('whatever access register 0 holds, it is the primary space', () => {
  const cr = { 1: 0x1_2345_6789_a000n, 7: 0x20 };
  for (const content of [0, 1, ALET]) {
    expect(select(accessList(), { cr, ar: { 0: content } }, 0)).toEqual(found(0x1_2345_6789_a000n));
  }
});

it('ALET 0 is the primary space, ALET 1 the secondary one, with all 64 bits of their ASCEs', () => {
  const cr = { 1: 0x1111_2222_3333_4000n, 7: 0xaaaa_bbbb_cccc_d000n };
  expect(select(accessList(), { cr, ar: { 3: 0 } })).toEqual(found(0x1111_2222_3333_4000n));
  expect(select(accessList(), { cr, ar: { 3: 1 } })).toEqual(found(0xaaaa_bbbb_cccc_d000n));
});

it('the ASCE of the ASTE has 64 bits', () => {
  const storage = accessList();
  storage.put(ASTE + 8n, 0x1234_5678_9abc_def3n);
  expect(select(storage)).toEqual(found(0x1234_5678_9abc_def3n));
});

it.each<[string, bigint]>([
  ['the designation of the list', DUCT + 16n],
  ['the first half of the entry', ALE],
  ['the second half of the entry', ALE + 8n],
  ['the authority of the ASTE', ASTE],
  ['the sequence of the ASTE', ASTE + 16n],
  ['the authority table', AUTHORITY + 0x48n],
  ['the ASCE', ASTE + 8n],
])('the host cannot read %s', (_, address) => {
  const storage = accessList();
  storage.put(ALE, storage.get(ALE) | PRIVATE);
  // EAX is 0x123: the last of the four entries in byte 0x48.
  storage.put(AUTHORITY + 0x48n, 0x01n << 56n);
  expect(select(storage)).toEqual(found(SPACE));
  storage.unreadableDoublewords.add(address);
  expect(select(storage).code).toBe(-14);
});

it('forbids stores through a fetch-only entry, and only through that', () => {
  const storage = accessList();
  expect(select(storage, {}, 3, 'store')).toEqual(found(SPACE));
  storage.put(ALE, storage.get(ALE) | (0x0200_0000n << 32n));
  expect(select(storage)).toEqual(found(SPACE));
  expect(select(storage, {}, 3, 'store')).toMatchObject({ code: 4, protection: 'access-list' });
});

it('names the access list as the cause of code 4 alone', () => {
  expect(select(accessList(), { ar: { 3: 0x0200_0009 } })).toMatchObject({ code: 0x28, protection: undefined });
});

describe('an extended authorization index', () => {
  // An authority-table entry is two bits, four of them are a byte: the left one is for primary, the right one for secondary.
  const bitOf = (eax: bigint): bigint => 2n * eax + 1n;

  it.each([0n, 1n, 2n, 3n, 4n, 7n, 13n, 16n, 19n, 22n, 27n, 31n])(
    '%s has its own bit of the authority table',
    (eax) => {
      const storage = accessList();
      storage.put(ALE, storage.get(ALE) | PRIVATE | (0xffffn << 32n));
      const cr = { 8: eax << 16n };
      const own = 1n << (63n - bitOf(eax));
      expect(select(storage, { cr }).code).toBe(0x2d);
      storage.put(AUTHORITY, own);
      expect(select(storage, { cr }).code).toBe(0);
      storage.put(AUTHORITY, ~own);
      expect(select(storage, { cr }).code).toBe(0x2d);
    },
  );
});
