import { checkBoolean, checkBytes } from '../../../base/arguments.ts';
import { outOfRange } from '../../../base/errors.ts';
import { SMMU_INFO } from '../../../uapi/flags.ts';
import { KVM_PPC_SMMU_INFO } from '../../../uapi/structs.ts';

/** A base page size that segments can have. */
export interface SmmuSegment {
  /** log2 of the base page size. */
  readonly baseShift: number;
  /** L and LP as the SLB entry has them. */
  readonly sllp: number;
  /** The page sizes that such segments can hold: log2, and LP as an entry has it from bit 12. */
  readonly pages: readonly { readonly shift: number; readonly lp: number }[];
}

/** What the host's hash MMU can do for guests (KVM_PPC_GET_SMMU_INFO). */
export interface SmmuInfo {
  /** A guest's page must not be larger than the host's pages behind it. */
  readonly pageSizesReal: boolean;
  readonly segments1T: boolean;
  /** No hash guests at all: the host is itself a guest. */
  readonly noHash: boolean;
  readonly slbSize: number;
  /** Storage keys for loads and stores, and for fetches. */
  readonly dataKeys: number;
  readonly instrKeys: number;
  readonly segments: readonly SmmuSegment[];
}

/**
 * Decodes `struct kvm_ppc_smmu_info`.
 * @throws RangeError when there are fewer than 592 bytes.
 */
export function decodeSmmuInfo(bytes: Uint8Array, littleEndian = true): SmmuInfo {
  const { structSize, maxSizes, sps, segment, page, ...at } = KVM_PPC_SMMU_INFO;
  checkBytes(bytes, 'bytes');
  checkBoolean(littleEndian, 'littleEndian');
  if (bytes.length < structSize) throw outOfRange('bytes.length', `at least ${structSize}`, bytes.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const u32 = (offset: number): number => view.getUint32(offset, littleEndian);
  const flags = Number(view.getBigUint64(at.flags, littleEndian));
  const segments: SmmuSegment[] = [];
  for (let i = 0; i < maxSizes; i++) {
    const base = sps + i * segment.structSize;
    if (u32(base + segment.page_shift) === 0) break;
    const pages: { shift: number; lp: number }[] = [];
    for (let j = 0; j < maxSizes; j++) {
      const one = base + segment.enc + j * page.structSize;
      if (u32(one + page.page_shift) === 0) break;
      pages.push({ shift: u32(one + page.page_shift), lp: u32(one + page.pte_enc) });
    }
    segments.push({ baseShift: u32(base + segment.page_shift), sllp: u32(base + segment.slb_enc), pages });
  }
  return {
    pageSizesReal: (flags & SMMU_INFO.PAGE_SIZES_REAL) !== 0,
    segments1T: (flags & SMMU_INFO['1T_SEGMENTS']) !== 0,
    noHash: (flags & SMMU_INFO.NO_HASH) !== 0,
    slbSize: u32(at.slb_size),
    dataKeys: view.getUint16(at.data_keys, littleEndian),
    instrKeys: view.getUint16(at.instr_keys, littleEndian),
    segments,
  };
}
