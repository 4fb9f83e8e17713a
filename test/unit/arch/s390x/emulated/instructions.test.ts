/** What scripted guests do to tables, keys and frames, and what MEM_OP sees of it. */

import { describe, expect, it } from 'vitest';
import {
  GuestFault,
  type GuestOp,
  type GuestProgram,
  instruction,
  load,
  spin,
  store,
} from '../../../../../lib/emulated/guest.ts';
import { MADV, MAP, MEM, PROT } from '../../../../../lib/uapi/flags.ts';
import { addUnmapped, DATA, PAGES, PREFIX, results, running, SEGMENTS } from './guest-machine.ts';
import { DAT64, type Machine, MIB, REAL64 } from './machine.ts';

describe('invalidation', () => {
  it('IPTE makes a page invalid, for the guest and for MEM_OP', () => {
    const { machine, found } = results(DAT64, function* (push) {
      yield store(MIB + 0x3000, 4, 0xabcdn);
      yield instruction('IPTE', BigInt(PAGES), 0x10_3000n);
      try {
        yield load(MIB + 0x3000, 4);
      } catch (fault) {
        push((fault as GuestFault).code);
      }
      push(yield load(MIB + 0x2000, 4));
      yield spin;
    });
    expect(found).toEqual([0x11, 0n]);
    expect(machine.read(MIB + 0x3000, 8)).toBe(0x11);
    expect(machine.read(MIB + 0x2000, 8)).toBe(0);
  });

  it('IPTE leaves the rest of the entry, and its neighbours', () => {
    const entries = (machine: Machine): bigint[] => {
      const table = new DataView(machine.peek(PAGES, 4 * 8).buffer);
      return [0, 1, 2, 3].map((i) => table.getBigUint64(8 * i));
    };
    const { machine } = results(REAL64, function* () {
      // Of the origin the lowest 11 bits don't count, and of the address those that number the segment.
      yield instruction('IPTE', BigInt(PAGES) | 0x7ffn, 0x1234_5670_2fffn);
    });
    expect(entries(machine)).toEqual([0, 1, 2, 3].map((i) => BigInt(DATA + i * 4096) | (i === 2 ? 0x400n : 0n)));
  });

  it('a table that the host lets nobody write makes a protection exception', () => {
    const { found } = results(
      REAL64,
      function* (push) {
        for (const [name, ...operands] of [
          ['IPTE', BigInt(PAGES), 0x3000n],
          ['IDTE', BigInt(PAGES), 0x10_0000n],
          ['CSPG', BigInt(DATA), 0n, BigInt(PAGES)],
        ] as const) {
          try {
            yield instruction(name, ...operands);
          } catch (fault) {
            push([name, (fault as GuestFault).code]);
          }
        }
      },
      { before: ({ kernel, hva }) => kernel.mprotect(hva + PAGES, 4096, PROT.READ) },
    );
    expect(found).toEqual([
      ['IPTE', 4],
      ['IDTE', 4],
      ['CSPG', 4],
    ]);
  });

  it('IDTE makes segments invalid, one or more; clearing by ASCE changes no table', () => {
    const { machine } = results(REAL64, function* () {
      yield instruction('IDTE', BigInt(SEGMENTS), 0x800n);
      yield instruction('IDTE', BigInt(SEGMENTS), 0x10_0000n);
      yield spin;
    });
    machine.latch(DAT64, { 1: BigInt(SEGMENTS) | 3n });
    expect([machine.read(0x8000, 8), machine.read(MIB, 8)]).toEqual([0, 0x10]);
    machine.latch(REAL64, {}, PREFIX);
    machine.kernel.loadGuest(
      machine.vcpu,
      (function* () {
        yield instruction('IDTE', BigInt(SEGMENTS), 1n);
        yield spin;
      })(),
    );
    machine.kernel.run(machine.vcpu, 0);
    machine.latch(DAT64, { 1: BigInt(SEGMENTS) | 3n });
    expect([machine.read(0x8000, 8), machine.read(MIB, 8)]).toEqual([0x10, 0x10]);
  });

  it('IDTE makes so many more entries invalid, and none behind the table', () => {
    const INVALID = 0x20n;
    const entries = (first: number, more: number): number[] => {
      const machine = running(REAL64, function* () {
        yield instruction('IDTE', BigInt(SEGMENTS), (BigInt(first) << 20n) | BigInt(more));
        yield spin;
      });
      for (let i = 0; i < 2050; i++) machine.pokeDoubleword(SEGMENTS + i * 8, BigInt(PAGES));
      machine.kernel.run(machine.vcpu, 0);
      const table = Buffer.from(machine.peek(SEGMENTS, 2050 * 8));
      return [...Array(2050).keys()].filter((i) => (table.readBigUInt64BE(i * 8) & INVALID) !== 0n);
    };
    expect(entries(5, 0)).toEqual([5]);
    expect(entries(5, 2)).toEqual([5, 6, 7]);
    expect(entries(2045, 7)).toEqual([2045, 2046, 2047]);
  });

  it('CSPG exchanges a doubleword, or says what is there', () => {
    const { machine, found } = results(REAL64, function* (push) {
      push(yield instruction('CSPG', 1n, 2n, BigInt(PAGES)));
      push(yield instruction('CSPG', BigInt(DATA), BigInt(DATA) | 0x200n, BigInt(PAGES)));
      yield spin;
    });
    expect(found).toEqual([
      [1n, BigInt(DATA)],
      [0n, BigInt(DATA)],
    ]);
    machine.latch(DAT64, { 1: BigInt(SEGMENTS) | 3n });
    expect([machine.write(MIB, 8), machine.write(MIB + 0x1000, 8)]).toEqual([4, 0]);
  });
});

