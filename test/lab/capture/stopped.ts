import { setTimeout as sleep } from 'node:timers/promises';
import { LabError } from '../../../lib/lab/lab-error.ts';
import type { Controls } from '../../../lib/lab/machine.ts';
import type { CapturedProcess } from '../guest/captured.ts';
import { GdbStub } from './gdb-stub.ts';
import { Qmp } from './qmp.ts';

const ATTEMPTS = 200;

/**
 * Stops a machine while its processor runs the process, and looks into it.
 *
 * @param inUserMode whether the text of `info registers` is that of a processor in user mode
 */
export async function whileStopped<T>(
  controls: Controls,
  littleEndian: boolean,
  inUserMode: (registers: string) => boolean,
  look: (qmp: Qmp, gdb: GdbStub) => Promise<T>,
): Promise<T> {
  const qmp = await Qmp.connect(controls.qmp);
  try {
    for (let attempt = 0; ; attempt++) {
      await qmp.execute('stop');
      if (inUserMode(await qmp.monitor('info registers'))) break;
      if (attempt === ATTEMPTS) throw new LabError('The processor was never found in user mode.');
      await qmp.execute('cont');
      await sleep(20);
    }
    const gdb = await GdbStub.connect(controls.gdb, littleEndian);
    try {
      return await look(qmp, gdb);
    } finally {
      gdb.close();
    }
  } finally {
    qmp.close();
  }
}

/** QEMU's own answer for a virtual address in the processor's current state. */
export interface OracleAnswer {
  /** Absent where the address is not mapped. */
  readonly physical?: bigint;
  /** The bytes there as the processor reads them, in hex; absent where that is no memory. */
  readonly bytes?: string;
}

const BYTES = 16;

export async function askOracle(qmp: Qmp, va: bigint): Promise<OracleAnswer> {
  const address = `0x${va.toString(16)}`;
  const found = /^gpa: (?:0x)?([0-9a-f]+)/m.exec(await qmp.monitor(`gva2gpa ${address}`))?.[1];
  if (found === undefined) return {};
  const physical = BigInt(`0x${found}`);
  const count = Math.min(BYTES, 4096 - Number(va & 0xfffn));
  const shown = await qmp.monitor(`x /${count}xb ${address}`);
  const bytes = [...shown.matchAll(/\b0x([0-9a-f]{2})\b/g)].map(([, hex]) => hex).join('');
  return bytes.length === 2 * count ? { physical, bytes } : { physical };
}

/** Addresses worth asking for: the ends of every mapping of the process, and the pages beside them. */
export function addressesOf({ maps, banner }: CapturedProcess): bigint[] {
  const found = [BigInt(banner.va)];
  for (const [, from, to] of maps.matchAll(/^([0-9a-f]+)-([0-9a-f]+) /gm)) {
    const [start, end] = [BigInt(`0x${from}`), BigInt(`0x${to}`)];
    found.push(start - 4096n, start, start + 4096n, end - 4096n, end);
  }
  return found.filter((va) => va >= 0n && va < 1n << 64n);
}

/** At most `limit` of the values, from all over them. */
export function sample<T>(values: readonly T[], limit: number): T[] {
  const step = Math.max(1, values.length / limit);
  return Array.from({ length: Math.min(limit, values.length) }, (_, i) => values[Math.floor(i * step)]!);
}

export function hex64(value: bigint): string {
  return `0x${value.toString(16).padStart(16, '0')}`;
}

/** Pages as captures hold them: the address, big-endian, and 4096 bytes, in ascending order. */
export function packPages(pages: ReadonlyMap<bigint, Uint8Array>): Buffer {
  const ordered = [...pages].sort(([a], [b]) => (a < b ? -1 : 1));
  return Buffer.concat(
    ordered.flatMap(([address, bytes]) => {
      const head = Buffer.alloc(8);
      head.writeBigUInt64BE(address);
      return [head, bytes];
    }),
  );
}
