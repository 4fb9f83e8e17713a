import * as ppc64 from '../../../../lib/arch/ppc64/model/index.ts';
import { bytes, type Functions, methodsOf } from './table.ts';

const headers = 'little';
const table = (): ppc64.Htab => new ppc64.Htab(18);
/** A table of a user's own kind. */
const words = (): object => ({ order: 18, vHi: () => 0, vLo: () => 0, rHi: () => 0, rLo: () => 0 });
const slb = [ppc64.vrmaSegment()];
const segment = ppc64.vrmaSegment();
const page = { vsid: 1, segmentSize: '1T', offset: 0, ra: 0x1000, valid: true } as const;
const entry = ppc64.encodeHpte(page);
const context = { ...ppc64.protectionContext() };
const options = { access: 'store', context };
const loops = { apply: () => 1, encode: () => 0 };

const MODEL: Functions = {
  hpte: [ppc64.hpte, () => ({ v: 0, r: 0 })],
  'new Hpte': [
    (...args: ConstructorParameters<typeof ppc64.Hpte>) => new ppc64.Hpte(...args),
    () => ({ vHi: 0, vLo: 0, rHi: 0, rLo: 0 }),
  ],
  encodeHpte: [
    ppc64.encodeHpte,
    () => ({
      fields: {
        ...page,
        baseShift: 12,
        shift: 16,
        pp: 2,
        key: 0,
        wimg: 2,
        noExecute: true,
        bolted: false,
        ra: 0x1_0000,
      },
    }),
  ],
  'new Htab': [
    (...args: ConstructorParameters<typeof ppc64.Htab>) => new ppc64.Htab(...args),
    () => ({ order: 18, bytes: bytes(2 ** 18) }),
  ],
  segment: [ppc64.segment, () => ({ esidWord: 0, vsidWord: 0 })],
  'new Segment': [
    (...args: ConstructorParameters<typeof ppc64.Segment>) => new ppc64.Segment(...args),
    () => ({ esidWord: 0n, vsidWord: 0n }),
  ],
  encodeSegment: [
    ppc64.encodeSegment,
    () => ({ fields: { ea: 0, vsid: 1, segmentSize: '256M', baseShift: 12, ks: true, kp: false, noExecute: false } }),
  ],
  vrmaSegment: [ppc64.vrmaSegment, () => ({ baseShift: 12 })],
  slbOfSregs: [ppc64.slbOfSregs, () => ({ sregs: bytes(1096) })],
  encodeSlb: [ppc64.encodeSlb, () => ({ sregs: bytes(1096), slb: [segment] })],
  decodeSmmuInfo: [ppc64.decodeSmmuInfo, () => ({ bytes: bytes(1000), littleEndian: true })],
  basePageShift: [ppc64.basePageShift, () => ({ vLo: 4, rLo: 0x1000 })],
  pageShift: [ppc64.pageShift, () => ({ vLo: 4, rLo: 0x1000 })],
  pageEncoding: [ppc64.pageEncoding, () => ({ baseShift: 12, shift: 16 })],
  pageSizeName: [ppc64.pageSizeName, () => ({ shift: 12 })],
};