describe('storage keys', () => {
  it('are set, inserted and reset by real address', () => {
    const { machine, found } = results(REAL64, function* (push) {
      yield instruction('SSKE', 0x3en, 0x18_0000n);
      push(yield instruction('ISKE', 0x18_0fffn));
      push(yield instruction('RRBE', 0x18_0000n));
      push(yield instruction('RRBE', 0x18_0000n));
      // Real 0 is the prefix.
      yield instruction('SSKE', 0x50n, 0n);
      yield spin;
    });
    expect(found).toEqual([0x3en, 3n, 1n]);
    expect(machine.keys(DATA / 4096, 1)).toEqual(Uint8Array.of(0x3a));
    expect(machine.keys(PREFIX / 4096, 1)).toEqual(Uint8Array.of(0x50));
  });

  it('bind the guest by the key of its PSW, and show what it touched', () => {
    const key3 = 0x0030_0000_0000_0000n;
    const { machine, found } = results(REAL64 | key3, function* (push) {
      yield instruction('SSKE', 0x38n, 0x18_0000n);
      yield instruction('SSKE', 0x40n, 0x18_1000n);
      yield instruction('SSKE', 0x48n, 0x18_2000n);
      yield store(0x18_0000, 1, 1n);
      push(yield load(0x18_1000, 1));
      for (const op of [store(0x18_1000, 1, 1n), load(0x18_2000, 1)]) {
        try {
          yield op;
        } catch (fault) {
          push((fault as GuestFault).code);
        }
      }
      yield spin;
    });
    expect(found).toEqual([0n, 4, 4]);
    expect(machine.keys(DATA / 4096, 3)).toEqual(Uint8Array.of(0x3e, 0x44, 0x48));
  });
});

describe('a guest’s accesses with DAT', () => {
  /** What each access ends in: nothing, or the interruption's code. */
  function codes(before: (machine: Machine) => void, ...ops: readonly GuestOp[]): unknown[] {
    const { found } = results(
      DAT64,
      function* (push) {
        for (const op of ops) {
          try {
            yield op;
            push(0);
          } catch (fault) {
            push((fault as GuestFault).code);
          }
        }
      },
      { before },
    );
    return found;
  }

  it('obey the page table: a page that may only be read', () => {
    const protect = (machine: Machine): void => machine.pokeDoubleword(PAGES + 8, BigInt(DATA + 4096) | 0x200n);
    expect(codes(protect, load(0x1000, 4), store(0x1000, 4, 1n), store(0x2000, 4, 1n))).toEqual([0, 4, 0]);
  });

  it('end in a protection exception where the host does not show a table', () => {
    const hide = (machine: Machine): void => {
      expect(machine.kernel.mprotect(machine.hva + PAGES, 4096, PROT.NONE)).toBe(0);
    };
    const tprot = instruction('TPROT', 0x1000n, 0n);
    expect(codes(hide, load(0x1000, 4), store(0x1000, 4, 1n), tprot)).toEqual([4, 4, 4]);
  });
});

