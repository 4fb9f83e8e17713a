import { readFileSync } from 'node:fs';
import { loadNative } from '../../../lib/backends/native.ts';
import type { Json } from '../../../lib/lab/frames.ts';
import { MAP, PROT } from '../../../lib/uapi/flags.ts';

/** What a process that is about to be captured says of itself. */
export interface CapturedProcess {
  readonly maps: string;
  readonly cpuinfo: string;
  /** Virtual address of the kernel's banner, and the text that is there. */
  readonly banner: { readonly va: string; readonly text: string };
  /** Storage keys that were set on memory of this process. */
  readonly keys?: { readonly va: string; readonly set: string };
}

const KEYED_BYTES = 0x10_0000;

/** Makes memory of several kinds, sets storage keys where there are such, and tells where all that is. */
export default function captured(): Json {
  const loaded = loadNative();
  if (!('calls' in loaded)) throw new Error(loaded.reason);
  const { calls } = loaded;
  const anonymous = MAP.PRIVATE | MAP.ANONYMOUS;
  for (const protection of [PROT.READ | PROT.WRITE, PROT.READ, PROT.NONE, PROT.READ | PROT.EXEC]) {
    const hva = calls.mmap(0x8000, PROT.READ | PROT.WRITE, anonymous, -1, 0, 0, 0);
    calls.writeMemory(hva, new Uint8Array(0x5000).fill(protection + 1));
    calls.mprotect(hva, 0x8000, protection);
  }
  const symbols = readFileSync('/proc/kallsyms', 'utf8');
  const va = /^([0-9a-f]+) \w linux_banner$/m.exec(symbols)?.[1];
  if (va === undefined) throw new Error('/proc/kallsyms has no linux_banner');
  const keys = calls.s390x === undefined ? {} : { keys: setKeys(calls) };
  const result: CapturedProcess = {
    banner: { va: `0x${va}`, text: readFileSync('/proc/version', 'latin1') },
    maps: readFileSync('/proc/self/maps', 'utf8'),
    cpuinfo: readFileSync('/proc/cpuinfo', 'utf8'),
    ...keys,
  };
  return result as unknown as Json;
}

/** Gives a VM 1 MiB of memory, and each of its pages another key. The VM stays, and the keys with it. */
function setKeys(
  calls: Extract<ReturnType<typeof loadNative>, { readonly calls: unknown }>['calls'],
): NonNullable<CapturedProcess['keys']> {
  const kvm = calls.openKvm();
  const vm = calls.createVm(kvm, 0);
  const hva = calls.mmap(KEYED_BYTES, PROT.READ | PROT.WRITE, MAP.SHARED | MAP.ANONYMOUS, -1, 0, KEYED_BYTES, 0);
  calls.writeMemory(hva, new Uint8Array(KEYED_BYTES).fill(0xa5));
  const keys = Uint8Array.from({ length: KEYED_BYTES / 4096 }, (_, page) => ((page * 8) & 0xf8) | ((page >> 4) & 0x6));
  const refused =
    calls.setUserMemoryRegion(vm, 0, 0, 0, KEYED_BYTES, hva) || calls.s390x!.setSkeys(vm, 0, keys.length, 0, keys);
  if (refused !== 0) throw new Error(`storage keys cannot be set: ${refused}`);
  return { va: `0x${hva.toString(16)}`, set: Buffer.from(keys).toString('hex') };
}
