import { join } from 'node:path';
import type { VmHpt } from '../arch/ppc64/handles/vm-hpt.ts';
import { decodeHtabStream, type Htab, pageShift, type Segment, segment } from '../arch/ppc64/model/index.ts';
import type { DatFacilities } from '../arch/s390x/model/index.ts';
import { hex } from '../base/errors.ts';
import { counted, humanSize } from '../base/text.ts';
import type { Vcpu } from '../handles/vcpu.ts';
import { type CaptureFileName, type CaptureFiles, captureFiles } from './capture-files.ts';
import { type CaptureJson, captureJson } from './capture-json.ts';
import { nameOf } from './input.ts';
import { type Io, UsageError } from './io.ts';
import type { Session } from './session.ts';

/** A stopped guest in a folder or an archive: capture.json, pages.bin, and skeys.bin or htab.stream; each may be gzipped. */
export interface Capture {
  readonly arch: 's390x' | 'ppc64';
  readonly json: CaptureJson;
  /** Bytes of the guest's memory, from address 0 on. */
  readonly memory: number;
  /** Pages by guest physical (absolute, real) address, all of them in that memory. */
  readonly pages: ReadonlyMap<number, Uint8Array>;
  readonly keys: Uint8Array | undefined;
  readonly htab: Htab | undefined;
}

const PAGE = 4096;
const RECORD = 8 + PAGE;
const MIB = 1 << 20;
/** Memory of a captured guest, of which only the pages that are there take any. */
const MOST_MEMORY = 2 ** 42;

/** What is made of a file of a capture. @throws UsageError that names the file, where it is damaged */
function whole<T>(file: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    throw new UsageError(`${file} is damaged: ${error instanceof Error ? error.message : error}`);
  }
}

/**
 * Reads a captured guest.
 * @param path the folder, an archive of it, or `-` for such an archive on standard input
 * @throws UsageError where that is no capture, or a damaged one
 */
export async function readCapture(path: string, io: Pick<Io, 'stdin' | 'stderr'>): Promise<Capture> {
  return captureOf(nameOf(path), await captureFiles(path, io));
}

/** What files make a captured guest. @throws UsageError where they don't */
export function captureOf(path: string, files: CaptureFiles): Capture {
  const [text, records] = [files.get('capture.json'), files.get('pages.bin')];
  if (text === undefined || records === undefined) {
    throw new UsageError(`${path} holds no capture: capture.json and pages.bin (or .gz of both) are wanted`);
  }
  const file = (name: CaptureFileName): string => join(path, name);
  const json = whole(file('capture.json'), () => captureJson(JSON.parse(text.toString('utf8'))));
  const pages = whole(file('pages.bin'), () => pagesIn(records));
  const memory = whole(file('capture.json'), () => memoryOf(json, pages));
  const stream = files.get('htab.stream');
  const htab = stream === undefined ? undefined : whole(file('htab.stream'), () => decodeHtabStream(stream));
  return { arch: htab === undefined ? 's390x' : 'ppc64', json, memory, pages, keys: files.get('skeys.bin'), htab };
}

function pagesIn(records: Uint8Array): Map<number, Uint8Array> {
  if (records.length % RECORD !== 0)
    throw new RangeError(`${counted(records.length, 'byte is', 'bytes are')} no records of ${RECORD}`);
  const pages = new Map<number, Uint8Array>();
  const view = new DataView(records.buffer, records.byteOffset, records.byteLength);
  for (let at = 0; at < records.length; at += RECORD) {
    const address = Number(view.getBigUint64(at));
    if (address % PAGE !== 0) throw new RangeError(`${hex(address)} is the address of no page`);
    pages.set(address, records.subarray(at + 8, at + RECORD));
  }
  return pages;
}

