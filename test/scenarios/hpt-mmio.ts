import { done, HptGuest, ORDER } from './hpt-guest-vm.ts';
import { DONE_ADDRESS, type Scenario, type ScenarioHost, type ScriptOp } from './scenario.ts';

/** Where the instructions are, one every 16 bytes, and where their results go. */
const INSTRUCTIONS = 0x8000;
const RESULTS = 0x9000;
const RESULT_BYTES = 9 * 8;
/** A page without memory. */
const DEVICE = 0x4000_0000;

const ANSWER = Uint8Array.of(0x81, 0x92, 0xa3, 0xb4, 0xc5, 0xd6, 0xe7, 0xf8);
/** r3: what is stored, or where it is loaded to; r4: base; r5: index. */
const GPRS: Readonly<Record<number, bigint>> = {
  3: 0x1122_3344_5566_7788n,
  4: BigInt(DEVICE) + 0x100n,
  5: 0x28n,
  6: 0x6666_6666_6666_6666n,
  7: 0x7777_7777_7777_7777n,
  8: 0n,
};

const d = (opcode: number, displacement: number, rt = 3, ra = 4): number =>
  ((opcode << 26) | (rt << 21) | (ra << 16) | (displacement & 0xffff)) >>> 0;
const x = (xo: number, rt = 3, ra = 4, rb = 5): number =>
  ((31 << 26) | (rt << 21) | (ra << 16) | (rb << 11) | (xo << 1)) >>> 0;

function scenario(name: string, run: (s: ScenarioHost) => void | Promise<void>): Scenario {
  return { name: `hpt-mmio/${name}`, arches: ['ppc64'], runsGuest: true, run };
}

/** A guest that has entries for its code, its interrupts and its results, and one for a device's page. */
function guest(s: ScenarioHost, deviceEa = DEVICE): HptGuest {
  const g = new HptGuest(s, ORDER);
  g.map(RESULTS);
  for (const page of [0, 0x2000, INSTRUCTIONS]) g.real(page, 0x110n, 4);
  g.real(deviceEa, 0x28n, 3, DEVICE);
  return g;
}

/** Runs until the guest is done or comes back with something else, and shows what each instruction left. */
function run(s: ScenarioHost, g: HptGuest, ops: readonly ScriptOp[]): void {
  g.load([...ops, done]);
  for (let exits = 0; exits < 64; exits++) {
    const address = g.access(ANSWER);
    if (address === undefined || address === DONE_ADDRESS) break;
  }
  for (const op of ops) if (op.op === 'execute') s.calls.readMemory(g.hva + op.to, new Uint8Array(RESULT_BYTES));
}

/** A guest that executes each instruction at a device. */
function instructions(s: ScenarioHost, words: readonly number[]): void {
  const g = guest(s);
  const ops = words.map((word, i): ScriptOp => {
    return { op: 'execute', at: INSTRUCTIONS + 16 * i, word, gprs: GPRS, to: RESULTS + RESULT_BYTES * i };
  });
  run(s, g, ops);
}

/** Guests that access devices. */
export const hptMmioScenarios: readonly Scenario[] = [
  scenario('displacement', (s) => {
    const opcodes = [32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45];
    instructions(s, [
      ...opcodes.map((opcode) => d(opcode, -8)),
      ...[d(58, 16), d(58, 17), d(58, 18), d(62, 16), d(62, 17)],
    ]);
  }),
  scenario('indexed', (s) => {
    const xos = [
      ...[23, 55, 87, 119, 279, 311, 343, 375, 341, 373, 21, 53], // lwzx lwzux lbzx lbzux lhzx lhzux lhax lhaux lwax lwaux ldx ldux
      ...[151, 183, 215, 247, 407, 439, 149, 181], // stwx stwux stbx stbux sthx sthux stdx stdux
      ...[534, 790, 532, 662, 918, 660], // lwbrx lhbrx ldbrx stwbrx sthbrx stdbrx
    ];
    instructions(
      s,
      xos.map((xo) => x(xo)),
    );
  }),
  scenario('not-emulated', (s) => {
    instructions(s, [
      ...[20, 84, 52, 116].map((xo) => x(xo)), // lwarx ldarx lbarx lharx
      d(56, 0, 6), // lq r6
      d(62, 2, 6), // stq r6
    ]);
  }),
  scenario('faults', (s) => {
    const g = guest(s);
    g.real(0x6000, 0x11n, 3);
    const nowhere = { ...GPRS, 4: 0x5000_0100n };
    const readOnly = { ...GPRS, 4: 0x6008n };
    const tries = [
      { word: d(32, 0), gprs: nowhere },
      { word: d(36, 0), gprs: nowhere },
      { word: d(37, 8), gprs: nowhere },
      { word: d(36, 0), gprs: readOnly },
      { word: d(32, 0), gprs: readOnly },
      { word: d(62, 1), gprs: { ...GPRS, 4: BigInt(RESULTS) + 0x800n } },
    ];
    run(
      s,
      g,
      tries.map((each, i) => ({
        op: 'execute',
        at: INSTRUCTIONS + 16 * i,
        ...each,
        to: RESULTS + RESULT_BYTES * i,
      })),
    );
    s.calls.readMemory(g.hva + RESULTS + 0x800, new Uint8Array(8));
  }),
  scenario('replaced-before-it-is-emulated', (s) => {
    // stq's first doubleword replaces stq itself, and its second one faults: what KVM reads is another instruction.
    const page = 0xb000;
    const g = guest(s, page);
    g.real(page - 0x1000, 0x110n, 3);
    g.real(0x6000, 0x10n, 3);
    for (const word of [
      d(36, 0), // stw
      d(38, 1, 5), // stb r5, 1(r4)
      d(37, 8, 3, 8), // stwu r3, 8(r8)
      d(36, 0, 3, 8), // stw r3, 0(r8): memory
      d(32, 0x40, 3, 5), // lwz r3, 0x40(r5): the device
      d(32, 0, 3, 8), // lwz r3, 0(r8): memory
      0x7063_00ff, // andi. r3, r3, 0xff
      0x3863_0001, // addi r3, r3, 1
      0x5463_0000, // rlwinm r3, r3, 0, 0, 0
      x(150) | 1, // stwcx.
      x(1014, 0), // dcbz
      x(982, 0), // icbi
      0x0600_0000, // the first word of a prefixed instruction
    ]) {
      const at = page - 8;
      const gprs = {
        3: 0x1122_3344n,
        4: BigInt(at),
        5: BigInt(page),
        6: 0x99n,
        7: (0x4e80_0020n << 32n) | BigInt(word),
        8: 0x6000n,
      };
      run(s, g, [{ op: 'execute', at, word: d(62, 2, 6), gprs, to: RESULTS }]);
      s.calls.readMemory(g.hva + 0x6000, new Uint8Array(16));
    }
  }),
];
