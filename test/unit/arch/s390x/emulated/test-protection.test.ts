import { expect, it } from 'vitest';
import { type GuestFault, type GuestOp, instruction } from '../../../../../lib/emulated/guest.ts';
import { DATA, PAGES, PREFIX, results } from './guest-machine.ts';
import { DAT64, type Machine, REAL64 } from './machine.ts';

const [LOW_ADDRESS, STORAGE_OVERRIDE, FETCH_OVERRIDE] = [0x1000_0000n, 0x0100_0000n, 0x0200_0000n];
const sske = (key: number): GuestOp => instruction('SSKE', BigInt(key), BigInt(DATA));

/** What TPROT of a logical address with an access key gives: the condition code, or the interruption's. */
function tprot(psw: bigint, address: number, key: number, before: GuestOp[], cr0 = 0n): [unknown, Machine] {
  const { found, machine } = results(
    psw,
    function* (push) {
      for (const op of before) yield op;
      try {
        push(yield instruction('TPROT', BigInt(address), BigInt(key << 4)));
      } catch (fault) {
        push({ code: (fault as GuestFault).code });
      }
    },
    { cr0: cr0 | 0xe0n },
  );
  expect(found).toHaveLength(1);
  return [found[0], machine];
}

it.each([
  ['the same key', 0x30, 3, 0n, 0n],
  ['the same key, fetch protection', 0x38, 3, 0n, 0n],
  ['key 0', 0x38, 0, 0n, 0n],
  ['another key', 0x40, 3, 0n, 1n],
  ['another key, fetch protection', 0x48, 3, 0n, 2n],
  ['another key, storage-protection override of key 9', 0x98, 3, STORAGE_OVERRIDE, 0n],
  ['another key, storage-protection override of another', 0x88, 3, STORAGE_OVERRIDE, 2n],
] as const)('%s', (_, storageKey, key, cr0, cc) => {
  expect(tprot(REAL64, DATA + 0x123, key, [sske(storageKey)], cr0)[0]).toBe(cc);
  expect(tprot(DAT64, 0x123, key, [sske(storageKey)], cr0)[0]).toBe(cc);
});

it('low-address protection and fetch-protection override', () => {
  const low = [instruction('SSKE', 0x48n, 0n)];
  expect(tprot(REAL64, 0, 0, [], LOW_ADDRESS)[0]).toBe(1n);
  expect(tprot(REAL64, 512, 0, [], LOW_ADDRESS)[0]).toBe(0n);
  expect(tprot(REAL64, 0, 3, low, LOW_ADDRESS)[0]).toBe(2n);
  expect(tprot(REAL64, 0, 3, low, FETCH_OVERRIDE)[0]).toBe(1n);
  expect(tprot(REAL64, 2048, 3, low, FETCH_OVERRIDE)[0]).toBe(2n);
});

it('pages that may not be stored to, that are not there, and whose frame is not there', () => {
  const entry = (page: number, value: bigint): GuestOp[] => [
    instruction('CSG', BigInt(DATA + (page % 16) * 4096), value, BigInt(PAGES + page * 8)),
  ];
  expect(tprot(DAT64, 0x1000, 0, [])[0]).toBe(0n);
  const real = (ops: GuestOp[]): [unknown, Machine] => tprot(REAL64, DATA, 0, ops);
  for (const [value, answer] of [
    [BigInt(DATA) | 0x200n, 1n],
    [BigInt(DATA) | 0x400n, 3n],
    [0x5000_0000n, { code: 5 }],
    [BigInt(DATA) | 0x800n, { code: 0x12 }],
  ] as const) {
    const [, machine] = real(entry(1, value));
    machine.latch(DAT64, { 1: 0x10_0003n }, PREFIX);
    const found: unknown[] = [];
    machine.kernel.loadGuest(
      machine.vcpu,
      (function* () {
        try {
          found.push(yield instruction('TPROT', 0x1000n, 0n));
        } catch (fault) {
          found.push({ code: (fault as GuestFault).code });
        }
      })(),
    );
    machine.kernel.run(machine.vcpu, 0);
    expect(found).toEqual([answer]);
  }
});

it('stores nothing, and is for the supervisor', () => {
  const [, machine] = tprot(REAL64, DATA, 3, [sske(0x30)]);
  expect(machine.keys(DATA / 4096, 1)).toEqual(Uint8Array.of(0x30));
  expect(tprot(REAL64 | 0x0001_0000_0000_0000n, DATA, 3, [])[0]).toEqual({ code: 2 });
});