it('ESSA of a frame that the host has not tells so, unless it is only asked', () => {
  const { found } = results(
    REAL64,
    function* (push) {
      for (const request of [0n, 1n, 7n]) push(yield instruction('ESSA', request, BigInt(4 * MIB)));
    },
    { cmma: true, before: addUnmapped },
  );
  expect(found).toEqual([0n, 0x10n, 0x10n]);
});

it.each([
  ['SSKE', 0x30n, [0x30, 0]],
  ['RRBE', undefined, [0x32, 0]],
] as const)('%s changes a page where the key is another than the last that was set', (name, key, left) => {
  const operands = key === undefined ? [BigInt(DATA)] : [key, BigInt(DATA)];
  const before = (machine: Machine): void => {
    machine.setKeys(DATA / 4096, 0x36);
    // So that the log looks at the segment.
    expect(machine.s390x.vcpuFault(machine.vcpu, DATA)).toBe(0);
    machine.dirtyPages();
  };
  const { machine } = results(
    REAL64,
    function* () {
      yield instruction(name, ...operands);
    },
    { flags: MEM.LOG_DIRTY_PAGES, before },
  );
  expect(machine.dirtyPages()).toContain(DATA / 4096);
  expect(machine.keys(DATA / 4096, 2)).toEqual(Uint8Array.from(left));
  machine.kernel.loadGuest(
    machine.vcpu,
    (function* (): GuestProgram {
      yield instruction(name, ...operands);
      yield spin;
    })(),
  );
  machine.kernel.run(machine.vcpu, 0);
  expect(machine.dirtyPages()).not.toContain(DATA / 4096);
});

it('ESSA has requests 0 to 7, and others are a specification exception', () => {
  const { found } = results(
    REAL64,
    function* (push) {
      for (const request of [7n, 8n, 255n, -1n]) {
        try {
          push(typeof (yield instruction('ESSA', request, BigInt(DATA))));
        } catch (fault) {
          push((fault as GuestFault).code);
        }
      }
    },
    { cmma: true },
  );
  expect(found).toEqual(['bigint', 6, 6, 6]);
});

it('ESSA tells the usage of frames, which migration harvests', () => {
  const { machine, found } = results(
    REAL64,
    function* (push) {
      push(yield instruction('ESSA', 3n, BigInt(DATA)));
      push(yield instruction('ESSA', 0n, BigInt(DATA)));
      push(yield instruction('ESSA', 6n, BigInt(DATA)));
      push(yield instruction('ESSA', 7n, BigInt(DATA + 4096)));
      yield spin;
    },
    { cmma: true },
  );
  // The usage stands at bits 60 and 61.
  expect(found).toEqual([0n, 0xcn, 0xcn, 0n]);
  const values = new Uint8Array(3);
  const log = BigUint64Array.of(BigInt(DATA / 4096), 3n, 0n);
  expect(machine.s390x.getCmmaBits(machine.vm, log, 1, values)).toBe(0);
  expect(values).toEqual(Uint8Array.of(0, 0x40, 0));
});

/** Attributes of the VM. */
const [MIGRATION, START] = [4, 1];

/** After each request, from `pgste_perform_essa`: the usage (− is the one before), and whether no-DAT is kept, cleared or set. */
const AFTER_ESSA = ['- keep', '0 clear', '1 keep', '3 keep', '2 keep', '0 keep', '0 keep', '0 set'] as const;

