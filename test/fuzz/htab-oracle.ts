/**
 * What the codec and KVM's write(2) have to do with a stream, as plainly as it can be said: one chunk after the other, one
 * entry after the other, in bigints. Nothing of lib/arch/ppc64 is used.
 */
import { HTAB_ENTRIES } from './htab-stream-maker.ts';

/** A table by slot; a slot that is empty isn't in it. */
export type Slots = Map<number, readonly [v: bigint, r: bigint]>;

/** [mask, LP, base and actual page size] of an entry with L set. */
const LARGE_PAGES: readonly (readonly [mask: bigint, lp: bigint, baseShift: number, shift: number])[] = [
  [0x0fn, 0x07n, 12, 16],
  [0xffn, 0x38n, 12, 24],
  [0x0fn, 0x01n, 16, 16],
  [0xffn, 0x08n, 16, 24],
  [0xffn, 0x00n, 24, 24],
  [0xffn, 0x03n, 34, 34],
];

/** log2 of the page size; undefined when there is no such page. */
function pageShift(v: bigint, r: bigint): number | undefined {
  if ((v & 4n) === 0n) return 12;
  return LARGE_PAGES.find(([mask, lp]) => ((r >> 12n) & mask) === lp)?.[3];
}

export interface Refusal {
  readonly problem: string;
  readonly offset: number;
}

/** What is wrong with a stream; or what becomes of which slots, `undefined` for those that become empty. */
export function expectOfCodec(
  bytes: Uint8Array,
  isLittle: boolean,
): Refusal | Map<number, readonly [v: bigint, r: bigint] | undefined> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const changes = new Map<number, readonly [v: bigint, r: bigint] | undefined>();
  let at = 0;
  while (at < bytes.length) {
    const offset = at;
    if (bytes.length - at < 8) return { problem: 'truncated-header', offset };
    const index = view.getUint32(at, isLittle);
    const nValid = view.getUint16(at + 4, isLittle);
    const nInvalid = view.getUint16(at + 6, isLittle);
    at += 8;
    if (index >= HTAB_ENTRIES || index + nValid + nInvalid > HTAB_ENTRIES) return { problem: 'index', offset };
    if (bytes.length - at < nValid * 16) return { problem: 'truncated-entries', offset };
    for (let slot = index; slot < index + nValid; slot++, at += 16) {
      const v = view.getBigUint64(at);
      const r = view.getBigUint64(at + 8);
      if ((v & 1n) === 0n) return { problem: 'not-valid', offset: at };
      if (v >> 63n !== 0n) return { problem: 'segment-size', offset: at };
      if (pageShift(v, r) === undefined) return { problem: 'page-size', offset: at };
      changes.set(slot, [v & ~0x60n, r]);
    }
    for (let slot = index + nValid; slot < index + nValid + nInvalid; slot++) changes.set(slot, undefined);
  }
  return changes;
}

/** Pages of 4 KiB from address 0 on, which no large page can lie in since their size isn't a multiple of one. */
export const MEMORY_PAGES = 257;

const [EIO, EFAULT, EINVAL] = [5, 14, 22];

/**
 * write(2) of a stream to a table's fd on a little-endian host with 4 KiB pages and {@link MEMORY_PAGES} of memory that
 * nobody touched: changes `slots` as KVM changes its table, what it did before it failed included.
 * @returns what the call returns, and the slots that it did something to
 */
export function writeAsKvm(slots: Slots, bytes: Uint8Array): { result: number; touched: Set<number> } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const touched = new Set<number>();
  const remove = (slot: number): void => {
    if (slots.delete(slot)) touched.add(slot);
  };
  let count = 0;
  for (let header = 0; count + 8 <= bytes.length; header += 8) {
    const index = view.getUint32(header, true);
    const nValid = view.getUint16(header + 4, true);
    const nInvalid = view.getUint16(header + 6, true);
    // The header's own eight bytes aren't counted here.
    if (count + nValid * 16 > bytes.length) return { result: count, touched };
    count += 8;
    if (index >= HTAB_ENTRIES || index + nValid + nInvalid > HTAB_ENTRIES) return { result: -EINVAL, touched };
    // The next header is taken from where these entries begin.
    for (let i = 0; i < nValid; i++) {
      const at = header + 8 + i * 16;
      if (at + 16 > bytes.length) return { result: -EFAULT, touched };
      const v = view.getBigUint64(at);
      const r = view.getBigUint64(at + 8);
      const shift = pageShift(v, r);
      if ((v & 1n) === 0n || shift === undefined) return { result: -EINVAL, touched };
      count += 16;
      // What was there is gone, also when the new entry is refused.
      remove(index + i);
      const frame = (r >> 12n) & 0xffff_ffff_ffffn & -(1n << BigInt(shift - 12));
      const isLargeInMemory = shift > 12 && frame < BigInt(MEMORY_PAGES);
      if (v >> 63n !== 0n || isLargeInMemory) return { result: -EIO, touched };
      // POWER9 keeps so much of V, KVM has two bits of its own there, and one of R.
      slots.set(index + i, [v & 0xc00f_ffff_ffff_ff9fn, r & ~(1n << 62n)]);
      touched.add(index + i);
    }
    for (let i = nValid; i < nValid + nInvalid; i++) remove(index + i);
  }
  return { result: count, touched };
}
