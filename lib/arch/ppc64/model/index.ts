/**
 * The architecture model of ppc64's hashed page table: pure functions over bytes, without a kernel.
 */
export {
  entriesOf,
  groupsOf,
  HPT_ORDER,
  type HpteWords,
  otherGroup,
  primaryGroup,
  segmentOffset,
  type VirtualPage,
  virtualPage,
} from './hash.ts';
export {
  encodeHpte,
  HPTE_SIZE,
  HPTES_PER_GROUP,
  Hpte,
  type HpteFields,
  hpte,
  R_HI,
  R_LO,
  type SegmentSize,
  V_HI,
  V_LO,
} from './hpte.ts';
export { Htab } from './htab.ts';
export { HTAB_HEADER_SIZE, HTAB_MAX_TURNS, HTAB_RUN_MAX, type HtabLoops } from './htab-loops.ts';
export {
  diffHtabs,
  groupOccupancy,
  type HtabDifference,
  type HtabFinding,
  type HtabStats,
  htabStats,
  verifyHtab,
} from './htab-report.ts';
export {
  applyHtabStream,
  checkHtabStream,
  decodeHtabStream,
  encodeHtabChanges,
  encodeHtabStream,
  FOUND_ORDER_MAX,
  type HtabChunk,
  type HtabEncodeOptions,
  HtabStreamCheck,
  HtabStreamError,
  type HtabStreamFormat,
  type HtabStreamProblem,
  type HtabStreamSummary,
  htabChunks,
  orderFor,
  readHtabChunk,
  sameSlot,
  wholeHtabChunks,
} from './htab-stream.ts';
export {
  basePageShift,
  PAGE_ENCODINGS,
  type PageEncoding,
  pageEncoding,
  pageShift,
  pageSizeName,
  SLB_PAGE_ENCODINGS,
} from './page-sizes.ts';
export {
  type AccessKind,
  allowsRead,
  allowsWrite,
  amrBits,
  type Denial,
  denial,
  type ProtectionContext,
  protectionContext,
} from './protection.ts';
export { findHpte, NOT_FOUND } from './search.ts';
export {
  encodeSegment,
  encodeSlb,
  Segment,
  type SegmentFields,
  segment,
  slbOfSregs,
  VRMA_VSID,
  vrmaSegment,
} from './slb.ts';
export { decodeSmmuInfo, type SmmuInfo, type SmmuSegment } from './smmu-info.ts';
export {
  describeStep,
  explainTranslation,
  findSegment,
  type HashTranslation,
  type NotTranslated,
  type ProbeVerdict,
  realAddress,
  Translated,
  type TranslateOptions,
  type TranslationFault,
  type TranslationStep,
  translate,
} from './translate.ts';