const TRANSLATION: Functions = {
  entriesOf: [ppc64.entriesOf, () => ({ order: 18 })],
  groupsOf: [ppc64.groupsOf, () => ({ order: 18 })],
  segmentOffset: [ppc64.segmentOffset, () => ({ segmentSize: '256M', eaHi: 0, eaLo: 0 })],
  primaryGroup: [ppc64.primaryGroup, () => ({ segment, offset: 0, order: 18 })],
  otherGroup: [ppc64.otherGroup, () => ({ group: 0, order: 18 })],
  findHpte: [ppc64.findHpte, () => ({ table: words(), segment, eaHi: 0, eaLo: 0, present: 1, probe: () => {} })],
  virtualPage: [ppc64.virtualPage, () => ({ entry, slot: 0, order: 18 })],
  protectionContext: [ppc64.protectionContext, () => ({ state: { problemState: true, amr: 0, iamr: 0 } })],
  allowsRead: [ppc64.allowsRead, () => ({ pp: 0, strict: true })],
  allowsWrite: [ppc64.allowsWrite, () => ({ pp: 0, strict: true })],
  amrBits: [ppc64.amrBits, () => ({ context, key: 0 })],
  denial: [ppc64.denial, () => ({ segment, rHi: 0, rLo: 0, access: 'load', context })],
  findSegment: [ppc64.findSegment, () => ({ slb, eaHi: 0, eaLo: 0 })],
  translate: [ppc64.translate, () => ({ table: words(), slb, ea: 0, options })],
  explainTranslation: [ppc64.explainTranslation, () => ({ table: words(), slb, ea: 0, options })],
  realAddress: [ppc64.realAddress, () => ({ entry, ea: 0n })],
  'describeStep of a segment': [ppc64.describeStep, () => ({ step: { step: 'segment', segment } })],
  'describeStep of a hash': [
    ppc64.describeStep,
    () => ({ step: { step: 'hash', pageIndex: 0, primary: 1, secondary: 2 } }),
  ],
  'describeStep of a probe': [
    ppc64.describeStep,
    () => ({ step: { step: 'probe', slot: 0, entry, verdict: 'match' } }),
  ],
  'describeStep of an access': [
    ppc64.describeStep,
    () => ({ step: { step: 'access', access: 'load', denied: 'key', entry } }),
  ],
  'describeStep of a result': [
    ppc64.describeStep,
    () => ({ step: { step: 'result', result: { ok: false, fault: 'no-hpte' } } }),
  ],
};

const STREAM: Functions = {
  htabChunks: [ppc64.htabChunks, () => ({ bytes: bytes(0), format: { headers, entryCount: 8 } })],
  readHtabChunk: [ppc64.readHtabChunk, () => ({ bytes: bytes(8), offset: 0, format: { headers, entryCount: 8 } })],
  wholeHtabChunks: [ppc64.wholeHtabChunks, () => ({ bytes: bytes(8), format: { headers, entryCount: 8 } })],
  checkHtabStream: [ppc64.checkHtabStream, () => ({ bytes: bytes(0), format: { headers, entryCount: 8 } })],
  applyHtabStream: [ppc64.applyHtabStream, () => ({ table: table(), bytes: bytes(0), format: { headers, loops } })],
  decodeHtabStream: [ppc64.decodeHtabStream, () => ({ bytes: bytes(0), options: { headers, order: 18, loops } })],
  encodeHtabStream: [
    ppc64.encodeHtabStream,
    () => ({ table: table(), options: { headers, from: 0, to: 8, boltedOnly: false, loops, into: bytes(256) } }),
  ],
  encodeHtabChanges: [ppc64.encodeHtabChanges, () => ({ before: table(), after: table(), options: { headers } })],
  orderFor: [ppc64.orderFor, () => ({ entries: 16384 })],
  sameSlot: [ppc64.sameSlot, () => ({ a: table(), b: table(), slot: 0 })],
  htabStats: [ppc64.htabStats, () => ({ table: table() })],
  groupOccupancy: [ppc64.groupOccupancy, () => ({ table: table(), cells: 8 })],
  diffHtabs: [ppc64.diffHtabs, () => ({ before: table(), after: table() })],
  verifyHtab: [ppc64.verifyHtab, () => ({ table: table() })],
};

export const PPC64: Functions = {
  ...MODEL,
  ...TRANSLATION,
  ...STREAM,
  ...methodsOf('Htab', table, {
    vHi: () => ({ slot: 0 }),
    vLo: () => ({ slot: 0 }),
    rHi: () => ({ slot: 0 }),
    rLo: () => ({ slot: 0 }),
    setWords: () => ({ slot: 0, vHi: 0, vLo: 1, rHi: 2, rLo: 3 }),
    setV: () => ({ slot: 0, vHi: 0, vLo: 1 }),
    setR: () => ({ slot: 0, rHi: 2, rLo: 3 }),
    isValid: () => ({ slot: 0 }),
    get: () => ({ slot: 0 }),
    set: () => ({ slot: 0, entry: { v: 0, r: 0 } }),
    clear: () => ({ slot: 0, count: 1 }),
  }),
  ...methodsOf('Segment', () => segment, { covers: () => ({ eaHi: 0, eaLo: 0 }) }),
  ...methodsOf('HtabStreamCheck', () => new ppc64.HtabStreamCheck(), {
    add: () => ({ bytes: bytes(0), format: { headers, entryCount: 8 } }),
  }),
};
