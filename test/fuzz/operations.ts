import { CAP } from '../../lib/uapi/capabilities.ts';
import { EXIT, IOEVENTFD, MAP, MEM, MEMOP, MEMOP_FLAG, PROT } from '../../lib/uapi/flags.ts';
import { KVM_RUN } from '../../lib/uapi/structs.ts';
import { DONE_ADDRESS, type ScenarioHost, type ScriptOp } from '../scenarios/scenario.ts';
import type { Random } from './random.ts';

/** Host memory that slots are cut from, in units; guest memory spans twice as much. */
export const MEMORY_UNITS = 16;
const GUEST_UNITS = 2 * MEMORY_UNITS;
const SLOTS = 6;
/** The slot and place of the guest's code, beyond what the operations touch. */
export const CODE_SLOT = 31;
export const CODE_UNIT = GUEST_UNITS + 8;
/** Units of code: more than a round of nothing but runs needs, so that each has a place of its own. */
export const CODE_UNITS = 1024;
export const CODE_BYTES = 256;
const RUN_MS = 2000;
/** Where ioeventfds are in a unit; guests store there as well. */
const IO_OFFSET = 0x40;

/** The host memory of a round: a reservation, full at first, so that pieces of it can be exchanged. */
export function reserveMemory({ calls, unit }: ScenarioHost): number {
  const length = MEMORY_UNITS * unit;
  const hva = calls.mmap(length, PROT.NONE, MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE, -1, 0, unit, 0);
  calls.mmapFixed(hva, length, PROT.READ | PROT.WRITE, MAP.SHARED | MAP.ANONYMOUS | MAP.NORESERVE, -1, 0);
  return hva;
}

/** What one round works on. */
export interface Round {
  readonly s: ScenarioHost;
  readonly vm: number;
  /** −1 where no vCPU is there. */
  readonly vcpu: number;
  readonly hva: number;
  readonly codeHva: number;
  /**
   * Offset of the next guest code: never where code was before, of this VM or of those just before it. The labs' processors were
   * seen to execute what they had in their cache.
   */
  nextCode: number;
  readonly eventfd: number;
}

/** A call with its operands, so plain that it can be printed, sent to a lab, and left out when a sequence is shortened. */
export interface Operation {
  readonly kind: string;
  readonly operands: readonly (number | readonly number[])[];
}

/** How one kind of operation is made up and carried out. */
interface Kind {
  /** How often it is chosen, relative to the others. */
  readonly weight: number;
  readonly make: (random: Random) => Operation['operands'];
  readonly apply: (round: Round, operands: Operation['operands']) => void;
}

const n = (operands: Operation['operands'], i: number): number => operands[i] as number;
const list = (operands: Operation['operands'], i: number): readonly number[] => operands[i] as readonly number[];

