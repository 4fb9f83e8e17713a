import { describe, expect, it } from 'vitest';
import { type GuestFault, instruction, spin } from '../../../../../lib/emulated/guest.ts';
import { MEM, PROT } from '../../../../../lib/uapi/flags.ts';
import { addUnmapped, DATA, PREFIX, results, running } from './guest-machine.ts';
import { type Machine, MIB, REAL64 } from './machine.ts';

const [SET_KEY, CLEAR_FRAME, MIB_FRAME, GIB_FRAMES] = [0x2_0000n, 0x1_0000n, 0x1000n, 0x2000n];
const [ANY_REFERENCE, ANY_CHANGE] = [0x400n, 0x200n];
const LOW_ADDRESS = 0x1000_0000n;

/** What PFMFs give one after the other, the interruptions' codes among it. */
function pfmf(
  psw: bigint,
  operands: readonly (readonly [control: bigint, address: bigint])[],
  options: { cr0?: bigint; before?: (machine: Machine) => void } = {},
): { found: unknown[]; machine: Machine } {
  const { machine, found } = results(
    psw,
    function* (push) {
      for (const [control, address] of operands) {
        try {
          push(yield instruction('PFMF', control, address));
        } catch (fault) {
          push({ code: (fault as GuestFault).code });
        }
      }
    },
    { flags: MEM.LOG_DIRTY_PAGES, ...options },
  );
  return { machine, found };
}

const keysAfter = (before: number, control: bigint): number => {
  const { machine } = pfmf(REAL64, [
    [SET_KEY | BigInt(before), BigInt(DATA)],
    [control, BigInt(DATA)],
  ]);
  return (machine.keys(DATA / 4096, 1) as Uint8Array)[0]!;
};

