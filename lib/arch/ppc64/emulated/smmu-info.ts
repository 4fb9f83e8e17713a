import { SMMU_INFO } from '../../../uapi/flags.ts';
import { KVM_PPC_SMMU_INFO } from '../../../uapi/structs.ts';
import { SLB_SIZE } from '../model/slb.ts';

const STORAGE_KEYS = 32;

/** Base page sizes: shift, L||LP of the SLB entry, and the page sizes in such segments with their LP. */
const SEGMENTS: readonly [shift: number, sllp: number, pages: readonly [shift: number, lp: number][]][] = [
  [
    12,
    0,
    [
      [12, 0],
      [24, 0x38],
    ],
  ],
  [
    16,
    0x110,
    [
      [16, 1],
      [24, 8],
    ],
  ],
  [24, 0x100, [[24, 0]]],
];

/** What GET_SMMU_INFO fills in on a little-endian Book3S HV host since POWER8. */
export function smmuInfo(): Uint8Array {
  const { structSize, sps, segment, page, ...at } = KVM_PPC_SMMU_INFO;
  const info = new Uint8Array(structSize);
  const view = new DataView(info.buffer);
  view.setBigUint64(at.flags, BigInt(SMMU_INFO.PAGE_SIZES_REAL | SMMU_INFO['1T_SEGMENTS']), true);
  view.setUint32(at.slb_size, SLB_SIZE, true);
  view.setUint16(at.data_keys, STORAGE_KEYS, true);
  view.setUint16(at.instr_keys, STORAGE_KEYS, true);
  SEGMENTS.forEach(([shift, sllp, pages], i) => {
    const base = sps + i * segment.structSize;
    view.setUint32(base + segment.page_shift, shift, true);
    view.setUint32(base + segment.slb_enc, sllp, true);
    pages.forEach(([pageShift, lp], j) => {
      const one = base + segment.enc + j * page.structSize;
      view.setUint32(one + page.page_shift, pageShift, true);
      view.setUint32(one + page.pte_enc, lp, true);
    });
  });
  return info;
}
