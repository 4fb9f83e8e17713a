import { inspect } from 'node:util';
import { expect, it } from 'vitest';
import { AddressSpace, Kvm, MmioBus } from '../../../lib/index.ts';
import { PROT } from '../../../lib/raw.ts';

const UNIT = 0x10_0000;
const open = () => Kvm.open({ backend: 'emulated', arch: 'x86_64' });
/** Without what follows a host address, which differs. */
const linesOf = (value: unknown): string[] =>
  inspect(value)
    .replaceAll(/\[0x[0-9a-f]+, 0x[0-9a-f]+\)(?= \()|(?<=hva )0x[0-9a-f]+/g, 'HVA')
    .split('\n')
    .map((line) => line.trim().replaceAll(/ {2,}/g, ' | '));

it('a bus shows its ranges and their names', () => {
  const bus = new MmioBus('mmio', true);
  expect(linesOf(bus)).toEqual(['MmioBus (mmio), 0 ranges']);
  bus.add(0x1000, 0x10, { read: () => 0, write: () => {} }, 'uart');
  expect(linesOf(bus)).toEqual(['MmioBus (mmio), 1 range', 'mmio | name', '[0x1000, 0x1010) | uart']);
  bus.add(0x2000, 8, {});
  expect(linesOf(bus)).toEqual([
    'MmioBus (mmio), 2 ranges',
    'mmio | name',
    '[0x1000, 0x1010) | uart',
    '[0x2000, 0x2008)',
  ]);
});

it('a range of a bus shows what answers', () => {
  const bus = new MmioBus('port', true);
  const both = bus.add(0x3f8, 8, { read: () => 0, write: () => {} }, 'uart');
  expect(inspect(both)).toBe("port 'uart' [0x3f8, 0x400), handlers read and write");
  class Device {
    read = () => 0;
    write(): void {}
  }
  expect(inspect(bus.add(0x70, 2, new Device()))).toBe('port [0x70, 0x72), handlers read and write');
  const ofOther = { write: () => {}, littleEndian: false };
  expect(inspect(bus.add(0x80, 1, ofOther))).toBe('port [0x80, 0x81), handlers write');
  expect(inspect(bus.add(0x60, 1, {}))).toBe('port [0x60, 0x61), handlers that do nothing');
});

it('a region shows where its memory is, how large it is, and who may write', () => {
  using kvm = open();
  using vm = kvm.createVm();
  const mapping = kvm.mapAnonymous(2 * UNIT);
  const ram = vm.memory.addRam(0, mapping, { offset: UNIT, name: 'low' });
  const hva = mapping.hva + UNIT;
  const range = `[0x${hva.toString(16)}, 0x${(hva + UNIT).toString(16)})`;
  expect(inspect(ram)).toBe(`ram 'low' [0x0, 0x100000) → anonymous hva ${range} (1 MiB)`);
  ram.setReadOnly(true);
  expect(`${ram}`).toBe("ram 'low' [0x0, 0x100000) read-only");
  expect(`${vm.memory.addDevice(UNIT, mapping)}`).toBe('device [0x100000, 0x300000)');
});

it('an address space shows all its regions in order', () => {
  using kvm = open();
  using vm = kvm.createVm();
  const { memory } = vm;
  expect(linesOf(memory)).toEqual([`AddressSpace ${memory.id}, 0 regions`]);
  memory.addRam(UNIT, kvm.mapAnonymous(UNIT), { readOnly: true, name: 'rom' });
  expect(linesOf(memory)[0]).toBe(`AddressSpace ${memory.id}, 1 region`);
  memory.addMmio(0, 0x20, {});
  memory.addMmio(4 * UNIT, 8, {}, { name: 'timer' });
  memory.addDevice(2 * UNIT, kvm.mapMemfd(UNIT));
  const [head, headings, ...rows] = linesOf(memory);
  expect(head).toBe(`AddressSpace ${memory.id}, 4 regions`);
  expect(headings).toBe('gpa | size | kind | mapping, hva | name');
  expect(rows.map((row) => row.replaceAll(/0x[0-9a-f]{9,}/g, 'HVA'))).toEqual([
    '[0x0, 0x20) | 32 bytes | mmio',
    '[0x100000, 0x200000) | 1 MiB | ram | anonymous HVA | read-only | rom',
    '[0x200000, 0x300000) | 1 MiB | device | memfd HVA',
    '[0x400000, 0x400008) | 8 bytes | mmio | timer',
  ]);
});

it('a mapping shows how often it is in use, and whether it is there', () => {
  using kvm = open();
  using space = new AddressSpace({ littleEndian: true, pageSize: kvm.pageSize });
  const mapping = kvm.mapMemfd(UNIT);
  const range = `[0x${mapping.hva.toString(16)}, 0x${(mapping.hva + UNIT).toString(16)})`;
  const shown = `Mapping memfd hva ${range} (1 MiB), pinned`;
  expect(inspect(mapping)).toBe(`${shown} 0 times`);
  const region = space.addRam(0, mapping);
  expect(inspect(mapping)).toBe(`${shown} 1 time`);
  mapping.close();
  expect(inspect(mapping)).toBe(`${shown} 1 time, closed, still used`);
  region.remove();
  expect(inspect(mapping)).toBe(`${shown} 0 times, closed`);
});

it('a reservation shows its pieces and how they can be accessed', () => {
  using kvm = open();
  using reservation = kvm.reserve(4 * UNIT);
  expect(linesOf(reservation)).toHaveLength(1);
  reservation.mapAnonymous(0, UNIT);
  reservation.mapMemfd(UNIT, UNIT, { prot: PROT.READ });
  reservation.mapMemfd(2 * UNIT, UNIT, { prot: PROT.NONE });
  expect(linesOf(reservation).slice(1)).toEqual([
    'offset | size | kind | access',
    '[0x0, 0x100000) | 1 MiB | anonymous | read, write',
    '[0x100000, 0x200000) | 1 MiB | memfd | read',
    '[0x200000, 0x300000) | 1 MiB | memfd | none',
  ]);
});

it('memslots show their id, flags and memory', () => {
  using kvm = open();
  using vm = kvm.createVm();
  const { userSlots } = vm.memslots.limits;
  expect(inspect(vm.memslots)).toBe(`Memslots (0 of ${userSlots})`);
  const mapping = kvm.mapAnonymous(UNIT);
  const hva = `0x${mapping.hva.toString(16)}`;
  vm.memory.addRam(UNIT, mapping, { readOnly: true });
  vm.memslots.set({ slot: 0x1_0003, guestPhysAddr: 0x1000, memorySize: 0x2000, userspaceAddr: mapping.hva });
  expect(linesOf(vm.memslots)).toEqual([
    `Memslots (2 of ${userSlots})`,
    'slot | gpa | size | hva | flags',
    `0 | [0x100000, 0x200000) | 1 MiB | ${hva} | READONLY`,
    `1:3 | [0x1000, 0x3000) | 8 KiB | ${hva}`,
  ]);
  vm.dirtyPages.start();
  expect(linesOf(vm.memslots)[2]).toBe(`0 | [0x100000, 0x200000) | 1 MiB | ${hva} | LOG_DIRTY_PAGES | READONLY`);
  vm.close();
  expect(inspect(vm.memslots)).toBe('Memslots of a closed VM');
});

it('dirty pages show whether they are tracked, how, and how many were collected', () => {
  using kvm = open();
  using vm = kvm.createVm();
  vm.memory.addRam(0, kvm.mapAnonymous(UNIT));
  expect(inspect(vm.dirtyPages)).toBe('DirtyPages (stopped)');
  vm.dirtyPages.start();
  vm.memory.writeU8(0x1000, 1);
  vm.memory.writeU8(0x3000, 1);
  vm.dirtyPages.collect();
  expect(inspect(vm.dirtyPages)).toBe('DirtyPages (log), 2 pages collected in 1 memslot');
});
