/**
 * Makes the reduced copy of a complete s390x capture:
 *
 *     npx tsc -p tsconfig.out.json && node out/test/captures/reduce-s390x.js COMPLETE_DIRECTORY REDUCED_DIRECTORY
 *
 * Kept whole are the frames that a walk reads as tables. Of other frames only the bytes stay that an oracle entry
 * reports; the rest of such a frame is zero. Symbols and the guest's log go.
 */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { type AbsoluteMemory, featuresOf, mappedFrames, translate } from '../../lib/arch/s390x/model/index.ts';
import { type Capture, loadCapture, oracleCpu } from './s390x.ts';

const ACCESS = { read: 'fetch', write: 'store', fetch: 'instruction-fetch' } as const;

/** Frames that the walks of every space and every oracle entry read. */
function tableFrames(capture: Capture): Set<number> {
  const tables = new Set<number>();
  const noting: AbsoluteMemory = {
    hi: 0,
    lo: 0,
    readDoubleword(pfn, offset) {
      tables.add(pfn);
      const failure = capture.storage.readDoubleword(pfn, offset);
      this.hi = capture.storage.hi;
      this.lo = capture.storage.lo;
      return failure;
    },
    hasFrame: (pfn) => capture.storage.hasFrame(pfn),
  };
  for (const { asce } of capture.json.asces) {
    const features = featuresOf(oracleCpu(capture, 0, asce, 'read'));
    for (const _ of mappedFrames(noting, BigInt(asce), { features }));
  }
  for (const entry of capture.json.oracle) {
    const cpu = oracleCpu(capture, entry.cpu, entry.asce, entry.access);
    translate(cpu, noting, BigInt(entry.va), { access: ACCESS[entry.access] });
  }
  return tables;
}

/** The bytes that oracle entries report, in frames that are otherwise zero. */
function reportedBytes(capture: Capture): Map<number, Uint8Array> {
  const kept = new Map<number, Uint8Array>();
  for (const { result, bytes, text } of capture.json.oracle) {
    if (result.abs === undefined || bytes === undefined) continue;
    const pfn = Number(BigInt(result.abs) >> 12n);
    const offset = Number(BigInt(result.abs) & 0xfffn);
    const frame = kept.get(pfn) ?? new Uint8Array(4096);
    kept.set(pfn, frame);
    const end = offset + Math.max(bytes.length / 2, text?.length ?? 0);
    frame.set(capture.frames.get(pfn)!.subarray(offset, end), offset);
  }
  return kept;
}

const [complete, reduced] = process.argv.slice(2);
if (complete === undefined || reduced === undefined) throw new Error('usage: reduce-s390x COMPLETE REDUCED');
const capture = loadCapture(complete);
const kept = reportedBytes(capture);
for (const pfn of tableFrames(capture)) {
  const frame = capture.frames.get(pfn);
  if (frame !== undefined) kept.set(pfn, frame);
}
const records = [...kept].sort(([a], [b]) => a - b).map(([pfn, frame]) => {
  const address = Buffer.alloc(8);
  address.writeBigUInt64BE(BigInt(pfn) << 12n);
  return Buffer.concat([address, frame]);
});
const dropped = new Set(['symbols', 'guest_log']);
const json = JSON.stringify(capture.json, (key, value: unknown) => (dropped.has(key) ? undefined : value));
mkdirSync(reduced, { recursive: true });
writeFileSync(join(reduced, 'capture.json.gz'), gzipSync(json, { level: 9 }));
writeFileSync(join(reduced, 'pages.bin.gz'), gzipSync(Buffer.concat(records), { level: 9 }));
writeFileSync(join(reduced, 'skeys.bin.gz'), gzipSync(capture.keys, { level: 9 }));
console.log(`${records.length} of ${capture.frames.size} frames kept`);
