import * as s390x from '../../../../lib/arch/s390x/model/index.ts';
import { addressSpaceRanges, dumpMemory, dumpStorageKeys } from '../../../../lib/index.ts';
import { bytes, type Functions } from './table.ts';

const memory = (): object => ({ hi: 0, lo: 0, readDoubleword: () => 5, hasFrame: () => true });
const cpu = (): object => ({ ...s390x.cpuState({ cr: { 1: 0x1003 } }) });
const facilities = { edat1: true, edat2: false, iep: true };
const key = 0x30;

/** Absolute storage in which a segment table of 512 entries maps two segments. */
function tables(): s390x.AbsoluteMemory {
  const storage = new DataView(new ArrayBuffer(0x10_0000));
  for (let i = 0; i < 512; i++) storage.setBigUint64(0x8000 + 8 * i, i < 2 ? 0xc000n : 0x20n);
  for (let i = 0; i < 256; i++) storage.setBigUint64(0xc000 + 8 * i, BigInt(i) << 12n);
  return s390x.memoryOfBytes(new Uint8Array(storage.buffer));
}

const range = { va: 0n, length: 4096n, absolute: 0n, frameSize: 4096, protection: false, iep: false };
const looking = (): object => ({
  vm: { s390x: { absoluteMemory: tables } },
  s390x: { cpuState: () => s390x.cpuState({ cr: { 1: 0x8000 } }) },
});

export const S390X: Functions = {
  decodeAsce: [s390x.decodeAsce, () => ({ asce: 0 })],
  cpuState: [
    s390x.cpuState,
    () => ({ init: { pswMask: 0, prefix: 0, cr: { 1: 1 }, ar: { 1: 1 }, facilities: { edat1: true } } }),
  ],
  'cpuState: cr': [(cr: never) => s390x.cpuState({ cr }), () => ({ cr: { 1: 1, 13: 1n } })],
  'cpuState: ar': [(ar: never) => s390x.cpuState({ ar }), () => ({ ar: { 1: 1 } })],
  featuresOf: [s390x.featuresOf, () => ({ cpu: cpu() })],
  datFeatures: [s390x.datFeatures, () => ({ cr0Lo: 0x80_0000, facilities })],
  memoryOfBytes: [s390x.memoryOfBytes, () => ({ bytes: bytes(4096) })],
  memoryOfFrames: [s390x.memoryOfFrames, () => ({ frame: () => undefined })],
  'memoryOfFrames: what frame returns': [
    (frame: never) => s390x.memoryOfFrames(() => frame).readDoubleword(0, 0),
    () => ({ frame: bytes(4096) }),
  ],
  decodePswMask: [s390x.decodePswMask, () => ({ mask: 0 })],
  effectiveAddress: [s390x.effectiveAddress, () => ({ pswMask: 0, address: 0 })],
  decodeStorageKey: [s390x.decodeStorageKey, () => ({ key })],
  encodeStorageKey: [
    (given: never) => s390x.encodeStorageKey(given),
    () => ({ key: { acc: 0, fetchProtection: false, reference: false, change: false } }),
  ],
  formatStorageKeys: [s390x.formatStorageKeys, () => ({ keys: bytes(2), firstGfn: 0 })],
  keyPermits: [s390x.keyPermits, () => ({ accessKey: 1, storageKey: key, store: true })],
  storageOverridePermits: [s390x.storageOverridePermits, () => ({ cr0Lo: 0x100_0000, storageKey: key })],
  fetchOverridePermits: [
    s390x.fetchOverridePermits,
    () => ({ cr0Lo: 0x200_0000, inPrivateSpace: false, addressHi: 0, addressLo: 0, length: 8 }),
  ],
  isLowAddressProtected: [
    s390x.isLowAddressProtected,
    () => ({ cr0Lo: 0x1000_0000, inPrivate: false, addressHi: 0, addressLo: 0 }),
  ],
  decodeTeid: [s390x.decodeTeid, () => ({ teid: 0n })],
  buildTeid: [
    s390x.buildTeid,
    () => ({
      parts: { code: 4, address: 0n, access: 'store', addressSpaceBits: 0, protection: 'dat', terminating: false },
    }),
  ],
  describeEntry: [s390x.describeEntry, () => ({ level: 'R3', entry: 0n, features: 7 })],
  programInterruptionName: [s390x.programInterruptionName, () => ({ code: 4 })],
  realToAbsolutePfn: [s390x.realToAbsolutePfn, () => ({ realPfn: 0, prefixPfn: 2 })],
  translate: [
    s390x.translate,
    () => ({ cpu: cpu(), memory: memory(), address: 0, options: { access: 'fetch', ar: 0 } }),
  ],
  'translate: what memory answers': [
    (answer: never, hi: never, lo: never) =>
      s390x.translate(s390x.cpuState(), { hi, lo, readDoubleword: () => answer, hasFrame: () => true }, 0),
    () => ({ readDoubleword: 0, hi: 0, lo: 0 }),
  ],
  explainTranslation: [
    s390x.explainTranslation,
    () => ({ cpu: cpu(), memory: memory(), address: 0, options: { access: 'fetch', ar: 0 } }),
  ],
  selectAsce: [
    s390x.selectAsce,
    () => ({ cpu: cpu(), memory: memory(), access: 'fetch', ar: 0, out: new s390x.DatTranslation() }),
  ],
  translateFragment: [
    s390x.translateFragment,
    () => ({
      cpu: cpu(),
      memory: memory(),
      logicalHi: 0,
      logicalLo: 0,
      access: 'fetch',
      out: new s390x.DatTranslation(),
    }),
  ],
  walkDat: [
    s390x.walkDat,
    () => ({ memory: memory(), asceHi: 0, asceLo: 3, vaHi: 0, vaLo: 0, features: 7, out: new s390x.DatResult() }),
  ],
  mappedFrames: [
    s390x.mappedFrames,
    () => ({
      memory: tables(),
      asce: 0x8000,
      options: { features: 7, prefix: 0, maxWalks: 1e6, signal: new AbortController().signal },
    }),
  ],
  mappedRanges: [
    s390x.mappedRanges,
    () => ({
      memory: tables(),
      asce: 0x8000,
      options: { features: 7, prefix: 0, maxWalks: 1e6, signal: new AbortController().signal },
    }),
  ],
  formatRange: [s390x.formatRange, () => ({ range })],
  dumpMemory: [
    dumpMemory,
    () => ({ vm: { memslots: [], storageKeys: { getBytes: () => null }, memOp: { readAbsolute: () => bytes(0) } } }),
  ],
  dumpStorageKeys: [
    dumpStorageKeys,
    () => ({ vm: { memslots: [], storageKeys: { getBytes: () => null }, memOp: { readAbsolute: () => bytes(0) } } }),
  ],
  addressSpaceRanges: [
    addressSpaceRanges,
    () => ({
      vcpu: looking(),
      options: { asce: 0x8000, maxWalks: 1e6, signal: new AbortController().signal, facilities },
    }),
  ],
};
