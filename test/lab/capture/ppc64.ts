import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gunzipSync, gzipSync } from 'node:zlib';
import {
  decodeHtabStream,
  encodeHtabStream,
  type Htab,
  htabStats,
  type ProtectionContext,
  protectionContext,
  type Segment,
  segment,
  translate,
  verifyHtab,
  virtualPage,
} from '../../../lib/arch/ppc64/model/index.ts';
import { LabError } from '../../../lib/lab/lab-error.ts';
import type { Look, Verified } from './capture.ts';
import { readPseriesStream } from './migration-stream.ts';
import type { Qmp } from './qmp.ts';
import { addressesOf, askOracle, hex64, type OracleAnswer, packPages, sample } from './stopped.ts';

const MSR_PR = 0x4000n;
const ENTRIES_ASKED = 400;
const MIGRATION_MS = 120_000;

interface Context {
  readonly name: string;
  readonly msr: string;
  readonly amr: string;
  readonly iamr: string;
  readonly pr: 0 | 1;
}

interface Entry {
  readonly ea: string;
  readonly result: { readonly ra?: string; readonly fault?: true };
  readonly bytes?: string;
}

interface CaptureJson {
  readonly htab_shift: number;
  readonly slb: readonly { readonly esid: string; readonly vsid: string }[];
  readonly contexts: readonly Context[];
  readonly oracle: readonly Entry[];
  readonly oracle_protection: Readonly<Record<string, readonly Entry[]>>;
  readonly [further: string]: unknown;
}

/** The context in which protection never hides a mapping. */
const OPEN = 'kernel-open';

export function inUserMode(registers: string): boolean {
  const msr = /\bMSR ([0-9a-f]+)/.exec(registers)?.[1];
  if (msr === undefined) throw new LabError("QEMU's `info registers` shows no MSR.");
  return (BigInt(`0x${msr}`) & MSR_PR) !== 0n;
}

/** Writes a capture of the stopped machine: its table, its segments, and what QEMU translates with them. */
export const capturePpc64: Look = async ({ qmp, gdb, process, folder, memoryBytes }, into) => {
  const names = ['msr', 'pc', 'lpcr', 'ptcr', 'amr', 'iamr', 'uamor'];
  const registers = Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, await gdb.read(name)] as const)),
  );
  const slb = [...(await qmp.monitor('info tlb')).matchAll(/^(\d+)\s+0x([0-9a-f]{16})\s+0x([0-9a-f]{16})/gm)].map(
    ([, index, esid, vsid]) => ({ index: Number(index), esid: `0x${esid}`, vsid: `0x${vsid}` }),
  );

  const [msr, amr, iamr] = [registers.msr!, registers.amr!, registers.iamr!];
  const states = [
    { name: 'as-stopped', msr, amr, iamr },
    { name: OPEN, msr: msr & ~MSR_PR, amr: 0n, iamr: 0n },
  ];
  const { table, page } = readPseriesStream(await migrate(qmp, join(folder, 'migration')));

  const segments = slb.map(({ esid, vsid }) => segment(BigInt(esid), BigInt(vsid)));
  const addresses = [...new Set([...addressesOf(process), ...sample(mappedAddresses(segments, table), ENTRIES_ASKED)])];
  const answers = new Map<string, readonly { readonly ea: bigint; readonly answer: OracleAnswer }[]>();
  for (const state of states) {
    for (const name of ['msr', 'amr', 'iamr'] as const) await gdb.write(name, state[name]);
    const list = [];
    for (const ea of addresses) list.push({ ea, answer: await askOracle(qmp, ea) });
    answers.set(state.name, list);
  }
  for (const name of ['msr', 'amr', 'iamr'] as const) await gdb.write(name, registers[name]!);

  const pages = new Map<bigint, Uint8Array>();
  for (const { answer } of answers.get(OPEN)!) {
    const frame = (answer.physical ?? 0n) & ~0xfffn;
    const bytes = answer.bytes === undefined ? undefined : page(frame);
    if (bytes !== undefined) pages.set(frame, bytes);
  }
  const entries = (context: string) =>
    answers.get(context)!.map(({ ea, answer: { physical, bytes } }) => ({
      ea: hex64(ea),
      result: physical === undefined ? { fault: true as const } : { ra: hex64(physical) },
      ...(bytes === undefined ? {} : { bytes }),
      source: 'qemu',
    }));
  const { slots, groups, valid, bolted, secondary } = htabStats(table);
  const json: CaptureJson = {
    format: 'ppc64-hpt-capture-1',
    arch: 'ppc64le',
    machine: 'pseries',
    cpu: 'POWER9',
    kernel_banner: process.banner.text,
    accel: 'tcg',
    memory_bytes: memoryBytes,
    symbols: { linux_banner: process.banner.va },
    ...Object.fromEntries(
      Object.entries(registers).map(([name, value]) => [name === 'pc' ? 'nip' : name, hex64(value)]),
    ),
    sdr1: null,
    htab_shift: table.order,
    slb,
    contexts: states.map((state) => ({
      name: state.name,
      msr: hex64(state.msr),
      amr: hex64(state.amr),
      iamr: hex64(state.iamr),
      pr: (state.msr & MSR_PR) === 0n ? 0 : 1,
    })),
    oracle_context: OPEN,
    oracle: entries(OPEN),
    oracle_protection: { 'as-stopped': entries('as-stopped') },
    counts: { slots, groups, valid, bolted, secondary },
  };
  await mkdir(into, { recursive: true });
  await writeFile(join(into, 'capture.json'), `${JSON.stringify(json, undefined, 1)}\n`);
  await writeFile(join(into, 'htab.stream.gz'), gzipSync(encodeHtabStream(table)));
  await writeFile(join(into, 'pages.bin.gz'), gzipSync(packPages(pages)));
};

