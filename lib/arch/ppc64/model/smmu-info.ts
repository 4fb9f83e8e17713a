/** Bytes of `struct kvm_ppc_smmu_info`. */
export const SMMU_INFO_SIZE = 592;

const FLAGS = { PAGE_SIZES_REAL: 1, SEGMENTS_1T: 2, NO_HASH: 4 } as const;
/** Up to eight base page sizes, each with up to eight page sizes. */
const SEGMENTS = { AT: 16, SIZE: 72, COUNT: 8 } as const;
const PAGES = { AT: 8, SIZE: 8, COUNT: 8 } as const;

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
  if (bytes.length < SMMU_INFO_SIZE) throw new RangeError(`smmu_info has ${SMMU_INFO_SIZE} bytes: got ${bytes.length}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const u32 = (at: number): number => view.getUint32(at, littleEndian);
  const flags = Number(view.getBigUint64(0, littleEndian));
  const segments: SmmuSegment[] = [];
  for (let i = 0; i < SEGMENTS.COUNT; i++) {
    const at = SEGMENTS.AT + i * SEGMENTS.SIZE;
    if (u32(at) === 0) break;
    const pages: { shift: number; lp: number }[] = [];
    for (let j = 0; j < PAGES.COUNT; j++) {
      const page = at + PAGES.AT + j * PAGES.SIZE;
      if (u32(page) === 0) break;
      pages.push({ shift: u32(page), lp: u32(page + 4) });
    }
    segments.push({ baseShift: u32(at), sllp: u32(at + 4), pages });
  }
  return {
    pageSizesReal: (flags & FLAGS.PAGE_SIZES_REAL) !== 0,
    segments1T: (flags & FLAGS.SEGMENTS_1T) !== 0,
    noHash: (flags & FLAGS.NO_HASH) !== 0,
    slbSize: u32(8),
    dataKeys: view.getUint16(12, littleEndian),
    instrKeys: view.getUint16(14, littleEndian),
    segments,
  };
}
