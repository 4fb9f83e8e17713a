import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import {
  type AbsoluteMemory,
  decodeAsce,
  featuresOf,
  mappedRanges,
  memoryOfBytes,
  translate,
} from '../../../lib/arch/s390x/model/index.ts';
import { LabError } from '../../../lib/lab/lab-error.ts';
import { type Capture, loadCapture, oracleCpu } from '../../captures/s390x.ts';
import type { CapturedProcess } from '../guest/captured.ts';
import type { Look, Verified } from './capture.ts';
import { addressesOf, askOracle, hex64, type OracleAnswer, packPages, sample } from './stopped.ts';

const PROBLEM_STATE = 1n << 48n;
const HOME_SPACE = 0xc000n << 32n;
const RANGES_ASKED = 300;
const ELF = { PT_NOTE: 4, NT_S390_PREFIX: 0x305 } as const;
const FACILITY = { EDAT1: 8, EDAT2: 78 } as const;

export function inUserMode(registers: string): boolean {
  const mask = /PSW=mask ([0-9a-f]+)/.exec(registers)?.[1];
  if (mask === undefined) throw new LabError("QEMU's `info registers` shows no PSW.");
  return (BigInt(`0x${mask}`) & PROBLEM_STATE) !== 0n;
}

/** Storage as it was dumped, which notes the frames that walks read as tables. */
function notingMemory(dump: Buffer, tables: Set<number>): AbsoluteMemory {
  const memory = memoryOfBytes(dump);
  return {
    hi: 0,
    lo: 0,
    readDoubleword(pfn, offset) {
      const failure = memory.readDoubleword(pfn, offset);
      if (failure === 0) tables.add(pfn);
      this.hi = memory.hi;
      this.lo = memory.lo;
      return failure;
    },
    hasFrame: (pfn) => memory.hasFrame(pfn),
  };
}

/** Writes a capture of the stopped machine: the running process's space and the kernel's. */
export const captureS390x: Look = async ({ qmp, gdb, process, folder, memoryBytes }, into) => {
  const cr = await Promise.all(Array.from({ length: 16 }, (_, n) => n).map((n) => gdb.read(`cr${n}`)));
  const psw = { mask: await gdb.read('pswm'), addr: await gdb.read('pswa') };
  const files = { memory: join(folder, 'memory'), keys: join(folder, 'keys'), notes: join(folder, 'notes') };
  await qmp.execute('dump-guest-memory', { paging: false, protocol: `file:${files.notes}`, begin: 0, length: 4096 });
  const prefix = readPrefix(await readFile(files.notes));
  await qmp.execute('pmemsave', { val: 0, size: memoryBytes, filename: files.memory });
  await qmp.execute('dump-skeys', { filename: files.keys });
  const dump = await readFile(files.memory);
  const keys = readKeys(await readFile(files.keys, 'latin1'));
  if (keys.length !== memoryBytes / 4096) throw new LabError(`QEMU dumped ${keys.length} storage keys.`);

  const facilities = facilitiesOf(process);
  const spaces = [
    { space: 'user0', asce: cr[1]!, pswMask: psw.mask, what: 'the process (CR1)' },
    { space: 'kernel', asce: cr[13]!, pswMask: psw.mask | HOME_SPACE, what: 'home space (CR13)' },
  ];
  const head = {
    format: 's390x-capture',
    arch: 's390x',
    kernel: process.banner.text,
    accel: 'tcg',
    machine: 's390-ccw-virtio',
    edat1: facilities.has(FACILITY.EDAT1),
    edat2: facilities.has(FACILITY.EDAT2),
    memory: `0x${memoryBytes.toString(16)}`,
    storage_keys_enabled: true,
    cpus: [{ cpu: 0, psw: { mask: hex64(psw.mask), addr: hex64(psw.addr) }, prefix: hex64(prefix), cr: cr.map(hex64) }],
  };
  const tables = new Set<number>();
  const memory = notingMemory(dump, tables);
  const asked: { readonly space: string; readonly asce: bigint; readonly va: bigint; readonly answer: OracleAnswer }[] =
    [];
  const asces: object[] = [];
  const { edat1, edat2 } = head;
  const walker = { json: head, facilities: { edat1, edat2, iep: true } } as unknown as Capture;
  for (const { space, asce, pswMask, what } of spaces) {
    const features = featuresOf(oracleCpu(walker, 0, hex64(asce), 'read'));
    const ranges = [...mappedRanges(memory, asce, { features })];
    const addresses = new Set(addressesOf(process));
    for (const { va, length } of sample(ranges, RANGES_ASKED)) {
      for (const each of [va, va + length - 16n, va + length]) if (each < 1n << 64n) addresses.add(each);
    }
    await gdb.write('pswm', pswMask);
    for (const va of [...addresses].sort((a, b) => (a < b ? -1 : 1))) {
      asked.push({ space, asce, va, answer: await askOracle(qmp, va) });
      translate(oracleCpu(walker, 0, hex64(asce), 'read'), memory, va);
    }
    const { designation, tableLength } = decodeAsce(asce);
    asces.push({ space, asce: hex64(asce), dt: designation, tl: tableLength, what, kind: 'live' });
  }
  await gdb.write('pswm', psw.mask);

  const keyCheck =
    process.keys === undefined ? undefined : await checkKeys(process.keys, keys, (va) => askOracle(qmp, va));
  const kept = new Map<bigint, Uint8Array>();
  const keep = (pfn: number) => kept.set(BigInt(pfn) << 12n, dump.subarray(pfn * 4096, pfn * 4096 + 4096));
  for (const pfn of [0, 1, Number(prefix >> 12n), Number(prefix >> 12n) + 1, ...tables]) keep(pfn);
  for (const { answer } of asked) if (answer.bytes !== undefined) keep(Number(answer.physical! >> 12n));
  const json = {
    ...head,
    asces,
    key_check: keyCheck,
    skeys: { file: 'skeys.bin.gz', count: keys.length },
    oracle: asked.map(({ space, asce, va, answer: { physical, bytes } }) => ({
      space,
      asce: hex64(asce),
      cpu: 0,
      va: hex64(va),
      access: 'read',
      source: 'qemu',
      result: physical === undefined ? { fault: true } : { abs: `0x${physical.toString(16)}` },
      bytes,
    })),
  };
  await mkdir(into, { recursive: true });
  await writeFile(join(into, 'capture.json'), `${JSON.stringify(json, undefined, 1)}\n`);
  await writeFile(join(into, 'pages.bin.gz'), gzipSync(packPages(kept)));
  await writeFile(join(into, 'skeys.bin.gz'), gzipSync(keys));
};

