/** Flags of `struct kvm_ppc_smmu_info`: pages must be real in the host; segments of 1 TiB exist. */
const REAL = 1n;
const SEGMENTS_1T = 2n;

const SLB_SIZE = 32;
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
  const info = new Uint8Array(592);
  const view = new DataView(info.buffer);
  view.setBigUint64(0, REAL | SEGMENTS_1T, true);
  view.setUint32(8, SLB_SIZE, true);
  view.setUint16(12, STORAGE_KEYS, true);
  view.setUint16(14, STORAGE_KEYS, true);
  SEGMENTS.forEach(([shift, sllp, pages], i) => {
    const at = 16 + i * 72;
    view.setUint32(at, shift, true);
    view.setUint32(at + 4, sllp, true);
    pages.forEach(([pageShift, lp], j) => {
      view.setUint32(at + 8 + j * 8, pageShift, true);
      view.setUint32(at + 12 + j * 8, lp, true);
    });
  });
  return info;
}
