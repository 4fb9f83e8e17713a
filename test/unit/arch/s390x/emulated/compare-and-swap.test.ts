import { describe, expect, it } from 'vitest';
import { type GuestFault, instruction } from '../../../../../lib/emulated/guest.ts';
import { MEM, PROT } from '../../../../../lib/uapi/flags.ts';
import { DATA, PAGES, results } from './guest-machine.ts';
import { DAT64, REAL64 } from './machine.ts';

const PROBLEM = 0x0001_0000_0000_0000n;
const AT = 0x18_0010;

describe.each([
  ['CS', 4],
  ['CSG', 8],
  ['CDS', 8],
  ['CDSG', 16],
] as const)('%s of %i bytes', (name, size) => {
  const there = BigInt(`0x${'8123456789abcdef0011223344556677'.slice(0, 2 * size)}`);
  const other = (1n << BigInt(8 * size)) - 2n;
  const bytes = (value: bigint): Uint8Array =>
    Uint8Array.from(Buffer.from(value.toString(16).padStart(2 * size, '0'), 'hex'));

  it('exchanges what is as expected, and says what is there when it is not', () => {
    const { machine, found } = results(REAL64 | PROBLEM, function* (push) {
      push(yield instruction(name, 0n, there, BigInt(AT)));
      push(yield instruction(name, 0n, other, BigInt(AT)));
      push(yield instruction(name, there, other, BigInt(AT)));
    });
    expect(found).toEqual([
      [0n, 0n],
      [1n, there],
      [0n, there],
    ]);
    expect(machine.peek(AT, size)).toEqual(bytes(other));
    expect([machine.peek(AT - 8, 8), machine.peek(AT + size, 8)]).toEqual([new Uint8Array(8), new Uint8Array(8)]);
  });

  it('looks at as many bits of its operands as it exchanges', () => {
    const more = 1n << BigInt(8 * size);
    const { machine, found } = results(REAL64, function* (push) {
      push(yield instruction(name, more, more | other, BigInt(AT)));
    });
    expect(found).toEqual([[0n, 0n]]);
    expect(machine.peek(AT, size)).toEqual(bytes(other));
  });

  it('is a store, whether it exchanges or not', () => {
    const { machine, found } = results(
      REAL64 | 0x0030_0000_0000_0000n,
      function* (push) {
        yield instruction('SSKE', 0x30n, BigInt(DATA));
        yield instruction('SSKE', 0x40n, BigInt(DATA + 4096));
        push(yield instruction(name, 1n, 2n, BigInt(DATA)));
        try {
          yield instruction(name, 1n, 2n, BigInt(DATA + 4096));
        } catch (fault) {
          push((fault as GuestFault).code);
        }
      },
      { flags: MEM.LOG_DIRTY_PAGES },
    );
    expect(found).toEqual([[1n, 0n], 4]);
    expect(machine.keys(DATA / 4096, 2)).toEqual(Uint8Array.of(0x36, 0x40));
    expect(machine.dirtyPages()).toContain(DATA / 4096);
  });

  it('ends in a protection exception where the host lets nobody store', () => {
    const [PAGE, READ_ONLY] = [4096, BigInt(DATA + 4096)];
    for (const [prot, expected] of [
      [PROT.READ, [[1n, 0n], 4]],
      [PROT.NONE, [4, 4]],
    ] as const) {
      const { found } = results(
        REAL64,
        function* (push) {
          for (const old of [1n, 0n]) {
            try {
              push(yield instruction(name, old, 2n, READ_ONLY));
            } catch (fault) {
              push((fault as GuestFault).code);
            }
          }
        },
        { before: ({ kernel, hva }) => kernel.mprotect(hva + DATA + PAGE, PAGE, prot) },
      );
      expect(found).toEqual(expected);
    }
  });

  it('wants an address that is a multiple of its size, and one that translates', () => {
    const { found } = results(DAT64, function* (push) {
      yield instruction('IPTE', BigInt(PAGES), 0x3000n);
      for (const address of [0x1000 + size / 2, 0x3000 + size / 2, 0x3000]) {
        try {
          push(yield instruction(name, 0n, 1n, BigInt(address)));
        } catch (fault) {
          push((fault as GuestFault).code);
        }
      }
    });
    expect(found).toEqual([6, 6, 0x11]);
  });
});

it('CSG takes addresses of 64 bits as they are', () => {
  const { found } = results(DAT64, function* (push) {
    try {
      push(yield instruction('CSG', 0n, 1n, 0xffff_ffff_ffff_f008n));
    } catch (fault) {
      push([(fault as GuestFault).code, (fault as GuestFault).message]);
    }
  });
  expect(found).toEqual([[0x38, expect.stringContaining('0xfffffffffffff008')]]);
});
