/** Guest memory that is a file, whose bytes are not in this process, and what the host's protection makes of accesses. */

import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MAP, PROT } from '../../../../../lib/uapi/flags.ts';
import { CHECK_ONLY, DAT64, LOG, Machine, MIB, REAL64, SKEY } from './machine.ts';

const [EFAULT, PROTECTION, ADDRESSING] = [-14, 4, 5];
/** Where the file is in the guest, and the first of its frames. */
const AT = 8 * MIB;
const FRAME = AT / 4096;
const READ_WRITE = PROT.READ | PROT.WRITE;

/** A machine with a file of 1 MiB at AT: each page has its number in all bytes. */
function withFile(release: string, prot = READ_WRITE, size = MIB): { machine: Machine; hva: number } {
  const machine = new Machine({ release }).addMemory(LOG);
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
  try {
    const path = join(folder, 'file');
    writeFileSync(
      path,
      Buffer.alloc(MIB).map((_, i) => i >> 12),
    );
    const fd = openSync(path, 'r+');
    const reserved = machine.kernel.mmap(MIB, PROT.NONE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, MIB, 0);
    const hva = machine.kernel.mmapFixed(reserved, MIB, prot, MAP.PRIVATE, fd, 0) === 0 ? reserved : -1;
    ftruncateSync(fd, size);
    closeSync(fd);
    expect(machine.slot(1, AT, MIB, hva, LOG)).toBe(0);
    return { machine, hva };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe.each(['6.12', '7.0'])('a file on %s', (release) => {
  const dirty = (machine: Machine): number[] => {
    const bitmap = new Uint8Array(32);
    expect(machine.kernel.getDirtyLog(machine.vm, 1, bitmap)).toBe(0);
    return [...Array(256).keys()].filter((page) => (bitmap[page >> 3]! >> (page & 7)) & 1);
  };

  it('is read and written, by logical and by absolute addresses', () => {
    const { machine, hva } = withFile(release);
    machine.latch(REAL64);
    for (const read of ['read', 'absoluteRead'] as const) {
      const buf = new Uint8Array(0x1004);
      expect(machine[read](AT + 0x2ffe, buf.length, { buf })).toBe(0);
      expect([buf[0], buf[1], buf[2], buf[0x1001], buf[0x1002], buf[0x1003]]).toEqual([2, 2, 3, 3, 4, 4]);
    }
    expect(machine.write(AT + 0x5ffe, 4, { buf: Uint8Array.of(0xa1, 0xa2, 0xa3, 0xa4) })).toBe(0);
    expect(machine.absoluteWrite(AT + 0x7000, 2, { buf: Uint8Array.of(0xb1, 0xb2) })).toBe(0);
    const back = new Uint8Array(MIB);
    expect(machine.kernel.readMemory(hva, back)).toBe(MIB);
    expect([...back.subarray(0x5ffd, 0x6003)]).toEqual([5, 0xa1, 0xa2, 0xa3, 0xa4, 6]);
    expect([...back.subarray(0x6fff, 0x7003)]).toEqual([6, 0xb1, 0xb2, 7]);
    expect(dirty(machine)).toEqual([5, 6, 7]);
  });

  it('has keys, which accesses mark and obey', () => {
    const { machine } = withFile(release);
    machine.latch(REAL64);
    machine.read(AT, 8);
    machine.setKeys(FRAME, 0x10, 0x20, 0x38);
    machine.read(AT, 8);
    machine.write(AT + 0x1000, 8);
    expect(machine.keys(FRAME, 4)).toEqual(Uint8Array.of(0x14, 0x26, 0x38, 0));
    for (const [key, read, write] of [
      [3, 0, 0],
      [1, PROTECTION, PROTECTION],
    ] as const) {
      const options = { key, flags: SKEY };
      expect([machine.read(AT + 0x2000, 8, options), machine.write(AT + 0x2000, 8, options)]).toEqual([read, write]);
    }
  });

  it('may hold translation tables, whose reading counts as an access', () => {
    const { machine } = withFile(release);
    const doubleword = (value: bigint) => ({
      buf: Uint8Array.from(Buffer.from(value.toString(16).padStart(16, '0'), 'hex')),
    });
    machine.absoluteRead(AT, 8);
    machine.absoluteWrite(AT, 8, doubleword(BigInt(AT) + 0x1000n));
    machine.absoluteWrite(AT + 0x1018, 8, doubleword(0x6_0000n));
    machine.latch(DAT64, { 0: 0xe0n, 1: BigInt(AT) });
    machine.poke(0x6_0000, Uint8Array.of(0x5a));
    machine.setKeys(FRAME, 0, 0, 0);
    const buf = new Uint8Array(1);
    expect(machine.read(0x3000, 1, { buf })).toBe(0);
    expect(buf[0]).toBe(0x5a);
    expect(machine.keys(FRAME, 3)).toEqual(Uint8Array.of(4, 4, 0));
    machine.absoluteWrite(AT + 0x1020, 8, doubleword(0x6_1000n));
    machine.poke(0x6_1000, Uint8Array.of(0xa5));
    const pages = new Uint8Array(0x2000);
    expect(machine.read(0x3000, pages.length, { buf: pages })).toBe(0);
    expect([pages[0], pages[0x1000]]).toEqual([0x5a, 0xa5]);
  });

  it('that ends before its mapping does has nothing there, whatever the access', () => {
    const { machine } = withFile(release, READ_WRITE, 0x3000);
    machine.latch(REAL64);
    // Up to 6.19 KVM takes a page that it can't get for one whose key forbids it.
    const missing = release === '7.0' ? EFAULT : PROTECTION;
    for (const read of ['read', 'absoluteRead'] as const) {
      const buf = new Uint8Array(0x3000).fill(9);
      expect([machine[read](AT + 0x2ffc, 4), machine[read](AT + 0x3000, 8)]).toEqual([0, missing]);
      expect(machine[read](AT + 0x1000, 0x3000, { buf })).toBe(missing);
      // All or nothing.
      expect(buf.every((byte) => byte === 9)).toBe(true);
    }
    const old = Uint8Array.of(3, 3, 3, 3);
    expect(machine.exchange(AT + 0x3000, 4, old, new Uint8Array(4))).toBe(missing);
  });

  it('that may not be written keeps stores from it', () => {
    const { machine } = withFile(release, PROT.READ);
    machine.latch(REAL64);
    const refused = release === '7.0' ? EFAULT : PROTECTION;
    expect([machine.read(AT, 8), machine.write(AT, 8), machine.absoluteWrite(AT, 8)]).toEqual([0, refused, refused]);
    expect(dirty(machine)).toEqual([]);
  });
});

it('6.12: user space has a page table for a file that was accessed, also in vain for a key', () => {
  const keysAfter = (access: (machine: Machine) => unknown): Uint8Array | number => {
    const { machine } = withFile('6.12');
    machine.setKeys(0, 0x10);
    access(machine);
    machine.setKeys(FRAME + 5, 0x20, 0x30);
    return machine.keys(FRAME + 5, 2);
  };
  const [lost, kept] = [Uint8Array.of(0, 0x30), Uint8Array.of(0x20, 0x30)];
  expect(keysAfter(() => {})).toEqual(lost);
  expect(keysAfter((machine) => machine.absoluteRead(AT, 8))).toEqual(kept);
  const forbidden = (machine: Machine) =>
    expect(machine.absoluteWrite(AT, 8, { flags: SKEY, key: 1 })).toBe(PROTECTION);
  expect(keysAfter(forbidden)).toEqual(kept);
});

it.each(['6.12', '7.0'])('memory that may not be read holds no translation tables, on %s', (release) => {
  const machine = new Machine({ release }).addMemory();
  machine.latch(DAT64, { 0: 0xe0n, 1: BigInt(MIB) });
  // The page table is at 0.
  machine.pokeDoubleword(8, 0x6_0000n);
  const read = (): number => machine.read(0x1000, 8);
  expect(read()).toBe(0);
  for (const [prot, answer] of [
    [PROT.NONE, EFAULT],
    [PROT.READ, 0],
    [PROT.WRITE, 0],
  ] as const) {
    expect(machine.kernel.mprotect(machine.hva + MIB, 4096, prot)).toBe(0);
    expect(read()).toBe(answer);
  }
});

describe('where user space has nothing mapped', () => {
  function unmapped(release: string): Machine {
    const machine = new Machine({ release }).addMemory();
    machine.latch(REAL64);
    machine.setKeys(0, 0x10);
    const hva = machine.map(MIB);
    expect(machine.slot(1, AT, MIB, hva)).toBe(0);
    expect(machine.kernel.munmap(hva, MIB)).toBe(0);
    return machine;
  }
  const checks = (machine: Machine, key: number): number[] =>
    (['read', 'absoluteRead'] as const).map((read) => machine[read](AT, 8, { flags: CHECK_ONLY | SKEY, key }));

  it('a check with a key finds no key up to 6.19, and from 7.0 on the one that KVM has', () => {
    const [before, since] = [unmapped('6.12'), unmapped('7.0')];
    expect([checks(before, 0), checks(before, 1)]).toEqual([
      [0, 0],
      [EFAULT, EFAULT],
    ]);
    expect([checks(since, 0), checks(since, 1)]).toEqual([
      [0, 0],
      [0, 0],
    ]);
    since.setKeys(FRAME, 0x28);
    expect([checks(since, 1), checks(since, 2)]).toEqual([
      [PROTECTION, PROTECTION],
      [0, 0],
    ]);
  });

  it.each([
    ['6.12', PROTECTION],
    ['7.0', EFAULT],
  ])('an access on %s', (release, refused) => {
    const machine = unmapped(release);
    for (const access of ['read', 'write', 'absoluteRead', 'absoluteWrite'] as const)
      expect(machine[access](AT, 8)).toBe(refused);
    expect(machine.read(AT + MIB, 8)).toBe(ADDRESSING);
  });
});

it('7.2: slots of single pages end where they end, in the middle of a segment of the host', () => {
  const machine = new Machine({ release: '7.2' }).addMemory();
  machine.latch(REAL64);
  const hva = machine.map(MIB);
  machine.kernel.writeMemory(
    hva,
    Uint8Array.from({ length: MIB }, (_, i) => i >> 12),
  );
  expect(machine.slot(1, AT + 0x5000, 0x3000, hva + 0x2000)).toBe(0);
  const at = (gpa: number): number[] => {
    const buf = Uint8Array.of(0xee);
    return [machine.absoluteRead(gpa, 1, { buf }), buf[0]!];
  };
  // The middle first, from where neighbours are looked for.
  expect([6, 5, 7, 4, 8, 3].map((page) => at(AT + page * 0x1000))).toEqual([
    [0, 3],
    [0, 2],
    [0, 4],
    [ADDRESSING, 0xee],
    [ADDRESSING, 0xee],
    [ADDRESSING, 0xee],
  ]);
});
