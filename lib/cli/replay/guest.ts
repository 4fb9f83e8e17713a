import { counted } from '../../base/text.ts';
import { bytesOfText } from '../../calls/format.ts';
import type { TracePieces } from '../../calls/trace-file.ts';
import {
  type GuestOp,
  type GuestProgram,
  halt,
  hypercall,
  input,
  load,
  out,
  spin,
  store,
} from '../../emulated/guest.ts';
import type { VcpuExit } from '../../handles/kvm-run.ts';

type Size = 1 | 2 | 4 | 8;

/** What a guest may have stored at once. */
export const MOST_BYTES = 2 ** 28;

/** A guest that stores what was stored, and then does what led to the exit. */
export function* guestOf(stores: TracePieces, last: GuestOp, littleEndian: boolean): GuestProgram {
  for (const [address, text] of stores) {
    const bytes = bytesOfText(text, MOST_BYTES);
    for (let at = 0; at < bytes.length; ) {
      const size = largest(address + at, bytes.length - at);
      yield store(address + at, size, integerOf(bytes.subarray(at, at + size), littleEndian));
      at += size;
    }
  }
  yield last;
  // Whoever is run on gets another program.
  yield spin;
}

/** The largest access that is aligned and not too long. */
function largest(address: number, left: number): Size {
  return ([8, 4, 2] as const).find((size) => address % size === 0 && left >= size) ?? 1;
}

function integerOf(bytes: Uint8Array, littleEndian: boolean): bigint {
  const ordered = littleEndian ? bytes.toReversed() : bytes;
  return BigInt(`0x${Buffer.from(ordered).toString('hex')}`);
}

const isSize = (size: number): size is Size => size === 1 || size === 2 || size === 4 || size === 8;

/** What makes a scripted guest leave with an exit; undefined where none can. */
export function opOf(exit: VcpuExit, littleEndian: boolean): GuestOp | undefined {
  switch (exit.reason) {
    case 'MMIO': {
      if (!isSize(exit.size)) return undefined;
      const address = Number(exit.gpa);
      return exit.isWrite ? store(address, exit.size, integerOf(exit.data, littleEndian)) : load(address, exit.size);
    }
    case 'IO': {
      const { size, count, port, direction, data } = exit;
      if (count !== 1 || !isSize(size) || size === 8) return undefined;
      return direction === 'out' ? out(port, size, integerOf(data, littleEndian)) : input(port, size);
    }
    case 'HLT':
      return halt;
    case 'INTR':
      return spin;
    case 'PAPR_HCALL':
      return hypercall(exit.nr, ...exit.args);
    default:
      return undefined;
  }
}

/** An exit in words, without what is only left over in kvm_run. */
export function exitText(exit: VcpuExit): string {
  switch (exit.reason) {
    case 'MMIO':
      return exit.isWrite
        ? `MMIO store of [${Buffer.from(exit.data).toString('hex')}] to 0x${exit.gpa.toString(16)}`
        : `MMIO load of ${counted(exit.size, 'byte')} from 0x${exit.gpa.toString(16)}`;
    case 'IO':
      return exit.direction === 'out'
        ? `IO out of [${Buffer.from(exit.data).toString('hex')}] to port 0x${exit.port.toString(16)}`
        : `IO in of ${counted(exit.count, 'time')} ${counted(exit.size, 'byte')} from port 0x${exit.port.toString(16)}`;
    default:
      return exit.reason === 'OTHER' ? exit.name : exit.reason;
  }
}