/** The prefix register, which is in no other place than the notes of QEMU's memory dump: a big-endian ELF64 core file. */
function readPrefix(core: Buffer): bigint {
  const headers = Number(core.readBigUInt64BE(0x20));
  for (let i = 0; i < core.readUInt16BE(0x38); i++) {
    const header = headers + i * core.readUInt16BE(0x36);
    if (core.readUInt32BE(header) !== ELF.PT_NOTE) continue;
    const start = Number(core.readBigUInt64BE(header + 0x08));
    const end = start + Number(core.readBigUInt64BE(header + 0x20));
    const padded = (length: number) => (length + 3) & ~3;
    for (let at = start; at < end; ) {
      const [name, content] = [core.readUInt32BE(at), core.readUInt32BE(at + 4)];
      const body = at + 12 + padded(name);
      if (core.readUInt32BE(at + 8) === ELF.NT_S390_PREFIX) return BigInt(core.readUInt32BE(body));
      at = body + padded(content);
    }
  }
  throw new LabError("QEMU's memory dump has no note of the prefix register.");
}

/** The facilities that the processor says it has. */
function facilitiesOf({ cpuinfo }: CapturedProcess): ReadonlySet<number> {
  const list = /^facilities\s*:\s*([\d ]+)$/m.exec(cpuinfo)?.[1];
  if (list === undefined) throw new LabError("The guest's /proc/cpuinfo lists no facilities.");
  return new Set(list.trim().split(' ').map(Number));
}

/** A byte for each frame from what `dump-skeys` writes: a line per frame, with the key as a number and then in words. */
function readKeys(text: string): Uint8Array {
  return Uint8Array.from(text.matchAll(/key\((\d+)\)/g), ([, key]) => Number(key));
}

async function checkKeys(
  { va, set }: NonNullable<CapturedProcess['keys']>,
  keys: Uint8Array,
  ask: (va: bigint) => Promise<OracleAnswer>,
): Promise<object> {
  const pages = set.length / 2;
  const dumped = new Uint8Array(pages);
  for (let page = 0; page < pages; page++) {
    const { physical } = await ask(BigInt(va) + BigInt(page) * 4096n);
    if (physical === undefined) throw new LabError('Memory whose storage keys were set is not mapped.');
    dumped[page] = keys[Number(physical >> 12n)]!;
  }
  return { space: 'user0', va, pages, set, dumped: Buffer.from(dumped).toString('hex') };
}

/** Reads the capture back, and asks the model what QEMU was asked. */
export function verifyS390x(directory: string): Verified {
  const capture = loadCapture(directory);
  const { oracle, key_check: check } = capture.json;
  const differences: string[] = [];
  let bytesRead = 0;
  for (const { space, asce, va, cpu, result, bytes } of oracle) {
    const found = translate(oracleCpu(capture, cpu, asce, 'read'), capture.storage, BigInt(va));
    const absolute = 'absolute' in found ? `0x${found.absolute.toString(16)}` : undefined;
    if (absolute !== result.abs) {
      differences.push(`${space} ${va}: QEMU ${result.abs ?? 'no mapping'}, model ${absolute ?? `code ${found.code}`}`);
    } else if (absolute !== undefined && bytes !== undefined) {
      const offset = Number(BigInt(absolute) & 0xfffn);
      const frame = capture.frames.get(Number(BigInt(absolute) >> 12n));
      const stored = Buffer.from(frame?.subarray(offset, offset + bytes.length / 2) ?? []).toString('hex');
      if (stored === bytes) bytesRead++;
      else differences.push(`${space} ${va}: QEMU reads ${bytes}, the capture holds ${stored || 'nothing'}`);
    }
  }
  // R and C of a page stay with KVM while the page is mapped.
  const kept = (hex: string) => Buffer.from(hex, 'hex').map((key) => key & 0xf8);
  const [set, dumped] = [kept(check.set), kept(check.dumped)];
  set.forEach((key, page) => {
    if (key !== dumped[page]) differences.push(`page ${page}: key ${key} was set, ${dumped[page]} is there`);
  });
  const mapped = oracle.filter(({ result }) => result.abs !== undefined).length;
  return {
    checked: `${oracle.length} translations (${mapped} mapped), ${bytesRead} reads, ${check.pages} storage keys`,
    differences,
  };
}