const COMMON: Record<string, Kind> = {
  slot: {
    weight: 30,
    make: (random) => [
      random.below(SLOTS),
      random.pick([0, MEM.LOG_DIRTY_PAGES, MEM.LOG_DIRTY_PAGES, MEM.READONLY, 8]),
      random.below(GUEST_UNITS),
      random.pick([0, 1, 2, 4, 4, 8]),
      // Every slot lies inside the memory: what lies behind it is another mapping, or nothing.
      random.below(3) * 4,
      // One in sixteen is off by less than a unit.
      random.oneIn(16) ? 0x800 : 0,
    ],
    apply: ({ s, vm, hva }, o) => {
      const { unit } = s;
      const flags = n(o, 1);
      s.calls.setUserMemoryRegion(vm, n(o, 0), flags, n(o, 2) * unit + n(o, 5), n(o, 3) * unit, hva + n(o, 4) * unit);
    },
  },
  region2: {
    weight: 8,
    make: (random) => [
      random.below(SLOTS),
      random.pick([0, MEM.LOG_DIRTY_PAGES, MEM.READONLY, 8]),
      random.below(GUEST_UNITS),
      random.pick([0, 1, 4]),
      random.below(3) * 4,
    ],
    apply: ({ s, vm, hva }, o) => {
      const [gpa, size, from] = [n(o, 2) * s.unit, n(o, 3) * s.unit, hva + n(o, 4) * s.unit];
      // Without MEM.GUEST_MEMFD the last two mean nothing, whatever they are.
      s.calls.setUserMemoryRegion2(vm, n(o, 0), n(o, 1), gpa, size, from, 0xffff_ffff, 1);
    },
  },
  move: {
    weight: 10,
    make: (random) => [
      random.below(SLOTS),
      random.below(GUEST_UNITS),
      random.below(GUEST_UNITS),
      random.pick([MEM.LOG_DIRTY_PAGES, MEM.LOG_DIRTY_PAGES, 0]),
      random.pick([MEM.LOG_DIRTY_PAGES, MEM.LOG_DIRTY_PAGES, 0, MEM.READONLY]),
    ],
    apply: ({ s, vm, hva }, o) => {
      for (const [gpa, flags] of [
        [n(o, 1), n(o, 3)],
        [n(o, 2), n(o, 4)],
      ] as const) {
        s.calls.setUserMemoryRegion(vm, n(o, 0), flags, gpa * s.unit, 4 * s.unit, hva);
      }
    },
  },
  enableCap: {
    weight: 3,
    // None of these is one that a VM of these architectures could be left different by.
    make: (random) => [random.pick([CAP.READONLY_MEM, CAP.USER_MEMORY2, CAP.SYNC_MMU, 9999]), random.below(2)],
    apply: ({ s, vm }, o) => {
      s.calls.enableCap(vm, n(o, 0), n(o, 1), [0]);
    },
  },
  ioeventfd: {
    weight: 6,
    make: (random) => [
      random.below(GUEST_UNITS),
      random.pick([0, 1, 2, 4, 4, 8, 3]),
      random.pick([0, 0, 0, IOEVENTFD.DATAMATCH, IOEVENTFD.DEASSIGN, 3, IOEVENTFD.PIO, 32]),
      random.below(3),
      random.oneIn(10) ? 1 : 0,
    ],
    apply: ({ s, vm, eventfd }, o) => {
      const fd = n(o, 4) === 1 ? -1 : eventfd;
      s.calls.ioeventfd(vm, n(o, 0) * s.unit + IO_OFFSET, n(o, 1), fd, n(o, 2), n(o, 3));
    },
  },
  events: {
    weight: 3,
    make: () => [],
    apply: ({ s, eventfd }) => {
      s.calls.read(eventfd, new Uint8Array(8));
    },
  },
  delete: {
    weight: 10,
    make: (random) => [random.below(SLOTS)],
    apply: ({ s, vm }, o) => {
      s.calls.setUserMemoryRegion(vm, n(o, 0), 0, 0, 0, 0);
    },
  },
  log: {
    weight: 20,
    make: (random) => [random.below(SLOTS), random.oneIn(12) ? 7 : 0],
    apply: ({ s, vm }, o) => {
      // Room for the largest slot, so that only some buffers are too short.
      const bytes = Math.ceil((8 * s.unit) / s.calls.pageSize / 64) * 8;
      s.calls.getDirtyLog(vm, n(o, 0), new Uint8Array(n(o, 1) === 0 ? bytes : n(o, 1)));
    },
  },
  clear: {
    weight: 8,
    make: (random) => [
      random.below(SLOTS),
      random.pick([0, 0, 64, 1]),
      random.pick([1, 2, 4, 8, 64, 3]),
      random.bytes(8),
    ],
    apply: ({ s, vm }, o) => {
      s.calls.clearDirtyLog(vm, n(o, 0), n(o, 1), n(o, 2), Uint8Array.from(list(o, 3)));
    },
  },
  protect: {
    weight: 2,
    make: (random) => [random.below(MEMORY_UNITS), random.pick([PROT.NONE, PROT.READ, PROT.READ | PROT.WRITE])],
    apply: ({ s, hva }, o) => {
      s.calls.mprotect(hva + n(o, 0) * s.unit, s.unit, n(o, 1));
    },
  },
  piece: {
    weight: 6,
    make: (random) => [
      random.below(MEMORY_UNITS),
      random.pick([1, 1, 1, 2, 4]),
      random.pick([MAP.PRIVATE, MAP.SHARED]),
      random.pick([PROT.READ | PROT.WRITE, PROT.READ | PROT.WRITE, PROT.READ, PROT.NONE]),
      random.below(2),
    ],
    apply: ({ s, hva }, o) => {
      const length = n(o, 1) * s.unit;
      const place = hva + n(o, 0) * s.unit;
      const memfd = n(o, 4) === 0 ? -1 : s.calls.memfdCreate('piece', length, 0);
      const flags = memfd === -1 ? n(o, 2) | MAP.ANONYMOUS | MAP.NORESERVE : n(o, 2);
      s.calls.mmapFixed(place, length, n(o, 3), flags, memfd, 0);
      if (memfd !== -1) s.calls.close(memfd);
    },
  },
  write: {
    weight: 8,
    make: (random) => [random.below(MEMORY_UNITS), random.below(4096), random.bytes(1 + random.below(8))],
    apply: ({ s, hva }, o) => {
      s.calls.writeMemory(hva + n(o, 0) * s.unit + n(o, 1), Uint8Array.from(list(o, 2)));
    },
  },
  read: {
    weight: 8,
    make: (random) => [random.below(MEMORY_UNITS), random.below(4096)],
    apply: ({ s, hva }, o) => {
      s.calls.readMemory(hva + n(o, 0) * s.unit + n(o, 1), new Uint8Array(8));
    },
  },
};