/** The state of the stopped machine as QEMU sends it to another one. */
async function migrate(qmp: Qmp, path: string): Promise<Buffer> {
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
  await qmp.execute('migrate', { uri: `exec:cat > '${path}'` });
  for (const end = Date.now() + MIGRATION_MS; Date.now() < end; await sleep(100)) {
    const { status } = (await qmp.execute('query-migrate')) as { readonly status?: string };
    if (status === 'completed') return readFile(path);
    if (status === 'failed' || status === 'cancelled') throw new LabError(`The migration ended as ${status}.`);
  }
  throw new LabError(`QEMU did not write its state within ${MIGRATION_MS / 1000} s.`);
}

/** The pages that the segments and the table map, in the table's order: found backwards, from the entries. */
function mappedAddresses(segments: readonly Segment[], table: Htab): bigint[] {
  const found: bigint[] = [];
  for (let slot = 0; slot < table.entryCount; slot++) {
    if (!table.isValid(slot)) continue;
    const page = virtualPage(table.get(slot), slot, table.order);
    const covering = segments.find(({ vsid, segmentSize }) => vsid === page?.vsid && segmentSize === page.segmentSize);
    if (page === undefined || covering === undefined) continue;
    const start = covering.esidWord & ~(covering.segmentSize === '1T' ? 0xff_ffff_ffffn : 0xfff_ffffn);
    found.push(start + BigInt(page.offset));
  }
  return found;
}

/** Reads the capture back, and asks the model what QEMU was asked. */
export async function verifyPpc64(directory: string): Promise<Verified> {
  const read = async (name: string) => gunzipSync(await readFile(join(directory, name)));
  const json = JSON.parse(await readFile(join(directory, 'capture.json'), 'utf8')) as CaptureJson;
  const table = decodeHtabStream(await read('htab.stream.gz'));
  const records = await read('pages.bin.gz');
  const pages = new Map<bigint, Buffer>();
  for (let at = 0; at < records.length; at += 4104) {
    pages.set(records.readBigUInt64BE(at), records.subarray(at + 8, at + 4104));
  }
  const slb = json.slb.map(({ esid, vsid }) => segment(BigInt(esid), BigInt(vsid)));
  const differences = [...verifyHtab(table)].map((finding) => `the table: ${JSON.stringify(finding)}`);
  const tally = { asked: 0, mapped: 0, bytesRead: 0 };
  const ask = (name: string, entries: readonly Entry[], context: ProtectionContext) => {
    for (const { ea, result, bytes } of entries) {
      // QEMU's answer stands for a load, and where that is not allowed for a fetch.
      const load = translate(table, slb, BigInt(ea), { context });
      const found = load.ok ? load : translate(table, slb, BigInt(ea), { access: 'fetch', context });
      tally.asked++;
      if (result.ra !== undefined) tally.mapped++;
      const ra = found.ok ? hex64(found.ra) : undefined;
      if (ra !== result.ra) {
        differences.push(`${name} ${ea}: QEMU ${result.ra ?? 'fault'}, model ${ra ?? 'fault'}`);
      } else if (bytes !== undefined && ra !== undefined) {
        const offset = Number(BigInt(ra) & 0xfffn);
        const frame = pages.get(BigInt(ra) & ~0xfffn);
        const stored = frame?.subarray(offset, offset + bytes.length / 2).toString('hex') ?? 'nothing';
        if (stored === bytes) tally.bytesRead++;
        else differences.push(`${name} ${ea}: QEMU reads ${bytes}, the capture holds ${stored}`);
      }
    }
  };
  for (const { name, pr, amr, iamr } of json.contexts) {
    const context = protectionContext({ problemState: pr === 1, amr: BigInt(amr), iamr: BigInt(iamr) });
    ask(name, name === OPEN ? json.oracle : (json.oracle_protection[name] ?? []), context);
  }
  return {
    checked: `${tally.asked} translations (${tally.mapped} mapped), ${tally.bytesRead} reads, ${table.entryCount} slots`,
    differences,
  };
}