describe.each([false, true])('ESSA of resident frames, in migration mode: %s', (migrating) => {
  const before = [0, 1, 2, 3, 0x40, 0x41, 0x42, 0x43];
  it.each(AFTER_ESSA.map((after, request) => [request, after] as const))('request %i leaves %s', (request, after) => {
    const found: unknown[] = [];
    const machine = running(
      REAL64,
      function* (): GuestProgram {
        for (const i of before.keys()) found.push(yield instruction('ESSA', BigInt(request), BigInt(DATA + i * 4096)));
        yield spin;
      },
      { cmma: true, flags: MEM.LOG_DIRTY_PAGES },
    );
    const first = DATA / 4096;
    machine.s390x.setCmmaBits(machine.vm, first, before.length, 0, 2n ** 64n - 1n, Uint8Array.from(before));
    if (migrating) {
      expect(machine.kernel.setDeviceAttr(machine.vm, MIGRATION, START, null)).toBe(0);
      // All pages are dirty at first: they are taken.
      machine.s390x.getCmmaBits(machine.vm, BigUint64Array.of(0n, 1024n, 0n), 0, new Uint8Array(1024));
    }
    // A load brings a page.
    for (const i of before.keys()) machine.kernel.readMemory(machine.hva + DATA + i * 4096, new Uint8Array(1));
    machine.kernel.run(machine.vcpu, 0);
    expect(found).toEqual(before.map((state) => BigInt(((state & 3) << 2) | ((state & 0x40) >> 1))));
    const [usage = '', noDat] = after.split(' ');
    const values = new Uint8Array(before.length);
    expect(machine.s390x.getCmmaBits(machine.vm, BigUint64Array.of(BigInt(first), 8n, 0n), 1, values)).toBe(0);
    expect([...values]).toEqual(
      before.map((state) => {
        const kept = { keep: state & 0x40, clear: 0, set: 0x40 }[noDat as 'keep' | 'clear' | 'set'];
        return (usage === '-' ? state & 3 : Number(usage)) | kept;
      }),
    );
    if (!migrating) return;
    const log = BigUint64Array.of(0n, 1n, 0n);
    machine.s390x.getCmmaBits(machine.vm, log, 0, new Uint8Array(1));
    // All that was asked to change is dirty, whether it was another before or not.
    expect(log[1]! + log[2]!).toBe(request === 0 ? 0n : 8n);
  });
});

/** The same for frames that have no page in the host, and whether their contents are given up. */
const AFTER_ESSA_OF_ABSENT = [
  '- keep',
  '0 clear',
  '1 keep discarded',
  '3 keep discarded',
  '3 keep discarded',
  '0 keep',
  '- keep',
  '0 set',
] as const;