const MANUAL: Record<string, Kind> = {
  manual: {
    weight: 2,
    make: (random) => [random.pick([0, 1, 2, 3])],
    apply: ({ s, vm }, o) => {
      s.calls.enableCap(vm, CAP.MANUAL_DIRTY_LOG_PROTECT2, 0, [n(o, 0)]);
    },
  },
};

/** Guests load and store here and there; the exits that this makes are taken one by one, up to the last. */
const GUESTS: Record<string, Kind> = {
  run: {
    weight: 14,
    make: (random) => {
      const address = (): number =>
        random.below(GUEST_UNITS) * 4096 + (random.oneIn(5) ? IO_OFFSET : random.below(1000) * 4);
      const steps = 1 + random.below(4);
      return [
        Array.from({ length: steps }, address),
        // Where what is loaded from there is stored; 0: nothing is loaded, and a number is stored.
        Array.from({ length: steps }, () => (random.oneIn(3) ? address() : 0)),
      ];
    },
    apply: (round, o) => {
      const { s, vm, vcpu, codeHva, nextCode } = round;
      round.nextCode += CODE_BYTES;
      const targets = list(o, 1);
      const ops = list(o, 0).map((address, i): ScriptOp => {
        const to = targets[i]!;
        if (to === 0) return { op: 'store', address, size: 4, value: i + 1 };
        return { op: 'copy', from: address, to, size: 4 };
      });
      s.load(vm, vcpu, codeHva + nextCode, CODE_UNIT * s.unit + nextCode, [...ops, { op: 'done' }]);
      const { exit_reason, mmio } = KVM_RUN;
      for (let exits = 0; exits <= 2 * ops.length; exits++) {
        if (s.calls.run(vcpu, RUN_MS) < 0) return;
        const run = s.runArea(vcpu);
        const reason = new Uint8Array(4);
        s.calls.readMemory(run + exit_reason, reason);
        if (reason[0] !== EXIT.MMIO) return;
        const address = new Uint8Array(8);
        s.calls.readMemory(run + mmio.phys_addr, address);
        if (address[3] === DONE_ADDRESS >>> 24) return;
        const isWrite = new Uint8Array(1);
        s.calls.readMemory(run + mmio.is_write, isWrite);
        // What the kernel leaves there for a load to get isn't defined.
        if (isWrite[0] === 0) s.calls.writeMemory(run + mmio.data, Uint8Array.of(exits, 2, 3, 4));
      }
    },
  },
};

