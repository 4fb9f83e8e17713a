import { setTimeout as sleep } from 'node:timers/promises';
import {
  diffHtabs,
  encodeHpte,
  HPTES_PER_GROUP,
  Htab,
  primaryGroup,
  VRMA_VSID,
  verifyHtab,
  vrmaSegment,
} from '../../../lib/arch/ppc64/model/index.ts';
import type { EmulatedKernelOptions } from '../../../lib/backends/emulated.ts';
import { spin, store } from '../../../lib/emulated/guest.ts';
import { type HtabCopyPass, Kvm, type Vcpu, type Vm } from '../../../lib/index.ts';
import { REGS_SIZE } from '../../../lib/uapi/structs.ts';

/*
 * Moves a ppc64 guest from one VM to another while it runs: its memory, its hashed page table, its registers. The
 * guest stores numbers that count up to one page after the other, and changes entries of its table by hypercalls.
 */

const ORDER = 18;
const MEMORY = 16 << 20;
/** The guest's pages: 256 from here on. */
const DATA = 0x10_0000;
const PAGES = 256;
const PAGE = 4096;
const CODE = 0x1000;
/** 64-bit little-endian code in real mode: SF, LE. */
const MSR = 0x8000_0000_0000_0001n;
const REGS_PC = 0;
const REGS_MSR = 40;

/** For ever: r14 counts up and is stored to each of 256 pages in turn, and then one entry of the table gets another key. */
const PROGRAM = [
  0x39c0_0000, // li r14, 0
  0x3de0_0010, // outer: lis r15, DATA >> 16
  0x3a00_0100, // li r16, PAGES
  0x7e09_03a6, // mtctr r16
  0x39ce_0001, // inner: addi r14, r14, 1
  0x91cf_0000, // stw r14, 0(r15)
  0x39ef_1000, // addi r15, r15, PAGE
  0x4200_fff4, // bdnz inner
  0x3860_0018, // li r3, H_PROTECT
  0x55c4_0d2c, // rlwinm r4, r14, 1, 20, 22: a key of 0 to 7
  0x55c5_dcb8, // rlwinm r5, r14, 27, 18, 28: the first slot of a group
  0x38c0_0000, // li r6, 0
  0x4400_0022, // sc 1
  0x4bff_ffd0, // b outer
];

/** What a migration was. */
export interface Migration {
  readonly from: string;
  readonly to: string;
  readonly order: number;
  readonly valid: number;
  readonly changed: number;
  readonly slotsOfPasses: readonly number[];
  /** Slots in which the two tables differ, and entries that cannot be found where they are. */
  readonly differences: number;
  readonly findings: number;
  /** Pages whose contents differ. */
  readonly pages: number;
  readonly stores: number;
  /** The guest ran on in its new VM, where that is possible. */
  readonly ranOn: boolean;
}

/** Identity entries for the code and the data, as a guest in real mode needs them. */
export function identityTable(): Htab {
  const table = new Htab(ORDER);
  const enter = (ea: number): void => {
    const entry = encodeHpte({ vsid: VRMA_VSID, segmentSize: '1T', offset: ea, ra: ea, bolted: true, pp: 0 });
    table.set(primaryGroup(vrmaSegment(), ea, ORDER) * HPTES_PER_GROUP, entry);
  };
  enter(CODE);
  for (let page = 0; page < PAGES; page++) enter(DATA + page * PAGE);
  return table;
}

export function newVm(kvm: Kvm): Vm {
  const vm = kvm.createVm();
  vm.memory.addRam(0, kvm.mapAnonymous(MEMORY));
  return vm;
}

function newVcpu(vm: Vm): Vcpu {
  const vcpu = vm.createVcpu();
  vcpu.ppc64.enablePapr();
  return vcpu;
}

function loadProgram(vm: Vm, vcpu: Vcpu): void {
  PROGRAM.forEach((word, i) => {
    vm.memory.writeU32(CODE + i * 4, word);
  });
  const regs = new DataView(new ArrayBuffer(REGS_SIZE.ppc64.regs ?? 0));
  regs.setBigUint64(REGS_PC, BigInt(CODE), true);
  regs.setBigUint64(REGS_MSR, MSR, true);
  vcpu.setRegsBytes(new Uint8Array(regs.buffer));
}

/** Runs until stopped; whatever the run comes back with is the answer of `stop`. */
function start(vcpu: Vcpu): () => Promise<string> {
  const run = vcpu.run();
  return async () => {
    vcpu.kick();
    return (await run).reason;
  };
}