describe('ESSA of frames without a page in the host, in migration mode', () => {
  const before = [0, 1, 2, 3, 0x40, 0x41, 0x42, 0x43];
  const first = 3 * 256 + 16;
  /** Carries requests out for each of eight frames. */
  const found = (requests: readonly number[], key: number): bigint[][] => {
    const answers: bigint[][] = [];
    const machine = running(
      REAL64,
      function* (): GuestProgram {
        for (const i of before.keys()) {
          const of: bigint[] = [];
          for (const request of requests)
            of.push((yield instruction('ESSA', BigInt(request), BigInt((first + i) * 4096))) as bigint);
          answers.push(of);
        }
        yield spin;
      },
      { cmma: true, flags: MEM.LOG_DIRTY_PAGES },
    );
    machine.s390x.setCmmaBits(machine.vm, first, before.length, 0, 2n ** 64n - 1n, Uint8Array.from(before));
    machine.s390x.setSkeys(machine.vm, first, before.length, 0, new Uint8Array(before.length).fill(key));
    expect(machine.kernel.setDeviceAttr(machine.vm, MIGRATION, START, null)).toBe(0);
    machine.kernel.run(machine.vcpu, 0);
    return answers;
  };
  const stateOf = (state: number, content: number): bigint =>
    BigInt(((state & 3) << 2) | ((state & 0x40) >> 1) | content);

  it.each(AFTER_ESSA_OF_ABSENT.map((after, request) => [request, after] as const))(
    'request %i leaves %s, and tells what was',
    (request, after) => {
      const [usage = '', noDat, gone] = after.split(' ');
      expect(found([request, 0], 0)).toEqual(
        before.map((state) => {
          const kept = { keep: state & 0x40, clear: 0, set: 0x40 }[noDat as 'keep' | 'clear' | 'set'];
          const next = (usage === '-' ? state & 3 : Number(usage)) | kept;
          // Preserved contents, or zeros.
          return [stateOf(state, 2), stateOf(next, gone === undefined ? 2 : 3)];
        }),
      );
    },
  );

  it('a page that was written becomes stable instead of potentially volatile, and one that was given up stays so', () => {
    expect(found([4, 0], 0x02)).toEqual(before.map((state) => [stateOf(state, 2), stateOf(state & 0x40, 2)]));
    const given = (state: number, usage: number): bigint => stateOf((state & 0x40) | usage, 3);
    expect(found([2, 4, 6, 0], 0x02)).toEqual(
      before.map((state) => [stateOf(state, 2), given(state, 1), given(state, 3), given(state, 3)]),
    );
  });

  it('a page that was there keeps nothing of being given up when the host takes it', () => {
    const frame = 0x180;
    const answers: unknown[] = [];
    const request = (which: bigint) => instruction('ESSA', which, BigInt(frame * 4096));
    const machine = running(
      REAL64,
      function* (): GuestProgram {
        answers.push(yield request(1n));
        expect(machine.kernel.madvise(machine.hva + frame * 4096, 4096, MADV.DONTNEED)).toBe(0);
        answers.push(yield request(0n));
        yield spin;
      },
      { cmma: true, flags: MEM.LOG_DIRTY_PAGES },
    );
    machine.kernel.writeMemory(machine.hva + frame * 4096, Uint8Array.of(7));
    expect(machine.kernel.setDeviceAttr(machine.vm, MIGRATION, START, null)).toBe(0);
    machine.kernel.run(machine.vcpu, 0);
    // Resident before, absent with preserved contents then.
    expect(answers).toEqual([stateOf(0, 0), stateOf(0, 2)]);
  });

  // Values are in the page tables of user space, which go with the last page of a segment.
  it('that contents were given up is forgotten with the page table, and not told to user space', () => {
    const answers: unknown[] = [];
    const values = new Uint8Array(1);
    const frame = 4 * 256 + 16;
    const request = (which: bigint) => instruction('ESSA', which, BigInt(frame * 4096));
    const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE;
    const machine = running(
      REAL64,
      function* (): GuestProgram {
        answers.push(yield request(2n));
        expect(machine.s390x.getCmmaBits(machine.vm, BigUint64Array.of(BigInt(frame), 1n, 0n), 1, values)).toBe(0);
        answers.push(yield request(0n));
        expect(machine.kernel.munmap(reserved, MIB)).toBe(0);
        expect(machine.kernel.mmapFixed(reserved, MIB, PROT.READ | PROT.WRITE, flags, -1, 0)).toBe(0);
        answers.push(yield request(0n));
        yield spin;
      },
      { cmma: true, flags: MEM.LOG_DIRTY_PAGES },
    );
    const reserved = machine.kernel.mmap(2 * MIB, PROT.NONE, flags, -1, 0, MIB, 0);
    expect(machine.kernel.mmapFixed(reserved, MIB, PROT.READ | PROT.WRITE, flags, -1, 0)).toBe(0);
    expect(machine.slot(1, 4 * MIB, MIB, reserved, MEM.LOG_DIRTY_PAGES)).toBe(0);
    // In migration mode ESSA doesn't count as a use of CMMA, without which values are not told.
    machine.s390x.setCmmaBits(machine.vm, frame, 1, 0, 2n ** 64n - 1n, new Uint8Array(1));
    expect(machine.kernel.setDeviceAttr(machine.vm, MIGRATION, START, null)).toBe(0);
    machine.kernel.run(machine.vcpu, 0);
    expect(answers).toEqual([stateOf(0, 2), stateOf(1, 3), stateOf(0, 2)]);
    expect([...values]).toEqual([1]);
  });
});

it.each([
  ['an unknown mnemonic', REAL64, instruction('XYZZY'), 1],
  ['ESSA without CMMA', REAL64, instruction('ESSA', 1n, 0n), 1],
  ['the problem state', REAL64 | 0x0001_0000_0000_0000n, instruction('IPTE', 0n, 0n), 2],
  ['tables without storage', REAL64, instruction('IPTE', 0x5000_0000n, 0n), 5],
  ['frames without storage', REAL64, instruction('ISKE', 0x5000_0000n), 5],
])('%s is an interruption', (_, psw, op, code) => {
  const { found } = results(psw, function* (push) {
    try {
      yield op;
    } catch (fault) {
      expect(fault).toBeInstanceOf(GuestFault);
      push((fault as GuestFault).code);
    }
    yield spin;
  });
  expect(found).toEqual([code]);
});