const GUEST_BYTES = GUEST_UNITS * 0x10_0000;

const S390X: Record<string, Kind> = {
  absolute: {
    weight: 25,
    make: (random) => [
      random.pick([MEMOP.ABSOLUTE_READ, MEMOP.ABSOLUTE_WRITE, MEMOP.ABSOLUTE_WRITE, 7]),
      random.below(GUEST_UNITS) * 0x10_0000 + random.pick([0, 0, 4090, 0xf_fffa, random.below(0x10_0000)]),
      random.pick([0, 1, 8, 16, 4096, 70_000]),
      random.pick([0, MEMOP_FLAG.CHECK_ONLY, MEMOP_FLAG.SKEY, MEMOP_FLAG.SKEY | MEMOP_FLAG.CHECK_ONLY, 8]),
      random.below(17),
      random.bytes(8),
    ],
    apply: ({ s, vm }, o) => {
      const size = n(o, 2);
      const buffer = new Uint8Array(size);
      for (let i = 0; i < size; i++) buffer[i] = list(o, 5)[i % 8]!;
      // The lab's processor doesn't enforce keys when data moves, so only what the kernel checks itself has one.
      const key = (n(o, 3) & MEMOP_FLAG.CHECK_ONLY) !== 0 || n(o, 4) > 15 ? n(o, 4) : 0;
      s.calls.s390x!.memOp(vm, n(o, 0), n(o, 1), size, n(o, 3), buffer, 0, key, null, 0);
    },
  },
  exchange: {
    weight: 6,
    make: (random) => [
      random.below(GUEST_UNITS) * 0x10_0000 + random.below(64),
      random.pick([1, 2, 4, 8, 16, 3]),
      random.below(2),
      random.pick([0, MEMOP_FLAG.SKEY, MEMOP_FLAG.SKEY, MEMOP_FLAG.SKEY | MEMOP_FLAG.CHECK_ONLY]),
    ],
    apply: ({ s, vm }, o) => {
      const size = n(o, 1);
      const value = new Uint8Array(size).fill(n(o, 2) + 1);
      const old = new Uint8Array(size).fill(n(o, 2));
      s.calls.s390x!.memOp(vm, MEMOP.ABSOLUTE_CMPXCHG, n(o, 0), size, n(o, 3), value, 0, 0, old, 0);
    },
  },
  logical: {
    weight: 15,
    make: (random) => [
      random.pick([MEMOP.LOGICAL_READ, MEMOP.LOGICAL_WRITE]),
      // A new vCPU has DAT off and 24-bit addresses.
      random.below(Math.min(GUEST_BYTES, 0x200_0000)),
      random.pick([1, 8, 4096, 9000]),
      random.pick([0, MEMOP_FLAG.CHECK_ONLY, MEMOP_FLAG.SKEY | MEMOP_FLAG.CHECK_ONLY]),
      random.below(16),
      random.below(17),
    ],
    apply: ({ s, vcpu }, o) => {
      const buffer = new Uint8Array(n(o, 2)).fill(n(o, 4));
      s.calls.s390x!.memOp(vcpu, n(o, 0), n(o, 1), n(o, 2), n(o, 3), buffer, n(o, 5), n(o, 4), null, 0);
    },
  },
  getKeys: {
    weight: 8,
    make: (random) => [random.below(GUEST_UNITS * 256), random.pick([0, 1, 4, 300])],
    apply: ({ s, vm }, o) => {
      s.calls.s390x!.getSkeys(vm, n(o, 0), n(o, 1), 0, new Uint8Array(n(o, 1)));
    },
  },
  setKeys: {
    weight: 12,
    make: (random) => {
      const count = random.pick([1, 2, 16]);
      const keys = Array.from({ length: count }, () => random.below(128) << 1);
      if (random.oneIn(10)) keys[count - 1] = 1;
      return [random.below(GUEST_UNITS * 256), keys];
    },
    apply: ({ s, vm }, o) => {
      const keys = Uint8Array.from(list(o, 1));
      s.calls.s390x!.setSkeys(vm, n(o, 0), keys.length, 0, keys);
    },
  },
};

