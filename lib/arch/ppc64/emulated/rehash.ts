import { fromHalves } from '../../../base/u64.ts';
import { groupsOf, type HpteWords } from '../model/hash.ts';
import { HPTES_PER_GROUP, V_HI, V_LO } from '../model/hpte.ts';
import { basePageShift } from '../model/page-sizes.ts';

/**
 * Where RESIZE_HPT_COMMIT puts an entry in a table of another order, computed as KVM does it: for an entry that stands where
 * its hash can't lead (nothing stops a guest from that) the bits of its group spill into the virtual page.
 */
export function rehashedSlot(table: HpteWords, slot: number, order: number): number {
  const vHi = table.vHi(slot);
  const vLo = table.vLo(slot);
  const shift = BigInt(basePageShift(vLo, table.rLo(slot)));
  const oldMask = BigInt(groupsOf(table.order)) - 1n;
  const newMask = BigInt(groupsOf(order)) - 1n;
  const secondary = (vLo & V_LO.SECONDARY) !== 0;

  const implied = ((1n << shift) - 1n) >> 23n;
  const avpn = ((fromHalves(vHi, vLo) & 0x3fff_ffff_ffff_ff80n) >> 7n) & ~implied;
  const group = BigInt(Math.floor(slot / HPTES_PER_GROUP));
  const hashed = secondary ? ~group : group;

  // V has the segment's VSID and of the offset all from bit 23 up: 5 bits in 256 MiB, 17 in 1 TiB.
  const is1T = (vHi & V_HI.B_1T) !== 0;
  const offsetBits = is1T ? 17n : 5n;
  const vsid = avpn >> offsetBits;
  const base = is1T ? vsid ^ (vsid << 25n) : vsid;
  let offset = (avpn & ((1n << offsetBits) - 1n)) << 23n;
  if (shift < 23n) offset |= ((base ^ hashed) & oldMask) << shift;

  const hash = base ^ (offset >> shift);
  const to = (secondary ? ~hash : hash) & newMask;
  return Number(to) * HPTES_PER_GROUP + (slot % HPTES_PER_GROUP);
}
