import { setTimeout as sleep } from 'node:timers/promises';
import { CAP } from '../../lib/uapi/capabilities.ts';
import { MEM, PROT } from '../../lib/uapi/flags.ts';
import { CODE, copy, done, HptGuest, ORDER, pause, store } from './hpt-guest-vm.ts';
import { BOLTED, chunk, MEMORY_SIZE, PLAIN, tableAllocated, vrma } from './hpt-vm.ts';
import type { Scenario, ScenarioHost, ScriptOp } from './scenario.ts';

/** Where hypercalls leave their registers. */
const RESULTS = 0x3000;
const H_EXACT = 0x80_0000_0000n;
const H_AVPN = 0x8000_0000n;
const H_ANDCOND = 0x4000_0000n;
const H_READ_4 = 0x20_0000_0000n;

function scenario(name: string, run: (s: ScenarioHost) => void | Promise<void>): Scenario {
  return { name: `hpt-guest/${name}`, arches: ['ppc64'], runsGuest: true, run };
}

/** Hypercalls in a row, each with its registers printed. */
function calls(list: readonly (readonly [nr: number, args: readonly bigint[], results: number])[]): ScriptOp[] {
  let to = RESULTS;
  return list.map(([nr, args, results]) => {
    const op: ScriptOp = { op: 'hypercall', nr, args, to, results };
    to += results * 8;
    return op;
  });
}

const [REMOVE, ENTER, READ, CLEAR_MOD, CLEAR_REF, PROTECT, PAGE_INIT, BULK_REMOVE] = [
  4, 8, 0xc, 0x10, 0x14, 0x18, 0x2c, 0x124,
];

