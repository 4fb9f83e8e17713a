import { expect, it } from 'vitest';
import { MAP, PROT } from '../../../../../lib/uapi/flags.ts';
import { Machine, MIB } from './machine.ts';

it.each(['6.12', '7.0'])('memory that may not be read is not, in one page or across them, on %s', (release) => {
  const machine = new Machine({ release }).addMemory();
  const mapped = (prot: number): number => machine.kernel.mmap(MIB, prot, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, MIB, 0);
  const gpa = 8 * MIB;
  expect(machine.slot(1, gpa, MIB, mapped(PROT.NONE))).toBe(0);
  const refused = machine.read(gpa, 8);
  expect(refused).not.toBe(0);
  expect(machine.read(gpa + 0x800, 0x2000)).toBe(refused);
  // Neither where the first page can.
  expect(machine.kernel.mprotect(machine.hva + 2 * MIB + 0x1000, 0x1000, PROT.NONE)).toBe(0);
  expect(machine.read(2 * MIB + 0x800, 0x1000)).toBe(refused);
  expect(machine.read(2 * MIB + 0x800, 0x800)).toBe(0);
  // What may be written may be read.
  expect(machine.slot(2, 9 * MIB, MIB, mapped(PROT.WRITE))).toBe(0);
  expect([machine.read(9 * MIB + 0x800, 0x2000), machine.write(9 * MIB, 8)]).toEqual([0, 0]);
});