/** HPTEs of 4K pages with their bits put together from what a table may hold; one chunk per write. */
const PPC64: Record<string, Kind> = {
  htabWrite: {
    weight: 20,
    make: (random) => [
      random.pick([0, 8, 16, random.below(0x4000), 0x3ff8, 0x3ffe, 0x4000, 0xffff_ffff]),
      random.below(4),
      random.below(3),
      random.below(GUEST_UNITS),
      random.pick([0x11, 0x11, 0x01, 0x13, 0x10]),
    ],
    apply: ({ s, vm }, o) => {
      const fd = s.calls.ppc64!.getHtabFd(vm, 2, 0);
      const valid = n(o, 1);
      const chunk = new DataView(new ArrayBuffer(8 + 16 * valid));
      chunk.setUint32(0, n(o, 0), true);
      chunk.setUint16(4, valid, true);
      chunk.setUint16(6, n(o, 2), true);
      for (let i = 0; i < valid; i++) {
        chunk.setBigUint64(8 + 16 * i, 0x4000_0000_0000_0000n | (BigInt(n(o, 0) + i) << 12n) | BigInt(n(o, 4)), false);
        chunk.setBigUint64(16 + 16 * i, (BigInt(n(o, 3)) << 12n) | 0x196n, false);
      }
      s.calls.write(fd, new Uint8Array(chunk.buffer));
      s.calls.close(fd);
    },
  },
  /** Less than a header is no chunk; a header without entries is one that does nothing. */
  htabHeader: {
    weight: 4,
    make: (random) => [random.pick([0, 1, 7, 8, 8]), random.pick([0, 0x3fff, 0x4000, 0x4001, 0xffff_ffff])],
    apply: ({ s, vm }, o) => {
      const fd = s.calls.ppc64!.getHtabFd(vm, 2, 0);
      const header = new DataView(new ArrayBuffer(8));
      header.setUint32(0, n(o, 1), true);
      s.calls.write(fd, new Uint8Array(header.buffer, 0, n(o, 0)));
      s.calls.close(fd);
    },
  },
  htabRead: {
    weight: 12,
    make: (random) => [random.pick([0, 1]), random.pick([0, 0, 8, 0x4000]), random.pick([24, 25, 64, 4096])],
    apply: ({ s, vm }, o) => {
      const fd = s.calls.ppc64!.getHtabFd(vm, n(o, 0), n(o, 1));
      for (let pass = 0; pass < 3; pass++) s.calls.read(fd, new Uint8Array(n(o, 2)));
      s.calls.close(fd);
    },
  },
  allocate: {
    weight: 3,
    // Order 0 oopses known kernels; 28 and more is too much for small hosts.
    make: (random) => [random.pick([17, 18, 19, 18, 47])],
    apply: ({ s, vm }, o) => {
      s.calls.ppc64!.allocateHtab(vm, n(o, 0));
    },
  },
};

/** The kinds of operation that an architecture's fuzzing is made of. */
export function kindsFor(arch: string, guests: boolean): Record<string, Kind> {
  return {
    ...COMMON,
    ...(['x86_64', 'aarch64', 'riscv64'].includes(arch) ? MANUAL : {}),
    ...(guests ? GUESTS : {}),
    ...(arch === 's390x' ? S390X : {}),
    ...(arch === 'ppc64' ? PPC64 : {}),
  };
}

/** A sequence of operations, made up from a seed. */
export function makeOperations(random: Random, kinds: Record<string, Kind>, count: number): Operation[] {
  const total = Object.values(kinds).reduce((sum, { weight }) => sum + weight, 0);
  return Array.from({ length: count }, () => {
    let ticket = random.below(total);
    for (const [kind, { weight, make }] of Object.entries(kinds)) {
      if (ticket < weight) return { kind, operands: make(random) };
      ticket -= weight;
    }
    throw new Error('The weights do not add up');
  });
}
