/** What `translate` gives for an address that has no translation: exactly that, and no more. */

import { expect, it } from 'vitest';
import {
  cpuState,
  DatTranslation,
  selectAsce,
  translate,
  translateFragment,
} from '../../../../../lib/arch/s390x/model/index.ts';
import { CR0, FRAME, fiveLevels, PAGES, R1, VA, withEntry } from './five-levels.ts';

const cpu = cpuState({ cr: { 0: CR0, 1: R1 | 0xfn } });

it('a code without a TEID and without a cause has neither', () => {
  expect(
    translate(
      cpu,
      withEntry(PAGES + 8n, () => 0x7000_0000n),
      VA,
    ),
  ).toStrictEqual({
    code: 5,
    name: 'addressing',
    address: VA,
  });
  const storage = fiveLevels();
  storage.unreadable.add(R1);
  expect(translate(cpu, storage, VA)).toStrictEqual({ code: -14, name: 'EFAULT', address: VA });
});

it('a translation exception has a TEID, a protection exception its cause, too', () => {
  expect(
    translate(
      cpu,
      withEntry(PAGES + 8n, () => 0x400n),
      VA,
    ),
  ).toStrictEqual({
    code: 0x11,
    name: 'page-translation',
    address: VA,
    teid: (VA & ~0xfffn) | 0x800n,
  });
  expect(
    translate(
      cpu,
      withEntry(PAGES + 8n, () => 0x1200n),
      VA,
      { access: 'store' },
    ),
  ).toStrictEqual({
    code: 4,
    name: 'protection',
    address: VA,
    teid: (VA & ~0xfffn) | 0x404n,
    protection: 'dat',
  });
});

it('in two steps it is the same', () => {
  const out = new DatTranslation();
  expect(selectAsce(cpu, fiveLevels(), 'fetch', 0, out)).toBe(0);
  expect([out.asceHi, out.asceLo]).toEqual([0, Number(R1 | 0xfn)]);
  const [hi, lo] = [Number(VA >> 32n), Number(VA & 0xffff_ffffn)];
  expect(translateFragment(cpu, fiveLevels(), hi, lo, 'fetch', out)).toBe(0);
  expect(out).toMatchObject({ pfn: Number(FRAME >> 12n), realPfn: Number(FRAME >> 12n), addressHi: hi, addressLo: lo });
  expect(
    translateFragment(
      cpu,
      withEntry(PAGES + 8n, () => 0x400n),
      hi,
      lo,
      'fetch',
      out,
    ),
  ).toBe(0x11);
});
