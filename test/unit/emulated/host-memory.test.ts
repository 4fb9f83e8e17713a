import { expect, it } from 'vitest';
import { EmulatedHostMemory } from '../../../lib/emulated/host-memory.ts';
import { MAP, PROT } from '../../../lib/uapi/flags.ts';

const TIB = 2 ** 40;
const map = (memory: EmulatedHostMemory, length: number, align = 0): number =>
  memory.map({ length, prot: PROT.READ | PROT.WRITE, flags: MAP.PRIVATE | MAP.ANONYMOUS }, align, 0, undefined);

it('addresses come again once all have been used, and never two mappings at one', () => {
  const memory = new EmulatedHostMemory(4096);
  const kept = [map(memory, 0x3000), map(memory, 0x1000, 0x20_0000)];
  for (let round = 0; round < 40; round++) {
    const hva = map(memory, TIB, 0x20_0000);
    expect(hva, String(round)).toBeGreaterThan(0);
    expect(hva % 0x20_0000).toBe(0);
    expect(hva + TIB).toBeLessThanOrEqual(2 ** 47);
    for (const other of kept) expect(other + 0x3000 <= hva || other >= hva + TIB).toBe(true);
    expect(memory.write(hva + TIB - 8, Uint8Array.of(round))).toBe(1);
    const back = new Uint8Array(1);
    for (const other of kept) expect([memory.read(other, back), back[0]]).toEqual([1, 0]);
    if (round % 8 === 7) kept.push(map(memory, 0x1000));
    expect(memory.unmap(hva, TIB)).toBe(0);
  }
});

it('there is no room for more than all addresses', () => {
  const memory = new EmulatedHostMemory(4096);
  const all = [];
  for (let hva = map(memory, TIB); hva > 0; hva = map(memory, TIB)) all.push(hva);
  expect(all.length).toBe(15);
  expect(map(memory, TIB)).toBe(-12);
  expect(memory.unmap(all[3]!, TIB)).toBe(0);
  expect(map(memory, TIB)).toBe(all[3]);
});
