import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { type Segment, segment } from '../../../../../lib/arch/ppc64/model/index.ts';

export interface OracleEntry {
  readonly ea: string;
  readonly result: { readonly ra?: string; readonly fault?: true };
  readonly bytes?: string;
  readonly model: { readonly why: string; readonly slot?: number; readonly page_shift?: number };
}

export interface Context {
  readonly name: string;
  readonly amr: string;
  readonly iamr: string;
  readonly pr: 0 | 1;
}

export interface Counts {
  readonly valid: number;
  readonly bolted: number;
  readonly secondary: number;
  readonly seg_1T: number;
  readonly seg_256M: number;
  readonly R: number;
  readonly C: number;
  readonly noexec: number;
  readonly full_groups: number;
  readonly groups: number;
  readonly slots: number;
  readonly page_sizes: Readonly<Record<string, number>>;
  readonly wimg: Readonly<Record<string, number>>;
  readonly keys: Readonly<Record<string, number>>;
  readonly pp: Readonly<Record<string, number>>;
}

interface SlbWords {
  readonly esid: string;
  readonly vsid: string;
  readonly decoded: {
    readonly vsid: string;
    readonly segment_size: string;
    readonly base_page_shift: number;
    readonly ks: 0 | 1;
    readonly kp: 0 | 1;
    readonly n: 0 | 1;
  };
}

export interface Snapshot {
  readonly htab_shift: number;
  readonly slb: readonly SlbWords[];
  readonly contexts: readonly Context[];
  readonly oracle: readonly OracleEntry[];
  readonly oracle_protection: Readonly<Record<string, readonly Omit<OracleEntry, 'bytes' | 'model'>[]>>;
  readonly counts: Counts;
}

const folder = new URL('../../../../captures/ppc64-hpt-linux-6.12/', import.meta.url);

/** A file of the capture, unpacked where it is packed. */
export function captureFile(name: string): Uint8Array {
  const bytes = readFileSync(new URL(name, folder));
  return name.endsWith('.gz') ? gunzipSync(bytes) : bytes;
}

export function readCapture(): Snapshot & { readonly snapshot2: Snapshot } {
  return JSON.parse(Buffer.from(captureFile('capture.json.gz')).toString()) as Snapshot & {
    readonly snapshot2: Snapshot;
  };
}

export const segmentsOf = (snapshot: Snapshot): Segment[] =>
  snapshot.slb.map(({ esid, vsid }) => segment(BigInt(esid), BigInt(vsid)));

/** Guest memory by real page address. */
export function readPages(name: string): Map<bigint, Uint8Array> {
  const bytes = captureFile(name);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const pages = new Map<bigint, Uint8Array>();
  for (let at = 0; at < bytes.byteLength; at += 8 + 4096) {
    pages.set(view.getBigUint64(at), bytes.subarray(at + 8, at + 8 + 4096));
  }
  return pages;
}
