import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import {
  cpuState,
  explainTranslation,
  featuresOf,
  formatStorageKeys,
  mappedFrames,
  mappedRanges,
  translate,
} from '../../../../../lib/arch/s390x/model/index.ts';
import {
  CAPTURES,
  type Capture,
  captureDirectories,
  loadCapture,
  type OracleEntry,
  oracleCpu,
} from '../../../../captures/s390x.ts';

const ACCESS = { read: 'fetch', write: 'store', fetch: 'instruction-fetch' } as const;
/** Codes for which KVM builds no TEID, while the oracle's machine stored one. */
const NO_TEID = new Set([5, 0x12]);

function bytesAt(capture: Capture, absolute: bigint, length: number): Buffer {
  const frame = capture.frames.get(Number(absolute >> 12n));
  const offset = Number(absolute & 0xfffn);
  return Buffer.from(frame!.subarray(offset, offset + length));
}

/** What the model says of an entry, in the oracle's own words. */
function answer(capture: Capture, entry: OracleEntry): unknown {
  const cpu = oracleCpu(capture, entry.cpu, entry.asce, entry.access);
  const found = translate(cpu, capture.storage, BigInt(entry.va), { access: ACCESS[entry.access] });
  if ('absolute' in found) {
    const real = entry.result.real === undefined ? {} : { real: `0x${found.real.toString(16)}` };
    const text =
      entry.text === undefined ? {} : { text: bytesAt(capture, found.absolute, entry.text.length).toString('latin1') };
    const bytes =
      entry.bytes === undefined
        ? {}
        : { bytes: bytesAt(capture, found.absolute, entry.bytes.length / 2).toString('hex') };
    return { abs: `0x${found.absolute.toString(16)}`, ...real, ...bytes, ...text };
  }
  return { code: `0x${found.code.toString(16)}`, teid: found.teid };
}

function expected(entry: OracleEntry): unknown {
  const { abs, real, code, teid } = entry.result;
  if (code === undefined) {
    return {
      abs,
      ...(real === undefined ? {} : { real }),
      ...(entry.bytes === undefined ? {} : { bytes: entry.bytes }),
      ...(entry.text === undefined ? {} : { text: entry.text }),
    };
  }
  return { code, teid: NO_TEID.has(Number(code)) ? undefined : BigInt(teid!) };
}

const directories = CAPTURES.flatMap(captureDirectories);

it('has both captures', () => {
  for (const name of CAPTURES) expect(captureDirectories(name).length).toBeGreaterThan(0);
});

describe.each(directories)('capture in %s', (directory) => {
  const capture = loadCapture(directory);
  const { json } = capture;
  const kernelCpu = json.cpus[0]!;

  it.each(['read', 'write', 'fetch'] as const)('agrees with the oracle on every %s', (access) => {
    const entries = json.oracle.filter((entry) => entry.access === access);
    expect(entries.length).toBeGreaterThan(1000);
    for (const entry of entries)
      expect(answer(capture, entry), `${access} ${entry.space} ${entry.va}`).toEqual(expected(entry));
  });

  it('explains each entry with the result of the walk', () => {
    for (const entry of json.oracle) {
      const cpu = oracleCpu(capture, entry.cpu, entry.asce, entry.access);
      const explained = explainTranslation(cpu, capture.storage, BigInt(entry.va), { access: ACCESS[entry.access] });
      if (entry.result.code === undefined) expect(`0x${explained.absolute?.toString(16)}`).toBe(entry.result.abs);
      else expect(`0x${explained.code.toString(16)}`).toBe(entry.result.code);
    }
  });

  it.each(json.asces.filter((space) => space.kind === 'live'))('lists the space $space', (space) => {
    const features = featuresOf(oracleCpu(capture, 0, space.asce, 'read'));
    const digest = createHash('sha256');
    let frames = 0;
    let large = 0;
    for (const frame of mappedFrames(capture.storage, BigInt(space.asce), { features })) {
      const [va, real] = [frame.va, frame.absolute].map((a) => a.toString(16).padStart(16, '0'));
      digest.update(`${va} ${real} ${frame.frameSize.toString(16)} ${+frame.protection} ${+frame.iep}\n`);
      frames++;
      if (frame.frameSize > 4096) large++;
    }
    expect({ frames, large, sha256: digest.digest('hex') }).toEqual({
      frames: space.mapped_frames,
      large: space.large_frames,
      sha256: space.sha256,
    });
    const ranges = [...mappedRanges(capture.storage, BigInt(space.asce), { features })].map((range) => ({
      va: `0x${range.va.toString(16).padStart(16, '0')}`,
      len: `0x${range.length.toString(16)}`,
      abs: `0x${range.absolute.toString(16)}`,
      frame: `0x${range.frameSize.toString(16)}`,
      prot: range.protection,
      iep: range.iep,
    }));
    expect(ranges).toEqual(json.ranges[space.space]);
  });

  it('prints the banner of the kernel through its page tables', () => {
    const { va, text } = json.linux_banner;
    const cpu = cpuState({
      pswMask: 0x0400_c001_8000_0000n,
      cr: { 0: BigInt(kernelCpu.cr[0]!), 13: BigInt(kernelCpu.cr[13]!) },
      prefix: BigInt(kernelCpu.prefix),
      facilities: capture.facilities,
    });
    const found = translate(cpu, capture.storage, BigInt(va));
    expect(found).toMatchObject({ code: 0, absolute: BigInt(json.linux_banner.abs) });
    const banner = bytesAt(capture, BigInt(json.linux_banner.abs), text.length).toString('latin1');
    expect(banner).toBe(text);
    expect(banner).toMatch(/^Linux version 6\.12/);
  });

  it('dumps the storage keys as text that says what the bytes say', () => {
    const values: Record<string, number> = {};
    const wrong: string[] = [];
    let gfn = 0;
    for (const line of formatStorageKeys(capture.keys)) {
      const match = /^page=([0-9a-f]{3,}): key\((\d+)\) => ACC=([0-9A-F]), FP=([01]), REF=([01]), CH=([01])$/.exec(
        line,
      );
      const [page, key, acc, fp, ref, change] = (match ?? [])
        .slice(1)
        .map((n, i) => Number.parseInt(n, i === 1 ? 10 : 16));
      const composed = acc! * 16 + fp! * 8 + ref! * 4 + change! * 2;
      if (page !== gfn++ || composed !== key) wrong.push(line);
      const hex = composed.toString(16).padStart(2, '0');
      values[hex] = (values[hex] ?? 0) + 1;
    }
    expect(wrong).toEqual([]);
    expect(gfn).toBe(json.skeys.count);
    expect(values).toEqual(json.skeys.values);
  });

  it('finds the keys that a guest set on the frames its pages map to', () => {
    const { space, va, pages, set, dumped } = json.key_check;
    const asce = json.asces.find((candidate) => candidate.space === space)!.asce;
    const cpu = oracleCpu(capture, 1, asce, 'read');
    for (let page = 0; page < pages; page++) {
      const found = translate(cpu, capture.storage, BigInt(va) + BigInt(page) * 4096n);
      expect(found.code).toBe(0);
      const key = 'absolute' in found ? capture.keys[Number(found.absolute >> 12n)]! : -1;
      expect(key).toBe(Number.parseInt(dumped.slice(2 * page, 2 * page + 2), 16));
      // R and C stay with KVM while the page is mapped.
      expect(key & 0xf8).toBe(Number.parseInt(set.slice(2 * page, 2 * page + 2), 16) & 0xf8);
    }
  });
});