/** A vCPU of the VM was in its guest, and is stopped. */
export async function runForAWhile(vm: Vm): Promise<void> {
  const vcpu = newVcpu(vm);
  const { emulated } = vm.kvm;
  if (emulated === undefined) loadProgram(vm, vcpu);
  else {
    emulated.loadGuest(
      vcpu.fd,
      (function* () {
        yield spin;
      })(),
    );
  }
  const stop = start(vcpu);
  await sleep(50);
  await stop();
}

async function migrate(source: Kvm, target: Kvm): Promise<Migration> {
  using from = newVm(source);
  using to = newVm(target);
  from.hpt.allocate(ORDER);
  from.hpt.write(identityTable());
  const vcpu = newVcpu(from);
  loadProgram(from, vcpu);
  using dirty = from.dirtyPages.start();
  const copyPages = (): void => {
    const page = new Uint8Array(source.pageSize);
    dirty.collect().forEachPage((gfn) => {
      from.memory.readExact(gfn * source.pageSize, page);
      to.memory.writeExact(gfn * source.pageSize, page);
    });
  };
  const everything = new Uint8Array(MEMORY);
  from.memory.readExact(0, everything);
  to.memory.writeExact(0, everything);

  const stop = start(vcpu);
  await sleep(50);
  const passes: HtabCopyPass[] = [
    ...(await from.hpt.copyTo(to, {
      settled: 0,
      maxPasses: 5,
      onPass: copyPages,
      stop: async () => {
        const reason = await stop();
        if (reason !== 'INTR') throw new Error(`the guest came back with ${reason}`);
      },
    })),
  ];
  copyPages();

  const before = from.hpt.read();
  const after = to.hpt.read();
  let pages = 0;
  for (let gpa = 0; gpa < MEMORY; gpa += PAGE) {
    const [here, there] = [from, to].map((vm) => Buffer.from(vm.memory.readExact(gpa, PAGE)));
    if (!here!.equals(there!)) pages++;
  }
  const counter = (vm: Vm): number =>
    Math.max(...Array.from({ length: PAGES }, (_, i) => vm.memory.readU32(DATA + i * PAGE)));
  const stores = counter(from);
  const ran = await runOn(vcpu, newVcpu(to), to, counter);
  return {
    from: source.backend,
    to: target.backend,
    order: to.hpt.getOrder() ?? 0,
    valid: [...Array(before.entryCount).keys()].filter((slot) => before.isValid(slot)).length,
    changed: [...Array(before.entryCount).keys()].filter((slot) => before.get(slot).changed).length,
    slotsOfPasses: passes.map(({ slots }) => slots),
    differences: [...diffHtabs(before, after)].length,
    findings: [...verifyHtab(after)].length,
    pages,
    stores,
    ranOn: ran > stores,
  };
}

/** Lets the guest run on where it was moved to, and returns how far it counted there. */
async function runOn(stopped: Vcpu, vcpu: Vcpu, vm: Vm, counter: (vm: Vm) => number): Promise<number> {
  const { emulated } = vm.kvm;
  if (emulated === undefined) {
    vcpu.setRegsBytes(stopped.getRegsBytes(REGS_SIZE.ppc64.regs ?? 0));
  } else {
    const next = counter(vm) + 1;
    emulated.loadGuest(
      vcpu.fd,
      (function* () {
        for (let i = 0; i < PAGES; i++) yield store(DATA + i * PAGE, 4, BigInt(next + i));
        yield spin;
      })(),
    );
  }
  const stop = start(vcpu);
  const before = counter(vm);
  for (let waits = 0; waits < 100 && counter(vm) <= before; waits++) await sleep(100);
  const reason = await stop();
  if (reason !== 'INTR') throw new Error(`the guest came back with ${reason} where it was moved to`);
  return counter(vm);
}

/** Migrates from the real kernel to itself, and to the emulated kernel. */
export async function migrateHpt(
  emulation: EmulatedKernelOptions,
  progress: (text: string) => void,
): Promise<readonly Migration[]> {
  using real = Kvm.open({ backend: 'native' });
  using emulated = Kvm.open({ backend: 'emulated', ...emulation });
  const migrations: Migration[] = [];
  for (const target of [real, emulated]) {
    progress(`migrating to the ${target.backend} kernel`);
    migrations.push(await migrate(real, target));
  }
  return migrations;
}