describe('PFMF', () => {
  it('clears the frame at a real address, and nothing else', () => {
    const { machine, found } = results(REAL64, function* (push) {
      for (const address of [0x1000, 0x1ff8, 0x2000, DATA + 0xff8]) {
        yield instruction('CSG', 0n, -1n, BigInt(address));
      }
      push(yield instruction('PFMF', CLEAR_FRAME, 0x1234n));
    });
    expect(found).toEqual([0x1234n]);
    expect([0xff8, 0x1000, 0x1ff8].map((at) => machine.peek(PREFIX + at, 1)[0])).toEqual([0, 0, 0]);
    expect([machine.peek(0x2000, 1)[0], machine.peek(DATA + 0xff8, 1)[0]]).toEqual([0xff, 0xff]);
  });

  it('sets the key of one frame, or of all to the end of the large one, and says where the next begins', () => {
    const { machine, found } = pfmf(REAL64, [
      [SET_KEY | 0x36n, BigInt(DATA) | 5n],
      [SET_KEY | MIB_FRAME | 0x52n, BigInt(2 * MIB - 0x3000) | 5n],
    ]);
    expect(found).toEqual([BigInt(DATA) | 5n, BigInt(2 * MIB)]);
    expect(machine.keys(DATA / 4096 - 1, 3)).toEqual(Uint8Array.of(0, 0x36, 0));
    expect(machine.keys((2 * MIB) / 4096 - 4, 5)).toEqual(Uint8Array.of(0, 0x52, 0x52, 0x52, 0));
  });

  it('goes on above 4 GiB where the one before ended', () => {
    const found: unknown[] = [];
    const machine = running(REAL64, function* () {
      found.push(yield instruction('PFMF', CLEAR_FRAME | MIB_FRAME, 0x1_fff0_0000n));
      yield spin;
    });
    expect(machine.slot(1, 0x1_fff0_0000, MIB, machine.map(MIB))).toBe(0);
    machine.kernel.run(machine.vcpu, 0);
    expect(found).toEqual([0x2_0000_0000n]);
  });

  it('a large frame has an absolute address, a small one a real one', () => {
    const { machine } = pfmf(REAL64, [
      [SET_KEY | MIB_FRAME | 0x20n, 0n],
      [SET_KEY | 0x30n, 0n],
    ]);
    expect(machine.keys(0, 2)).toEqual(Uint8Array.of(0x20, 0x20));
    expect(machine.keys(PREFIX / 4096, 2)).toEqual(Uint8Array.of(0x30, 0));
  });

  it('ends at the first frame without storage, and what precedes it is done', () => {
    const { machine, found } = pfmf(REAL64, [
      [SET_KEY | GIB_FRAMES | 0x40n, BigInt(4 * MIB - 0x1000)],
      [CLEAR_FRAME, BigInt(4 * MIB)],
    ]);
    expect(found).toEqual([{ code: 5 }, { code: 5 }]);
    expect(machine.keys((4 * MIB) / 4096 - 2, 2)).toEqual(Uint8Array.of(0, 0x40));
  });

  it('meets a frame that the host lets nobody write, and one that it has not', () => {
    const { found, machine } = pfmf(
      REAL64,
      [
        [CLEAR_FRAME, BigInt(DATA)],
        [SET_KEY | 0x30n, BigInt(DATA)],
        [CLEAR_FRAME, BigInt(4 * MIB)],
        [SET_KEY | 0x30n, BigInt(4 * MIB)],
      ],
      {
        before: (made) => {
          made.kernel.mprotect(made.hva + DATA, 4096, PROT.READ);
          addUnmapped(made);
        },
      },
    );
    expect(found).toEqual([{ code: 5 }, BigInt(DATA), { code: 5 }, { code: 5 }]);
    expect(machine.keys(DATA / 4096, 1)).toEqual(Uint8Array.of(0x30));
  });

  it('is a change of each frame', () => {
    const { machine } = pfmf(REAL64, [[CLEAR_FRAME | MIB_FRAME, BigInt(MIB + 0xfe000)]]);
    expect(machine.dirtyPages()).toEqual(expect.arrayContaining([0x1fe, 0x1ff]));
  });

  it.each([
    // The key is the same but for R and C: those that needn't be set don't make it another.
    [0x36, 0x30n | ANY_REFERENCE | ANY_CHANGE, 0x36],
    [0x34, 0x30n | ANY_REFERENCE, 0x34],
    [0x36, 0x30n | ANY_REFERENCE, 0x30],
    [0x32, 0x30n | ANY_CHANGE, 0x32],
    [0x36, 0x30n | ANY_CHANGE, 0x30],
    [0x36, 0x30n, 0x30],
    [0x36, 0x38n | ANY_REFERENCE | ANY_CHANGE, 0x38],
    [0x36, 0x40n | ANY_REFERENCE | ANY_CHANGE, 0x40],
  ])('a key of 0x%s with 0x%s', (before, control, after) => {
    expect(keysAfter(before, SET_KEY | control)).toBe(after);
  });

  it.each([
    [0n, true],
    [ANY_REFERENCE, false],
    [ANY_CHANGE, false],
    [ANY_REFERENCE | ANY_CHANGE, false],
  ])(
    'a key that is there by accesses is set, which changes the page, only where R and C matter: 0x%s',
    (any, isSet) => {
      const dirty: boolean[] = [];
      let machine: Machine | undefined;
      results(
        REAL64,
        function* () {
          yield instruction('SSKE', 0x30n, BigInt(DATA));
          yield instruction('CSG', 0n, -1n, BigInt(DATA));
          machine!.dirtyPages();
          yield instruction('PFMF', SET_KEY | 0x36n | any, BigInt(DATA));
          dirty.push(machine!.dirtyPages().includes(DATA / 4096));
          expect(machine!.keys(DATA / 4096, 1)).toEqual(Uint8Array.of(0x36));
        },
        {
          flags: MEM.LOG_DIRTY_PAGES,
          before: (made) => {
            machine = made;
          },
        },
      );
      expect(dirty).toEqual([isSet]);
    },
  );

  it('sets no key without being asked; clearing is a store', () => {
    expect(keysAfter(0x30, 0x50n)).toBe(0x30);
    expect(keysAfter(0x30, CLEAR_FRAME | 0x50n)).toBe(0x36);
  });

  it.each([
    ['reserved bits', REAL64, 0x100n],
    ['the lowest bit', REAL64, 1n],
    ['a frame size there is not', REAL64, 0x3000n],
    ['2 GiB in 24-bit mode', 0n, GIB_FRAMES],
  ])('%s are a specification exception', (_, psw, control) => {
    expect(pfmf(psw, [[control, BigInt(DATA)]]).found).toEqual([{ code: 6 }]);
  });

  it('smaller frames are there in 24-bit mode', () => {
    expect(pfmf(0n, [[SET_KEY, BigInt(DATA)]]).found).toEqual([BigInt(DATA)]);
    expect(pfmf(0n, [[SET_KEY | MIB_FRAME, BigInt(2 * MIB - 0x1000)]]).found).toEqual([BigInt(2 * MIB)]);
  });

  it('low-address protection keeps it from clearing, not from setting keys', () => {
    const low: [bigint, bigint][] = [
      [CLEAR_FRAME, 0n],
      [CLEAR_FRAME, 0x1fffn],
      [CLEAR_FRAME, 0x2000n],
      [SET_KEY, 0n],
    ];
    expect(pfmf(REAL64, low, { cr0: LOW_ADDRESS }).found).toEqual([{ code: 4 }, { code: 4 }, 0x2000n, 0n]);
    expect(pfmf(REAL64, low).found).toEqual([0n, 0x1fffn, 0x2000n, 0n]);
  });

  it('in 31-bit mode the upper half of the register stays', () => {
    const MODE31 = 0x8000_0000n;
    const { found } = pfmf(MODE31, [[SET_KEY | MIB_FRAME, 0x1234_5678_8018_0000n]]);
    expect(found).toEqual([0x1234_5678_0020_0000n]);
  });

  it('is for the supervisor', () => {
    expect(pfmf(REAL64 | 0x0001_0000_0000_0000n, [[SET_KEY, 0n]]).found).toEqual([{ code: 2 }]);
  });
});