/** Guests that use a hashed page table. */
export const hptGuestScenarios: readonly Scenario[] = [
  scenario('r-and-c', (s) => {
    const g = new HptGuest(s, ORDER);
    g.map(0x5000, 0x6000, 0x7000);
    const reader = g.reader();
    g.drain(reader);
    g.dirty();
    g.load([store(0x5000, 0x55), copy(0x6000, 0x5008), pause, store(0x5004, 1), copy(0x6000, 0x7000), done]);
    g.mmio();
    g.drain(reader);
    g.dirty();
    g.dirty();
    g.drain(reader);
    g.mmio();
    g.drain(reader);
    g.dirty();
    g.drain(reader);
    s.calls.readMemory(g.hva + 0x5000, new Uint8Array(16));
  }),
  scenario('code-is-referenced', (s) => {
    const g = new HptGuest(s, ORDER);
    g.map(0x5000);
    g.real(CODE, 0x10n, 0);
    const [slot] = vrma(ORDER, BigInt(CODE), 0);
    s.calls.enableCap(g.vm, CAP.PPC_ENABLE_HCALL, 0, [BigInt(CLEAR_REF), 1n]);
    const reader = g.reader();
    g.drain(reader);
    g.load([pause, ...calls([[CLEAR_REF, [0n, BigInt(slot)], 2]]).map((op) => ({ ...op, to: 0x5000 })), pause, done]);
    g.mmio();
    g.drain(reader);
    g.mmio();
    g.drain(reader);
    g.dirty();
    g.mmio();
    g.drain(reader);
    s.calls.readMemory(g.hva + 0x5000, new Uint8Array(16));
  }),
  scenario('mmio', (s) => {
    const g = new HptGuest(s, ORDER);
    g.map(0x5000);
    g.real(0x4000_0000, 0x28n, 3);
    g.real(0x4000_1000, 0x10n, 3);
    g.load([
      store(0x4000_0010, 0x1122_3344),
      copy(0x4000_1004, 0x5000),
      store(0x4000_0001, 7, 1),
      copy(0x4000_0002, 0x5004, 2),
      done,
    ]);
    g.mmio(4);
    g.mmio();
    g.answer(Uint8Array.of(1, 2, 3, 4));
    g.mmio(1);
    g.mmio();
    g.answer(Uint8Array.of(5, 6));
    g.mmio();
    s.calls.readMemory(g.hva + 0x5000, new Uint8Array(8));
    g.dirty();
  }),
  scenario('memslot-goes-and-comes', (s) => {
    const g = new HptGuest(s, ORDER);
    const other = s.memory(0x10_0000 / s.unit);
    const at = 0x1000_0000;
    const slot = (size: number): void => {
      s.calls.setUserMemoryRegion(g.vm, 1, MEM.LOG_DIRTY_PAGES, at, size, other);
    };
    slot(0x10_0000);
    g.map(0x5000);
    g.real(at + 0x2000, 0x10n, 3);
    const reader = g.reader();
    g.drain(reader);
    g.load([
      store(at + 0x2000, 1),
      pause,
      store(at + 0x2000, 2),
      store(at + 0x2004, 3),
      pause,
      store(at + 0x2008, 4),
      done,
    ]);
    g.mmio();
    g.drain(reader);
    slot(0);
    g.drain(reader);
    g.mmio(4);
    g.mmio(4);
    g.mmio();
    slot(0x10_0000);
    g.mmio();
    s.calls.readMemory(other + 0x2000, new Uint8Array(12));
    g.drain(reader);
    s.dirtyLog(g.vm, 1, 0x10_0000 / s.calls.pageSize);
  }),
  scenario('mmio-becomes-memory', (s) => {
    const g = new HptGuest(s, ORDER);
    g.map();
    g.real(0x1000_2000, 0x10n, 3);
    g.load([store(0x1000_2000, 1), store(0x1000_2004, 2), done]);
    g.mmio(4);
    const other = s.memory(0x10_0000 / s.unit);
    s.calls.setUserMemoryRegion(g.vm, 1, 0, 0x1000_0000, 0x10_0000, other);
    g.mmio();
    s.calls.readMemory(other + 0x2000, new Uint8Array(8));
  }),
  scenario('host-takes-pages-away', (s) => {
    const g = new HptGuest(s, ORDER);
    g.map(0x2_5000);
    const { pageSize } = s.calls;
    const page = g.hva + Math.floor(0x2_5000 / pageSize) * pageSize;
    g.load([store(0x2_5000, 1), pause, store(0x2_5004, 2), done]);
    g.mmio();
    s.calls.mprotect(page, pageSize, PROT.READ);
    g.run();
    s.calls.mprotect(page, pageSize, PROT.READ | PROT.WRITE);
    g.mmio();
    g.dirty();
    s.calls.readMemory(g.hva + 0x2_5000, new Uint8Array(8));
  }),
  scenario('hypercalls', (s) => {
    const g = new HptGuest(s, ORDER);
    g.map(RESULTS);
    const reader = g.reader();
    g.drain(reader);
    for (const nr of [CLEAR_REF, CLEAR_MOD]) s.calls.enableCap(g.vm, CAP.PPC_ENABLE_HCALL, 0, [BigInt(nr), 1n]);
    const v = PLAIN[0];
    const r = PLAIN[1];
    const mmio = 0x1ff0_0000_0010n;
    const list: Parameters<typeof calls>[0] = [
      [ENTER, [0n, 803n, v, r], 2],
      [ENTER, [0n, 800n, v & ~1n, r | 0x190n], 2],
      [ENTER, [H_EXACT, 801n, v, r], 1],
      [ENTER, [H_EXACT, 806n, v, mmio], 2],
      [ENTER, [0n, 16384n, v, r], 1],
      [ENTER, [0n, 0n, v | (1n << 63n), r], 1],
      [ENTER, [0n, 0n, v | 4n, 0x2010n], 1],
      [READ, [0n, 801n], 3],
      [READ, [H_READ_4, 802n], 5],
      [READ, [0n, 806n], 3],
      [READ, [0n, 16384n], 1],
      [PROTECT, [0x2706n, 801n, 0n], 1],
      [PROTECT, [H_AVPN, 801n, v & ~0x7fn], 1],
      [PROTECT, [H_AVPN, 801n, 0n], 1],
      [PROTECT, [0n, 807n, 0n], 1],
      [READ, [0n, 801n], 3],
      [CLEAR_REF, [0n, 801n], 2],
      [CLEAR_MOD, [0n, 801n], 2],
      [CLEAR_REF, [0n, 806n], 2],
      [CLEAR_MOD, [0n, 807n], 1],
      [READ, [0n, 801n], 3],
      [REMOVE, [H_AVPN, 801n, 0n], 1],
      [REMOVE, [H_ANDCOND, 801n, 1n], 1],
      [REMOVE, [H_ANDCOND, 806n, 0x20n], 1],
      [REMOVE, [H_ANDCOND, 806n, 1n], 3],
      [REMOVE, [H_AVPN, 801n, v & ~0x7fn], 3],
      [REMOVE, [0n, 801n, 0n], 1],
      [REMOVE, [0n, 16384n, 0n], 1],
    ];
    g.load([...calls(list), done]);
    g.mmio();
    s.calls.readMemory(g.hva + RESULTS, new Uint8Array(8 * list.reduce((sum, [, , results]) => sum + results, 0)));
    g.drain(reader);
  }),
  scenario('memory-that-is-not-cached', (s) => {
    const g = new HptGuest(s, ORDER);
    g.map(RESULTS);
    const reader = g.reader();
    g.drain(reader);
    const v = PLAIN[0];
    const [W, I, M, G] = [0x40n, 0x20n, 0x10n, 8n];
    const attributes = [M, 0n, I, G, I | G, W | I | M, I | M, W];
    // Memory of the guest's, and a hole.
    const list: Parameters<typeof calls>[0] = [
      ...attributes.map((wimg, i) => [ENTER, [H_EXACT, 800n + BigInt(i), v, 0x2000n | wimg], 1] as const),
      ...[0n, I | G, W].map((wimg, i) => [ENTER, [H_EXACT, 816n + BigInt(i), v, 0x800_0000n | wimg], 1] as const),
      ...attributes.map((_, i) => [READ, [0n, 800n + BigInt(i)], 3] as const),
    ];
    g.load([...calls(list), done]);
    g.mmio();
    s.calls.readMemory(g.hva + RESULTS, new Uint8Array(8 * list.reduce((sum, [, , results]) => sum + results, 0)));
    g.drain(reader);
  }),
  scenario('stores-to-memory-that-is-not-cached', (s) => {
    const g = new HptGuest(s, ORDER);
    const [I, M, G] = [0x20n, 0x10n, 8n];
    const attributes = [0n, I, G, I | G, I | G | M];
    g.map(RESULTS);
    // Entered by the stream, and by hypercalls.
    attributes.forEach((wimg, i) => void g.real(0x2_0000 + 0x1000 * i, wimg, 2));
    const entered = attributes.map((wimg, i) => {
      const ea = BigInt(0x3_0000 + 0x1000 * i);
      const [slot, [first]] = vrma(ORDER, ea, 3);
      return [ENTER, [H_EXACT, BigInt(slot), first, ea | wimg | 2n], 1] as const;
    });
    const stores = [0x2_0000, 0x3_0000].flatMap((base) => attributes.map((_, i) => store(base + 0x1000 * i, i + 1)));
    const reader = g.reader();
    g.drain(reader);
    g.load([...calls(entered), pause, ...stores, done]);
    g.mmio();
    s.calls.readMemory(g.hva + RESULTS, new Uint8Array(8 * entered.length));
    g.mmio();
    for (const base of [0x2_0000, 0x3_0000]) {
      attributes.forEach((_, i) => void s.calls.readMemory(g.hva + base + 0x1000 * i, new Uint8Array(4)));
    }
    g.drain(reader);
    g.dirty();
  }),
  scenario('hypercalls-to-user-space', (s) => {
    const g = new HptGuest(s, ORDER);
    g.map(RESULTS);
    const list = [READ, CLEAR_REF, CLEAR_MOD, 0x58].map((nr) => [nr, [0n, 800n], 1] as const);
    const enable = (vm: number, ...args: bigint[]): number => s.calls.enableCap(vm, CAP.PPC_ENABLE_HCALL, 0, args);
    g.load([...calls(list), done]);
    for (let i = 0; i < 3; i++) g.hypercall(BigInt(i) + 0xabn);
    g.mmio();
    for (const [nr, on] of [
      [BigInt(CLEAR_REF), 2n],
      [0x58n, 1n],
      [5n, 1n],
      [BigInt(READ), 0n],
      [BigInt(CLEAR_REF), 1n],
      [BigInt(CLEAR_MOD), 1n],
    ] as const) {
      enable(g.vm, nr, on);
    }
    g.load([...calls(list), done]);
    for (let i = 0; i < 2; i++) g.hypercall(BigInt(i) + 0xcdn);
    g.mmio();
    s.calls.readMemory(g.hva + RESULTS, new Uint8Array(32));
  }),
  scenario('page-init', (s) => {
    const g = new HptGuest(s, ORDER);
    g.map(RESULTS);
    for (const page of [0x2_0000, 0x2_1000, 0x3_0000, 0x3_1000, 0x4_0000]) {
      s.calls.writeMemory(g.hva + page, new Uint8Array(0x1000).fill(page >> 12));
    }
    const [ZERO, COPY, UNKNOWN] = [0x8000n, 0x4000n, 1n];
    const list = [
      [ZERO, 0x2_0000n, 0n],
      [COPY, 0x3_0000n, 0x2_1000n],
      [0n, 0x4_0000n, 0n],
      [ZERO, 0x4_0010n, 0n],
      [COPY, 0x4_0000n, 0x3_0010n],
      [ZERO, 0x3_1000n, 0x10n],
      [ZERO, 0x4000_0000n, 0n],
      [COPY, 0x4_0000n, 0x4000_0000n],
      [ZERO | UNKNOWN, 0x4_0000n, 0n],
      [ZERO | (1n << 36n), 0x4_0000n, 0n],
      [0xf_0000_0000n, 0x4_0000n, 0n],
      [0xc0_0000n | ZERO | COPY, 0x5_0000n, 0x2_1000n],
      [ZERO, 0x10_0000n, 0n],
    ] as const;
    const init: ScriptOp[] = [...calls(list.map((args) => [PAGE_INIT, args, 1] as const)), done];
    g.load(init);
    g.hypercall(0xabn);
    s.calls.enableCap(g.vm, CAP.PPC_ENABLE_HCALL, 0, [BigInt(PAGE_INIT), 1n]);
    g.dirty();
    g.load(init);
    g.mmio();
    s.calls.readMemory(g.hva + RESULTS, new Uint8Array(8 * list.length));
    for (const page of [0x2_0000, 0x3_0000, 0x3_1000, 0x4_0000, 0x5_0000, 0x10_0000]) {
      s.calls.readMemory(g.hva + page, new Uint8Array(8));
      s.calls.readMemory(g.hva + page + 0xff8, new Uint8Array(8));
    }
    g.dirty();
  }),
  scenario('bulk-remove', (s) => {
    const g = new HptGuest(s, ORDER);
    g.map(RESULTS);
    const v = PLAIN[0];
    const request = (type: bigint, index: bigint): bigint => (type << 56n) | index;
    const enter = (slot: bigint, r: bigint) => [ENTER, [H_EXACT, slot, v, r], 1] as const;
    const list: Parameters<typeof calls>[0] = [
      enter(807n, 0x2190n),
      enter(808n, 0x2110n),
      enter(809n, 0x1ff0_0000_0190n),
      enter(810n, 0x2010n),
      [BULK_REMOVE, [request(0x40n, 807n), 0n, request(0x41n, 808n), 8n, request(0x42n, 810n), 0n, 3n << 62n, 5n], 9],
      [
        BULK_REMOVE,
        [request(0x42n, 810n), v & ~0x7fn, request(0x40n, 16384n), 0n, request(0x40n, 809n), 0n, 0n, 0n],
        9,
      ],
      [BULK_REMOVE, [request(0x40n, 809n), 0n, request(0x43n, 811n), 0n, 0n, 0n, 0n, 0n], 9],
      [BULK_REMOVE, [request(0x80n, 809n), 0n, 0n, 0n, 0n, 0n, 0n, 0n], 9],
    ];
    g.load([...calls(list), done]);
    g.mmio();
    s.calls.readMemory(g.hva + RESULTS, new Uint8Array(8 * list.reduce((sum, [, , results]) => sum + results, 0)));
  }),
  scenario('clear-bits-of-used-pages', (s) => {
    const g = new HptGuest(s, ORDER);
    g.map(RESULTS, 0x5000, 0x6000);
    const reader = g.reader();
    g.drain(reader);
    for (const nr of [CLEAR_REF, CLEAR_MOD]) s.calls.enableCap(g.vm, CAP.PPC_ENABLE_HCALL, 0, [BigInt(nr), 1n]);
    const [slot5] = vrma(ORDER, 0x5000n, 2);
    const [slot6] = vrma(ORDER, 0x6000n, 2);
    const list: Parameters<typeof calls>[0] = [
      [CLEAR_REF, [0n, BigInt(slot5)], 2],
      [CLEAR_MOD, [0n, BigInt(slot5)], 2],
      [READ, [0n, BigInt(slot5)], 3],
      [CLEAR_MOD, [0n, BigInt(slot6)], 2],
      [REMOVE, [0n, BigInt(slot6), 0n], 3],
    ];
    g.load([store(0x5000, 1), store(0x6000, 2), ...calls(list), pause, store(0x5000, 3), done]);
    g.mmio();
    s.calls.readMemory(g.hva + RESULTS, new Uint8Array(8 * 12));
    g.drain(reader);
    g.dirty();
    g.mmio();
    g.drain(reader);
    g.dirty();
  }),
  scenario('entries-made-by-the-kernel', (s) => {
    const g = new HptGuest(s, ORDER);
    g.load([{ op: 'spin' }]);
    g.run(300);
    for (const start of [0, 1000, 2 ** (ORDER - 4) - 8]) g.read(g.reader(0, start), 120);
    g.write(chunk(0, [BOLTED]));
    g.ppc.allocateHtab(g.vm, ORDER);
    g.drain(g.reader());
    g.run(300);
    g.read(g.reader(), 120);
  }),
  scenario('table-in-use', async (s) => {
    const g = new HptGuest(s, ORDER);
    g.map(0x5000);
    g.load([{ op: 'spin' }]);
    const running = s.calls.runAsync(g.vcpu);
    await sleep(300);
    g.ppc.allocateHtab(g.vm, ORDER);
    g.ppc.allocateHtab(g.vm, ORDER + 1);
    g.write(chunk(100, [PLAIN]));
    g.write(chunk(100, [], 1));
    g.ppc.configureV3Mmu(g.vm, 3, 1n << 63n);
    g.drain(g.reader());
    g.dirty();
    s.calls.kick(g.vcpu);
    await running;
    g.write(chunk(100, [PLAIN]));
    g.ppc.allocateHtab(g.vm, ORDER);
  }),
  scenario('resized-under-it', async (s) => {
    const g = new HptGuest(s, ORDER);
    g.map(0x5000, 0x6000);
    const reader = g.reader();
    g.drain(reader);
    g.load([store(0x5000, 1), pause, store(0x5004, 2), copy(0x5000, 0x6000), done]);
    g.mmio();
    g.ppc.resizeHptPrepare(g.vm, 0, 20);
    await tableAllocated(s);
    g.ppc.resizeHptPrepare(g.vm, 0, 20);
    g.ppc.resizeHptCommit(g.vm, 0, 20);
    g.drain(reader);
    g.drain(g.reader());
    g.mmio();
    g.drain(reader);
    g.dirty();
    s.calls.readMemory(g.hva + 0x5000, new Uint8Array(8));
  }),
  scenario('radix', (s) => {
    const g = new HptGuest(s);
    const enter = calls([[ENTER, [0n, 0n, PLAIN[0], PLAIN[1]], 1]]);
    g.load([
      copy(0x4000, 0x5000),
      ...enter,
      copy(0x6000, 0x5004),
      pause,
      copy(0x6000, 0x5008),
      copy(0x7000, 0x5008),
      done,
    ]);
    g.mmio();
    g.dirty();
    g.mmio();
    g.dirty();
    g.slot(MEMORY_SIZE);
    g.slot(MEMORY_SIZE, MEM.LOG_DIRTY_PAGES);
    g.load([copy(0x4000, 0x5000), copy(0x6000, 0x5008), done]);
    g.mmio();
    g.dirty();
    s.calls.readMemory(g.hva + RESULTS, new Uint8Array(8));
  }),
];
