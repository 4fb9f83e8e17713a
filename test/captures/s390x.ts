/**
 * The s390x captures as tests read them. The reduced copies in this directory are all that the tests need; the complete
 * captures are read as well where they are: in $KVM_BRIDGE_CAPTURES or in ../shared/captures beside the repository.
 */

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { type AbsoluteMemory, type CpuState, cpuState, type DatFacilities, memoryOfFrames } from '../../lib/arch/s390x/model/index.ts';

export interface OracleEntry {
  readonly space: string;
  readonly asce: string;
  readonly cpu: number;
  readonly va: string;
  readonly access: 'read' | 'write' | 'fetch';
  readonly result: { readonly abs?: string; readonly real?: string; readonly code?: string; readonly teid?: string };
  readonly bytes?: string;
  readonly name?: string;
  readonly text?: string;
}

export interface CaptureJson {
  readonly edat1: boolean;
  readonly edat2: boolean;
  readonly memory: string;
  readonly cpus: readonly {
    readonly psw: { readonly mask: string; readonly addr: string };
    readonly prefix: string;
    readonly cr: readonly string[];
  }[];
  readonly linux_banner: { readonly va: string; readonly abs: string; readonly text: string };
  readonly key_check: {
    readonly space: string;
    readonly va: string;
    readonly pages: number;
    readonly set: string;
    readonly dumped: string;
  };
  readonly asces: readonly {
    readonly space: string;
    readonly asce: string;
    readonly dt: string;
    readonly tl: number;
    readonly kind: 'live' | 'constructed' | 'synthetic';
    readonly mapped_frames?: number;
    readonly large_frames?: number;
    readonly mapped_bytes?: string;
    readonly ranges?: number;
    readonly sha256?: string;
  }[];
  readonly oracle: readonly OracleEntry[];
  readonly ranges: Readonly<Record<string, readonly CaptureRange[]>>;
  readonly skeys: { readonly count: number; readonly values: Readonly<Record<string, number>> };
}

export interface CaptureRange {
  readonly va: string;
  readonly len: string;
  readonly abs: string;
  readonly frame: string;
  readonly prot: boolean;
  readonly iep: boolean;
}

export interface Capture {
  readonly directory: string;
  readonly json: CaptureJson;
  readonly frames: ReadonlyMap<number, Uint8Array>;
  readonly keys: Uint8Array;
  /** Absolute storage: frames that the capture lacks are there but can't be read; beyond `memory` is nothing. */
  readonly storage: AbsoluteMemory;
  readonly facilities: DatFacilities;
}

export const CAPTURES = ['s390x-linux-6.12', 's390x-linux-6.12-edat'] as const;

const HERE = import.meta.dirname;

/** Directories that hold the capture: the reduced copy, and the complete one where there is one. */
export function captureDirectories(name: string): string[] {
  const outside = process.env['KVM_BRIDGE_CAPTURES'] ?? join(HERE, '../../../shared/captures');
  return [join(HERE, name), join(outside, name)].filter((directory) => existsSync(join(directory, 'pages.bin.gz')));
}

export function loadCapture(directory: string): Capture {
  const plain = join(directory, 'capture.json');
  const text = existsSync(plain) ? readFileSync(plain) : gunzipSync(readFileSync(`${plain}.gz`));
  const json = JSON.parse(text.toString('utf8')) as CaptureJson;
  const records = gunzipSync(readFileSync(join(directory, 'pages.bin.gz')));
  const frames = new Map<number, Uint8Array>();
  for (let at = 0; at < records.length; at += 4104) {
    frames.set(Number(records.readBigUInt64BE(at) >> 12n), records.subarray(at + 8, at + 4104));
  }
  const memoryFrames = Number(BigInt(json.memory) >> 12n);
  return {
    directory,
    json,
    frames,
    keys: gunzipSync(readFileSync(join(directory, 'skeys.bin.gz'))),
    storage: memoryOfFrames((pfn) => (pfn < memoryFrames ? (frames.get(pfn) ?? null) : undefined)),
    facilities: { edat1: json.edat1, edat2: json.edat2, iep: true },
  };
}

/** PSW masks of the oracle's accesses: 64-bit, DAT on, secondary space for data and primary for instructions. */
const SECONDARY = '0x0400800180000000';
const PRIMARY = '0x0400000180000000';

/** The CPU of a capture as it was when the oracle asked: CR1 and CR7 hold the ASCE. */
export function oracleCpu(capture: Capture, cpu: number, asce: string, access: OracleEntry['access']): CpuState {
  const captured = capture.json.cpus[cpu]!;
  return cpuState({
    pswMask: BigInt(access === 'fetch' ? PRIMARY : SECONDARY),
    cr: { 0: BigInt(captured.cr[0]!), 1: BigInt(asce), 7: BigInt(asce) },
    prefix: BigInt(captured.prefix),
    facilities: capture.facilities,
  });
}