/** As much as is told, or where nothing is, as much as the pages need. @throws RangeError for what there can't be, and for pages outside of it */
function memoryOf(json: CaptureJson, pages: Iterable<readonly [number, Uint8Array]>): number {
  let end = 0;
  for (const [address] of pages) end = Math.max(end, address + PAGE);
  const size = json.memory === undefined ? Math.ceil(Math.max(end, 1) / MIB) * MIB : Number(BigInt(json.memory));
  if (size > MOST_MEMORY || size % PAGE !== 0 || size === 0) {
    throw new RangeError(`it says that the guest has ${hex(BigInt(size))} bytes of memory`);
  }
  if (end > size) throw new RangeError(`a page ends at ${hex(BigInt(end))}, and memory at ${hex(size)}`);
  return size;
}

/** What a loaded guest adds to a session. */
export type Loaded = Pick<Session, 'loaded' | 'facilities' | 'segments'>;

/** Makes the session's VM the captured guest, stopped. */
export function loadCapture({ kvm, vm }: Session, capture: Capture): Loaded {
  const { arch, json, memory, pages, keys, htab } = capture;
  const vcpu = vm.createVcpu();
  // While there is no memory behind the prefix, KVM_RUN takes the registers and gives EFAULT.
  if (arch === 's390x') takeRegisters(vcpu, json);
  vm.memory.addRam(0, kvm.mapAnonymous(memory), { name: 'captured RAM' });
  for (const [address, bytes] of pages) vm.memory.writeExact(address, bytes);
  if (keys !== undefined) vm.storageKeys.setBytes(0, keys.subarray(0, memory / PAGE));
  const leftOut = htab === undefined ? 0 : loadTable(vm.hpt, htab, kvm.pageSize);
  const segments: readonly Segment[] | undefined = json.slb?.map(({ esid, vsid }) =>
    segment(BigInt(esid), BigInt(vsid)),
  );
  const facilities: Partial<DatFacilities> = { edat1: json.edat1 === true, edat2: json.edat2 === true, iep: true };
  const of = json.kernel === undefined ? '' : ` of ${json.kernel.split(' (', 1)[0]}`;
  const lacking =
    leftOut === 0
      ? ''
      : ` ${counted(leftOut, 'entry', 'entries')} of its table ${leftOut === 1 ? 'is' : 'are'} left out: pages of theirs are larger than the host's, ${humanSize(kvm.pageSize)}.`;
  return {
    loaded: `A captured ${arch} guest${of}: ${humanSize(memory)}, of which ${counted(pages.size, 'page')} ${pages.size === 1 ? 'was' : 'were'} kept.${lacking} Try .mem, .regs and .walk.`,
    ...(arch === 's390x' ? { facilities } : {}),
    ...(segments === undefined ? {} : { segments }),
  };
}

/** Gives the VM the table, but for entries that KVM would refuse; how many those are. */
function loadTable(hpt: VmHpt, table: Htab, hostPage: number): number {
  let leftOut = 0;
  for (let slot = 0; slot < table.entryCount; slot++) {
    if (!table.isValid(slot) || 2 ** pageShift(table.vLo(slot), table.rLo(slot)) <= hostPage) continue;
    table.clear(slot, 1);
    leftOut++;
  }
  hpt.allocate(table.order);
  hpt.write(table);
  return leftOut;
}

function takeRegisters(vcpu: Vcpu, { cpus = [] }: CaptureJson): void {
  const [cpu] = cpus;
  if (cpu === undefined) return;
  const numbered = (prefix: string, values: readonly string[]) =>
    Object.fromEntries(values.map((value, n) => [`${prefix}${n}`, BigInt(value)]));
  vcpu.s390x.setRegs({
    pswMask: BigInt(cpu.psw.mask),
    pswAddress: BigInt(cpu.psw.addr),
    prefix: BigInt(cpu.prefix),
    ...numbered('cr', cpu.cr),
    ...numbered('r', cpu.gpr ?? []),
  });
  vcpu.calls.run(vcpu.fd, 0);
}
